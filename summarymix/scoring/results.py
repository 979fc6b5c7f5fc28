"""Scoring: ``recogs-*.txt`` and ``errs-*.txt`` in icefall's format, ``results.jsonl``, and tables of results."""

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import kaldialign

from summarymix.files import atomic_write, read_json_lines
from summarymix.scoring.intervals import rate_interval
from summarymix.scoring.metrics import METRICS, UNIT_NAMES, Metric, split_units

# "No unit" in an alignment. A word of a transcript cannot be empty, but it can be "*".
_NOTHING = ""


@dataclass(frozen=True)
class ScoredUtterance:
    """The reference and the hypothesis of one cut, as words. Without words in the reference, it has no speech."""

    cut_id: str
    ref: list[str]
    hyp: list[str]
    seconds: float = 0.0  # of audio


@dataclass
class UnitStats:
    """Counts of one word or character: correct, replaced by another, replacing another, inserted, deleted."""

    correct: int = 0
    replaced: int = 0
    replacing: int = 0
    inserted: int = 0
    deleted: int = 0

    @property
    def errors(self) -> int:
        return self.replaced + self.replacing + self.inserted + self.deleted


@dataclass
class ErrorStats:
    """Errors of a set of utterances in the units of a metric, from the Levenshtein alignment of each (kaldialign)."""

    metric: Metric = "wer"
    alignments: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)
    per_unit: dict[str, UnitStats] = field(default_factory=dict)
    units: int = 0  # in the references
    correct: int = 0
    no_speech: int = 0  # recordings with an empty reference, whose insertions count among all errors too
    no_speech_seconds: float = 0.0
    no_speech_insertions: int = 0

    @classmethod
    def from_utterances(cls, utterances: Iterable[ScoredUtterance], metric: Metric = "wer") -> "ErrorStats":
        """Align the utterances and count their errors."""
        stats = cls(metric)
        for utterance in utterances:
            ref, hyp = split_units(utterance.ref, metric), split_units(utterance.hyp, metric)
            pairs = kaldialign.align(ref, hyp, _NOTHING)
            stats.alignments.append((utterance.cut_id, pairs))
            stats.units += len(ref)
            if not ref:
                stats.no_speech += 1
                stats.no_speech_seconds += utterance.seconds
                stats.no_speech_insertions += len(hyp)
            for ref_unit, hyp_unit in pairs:
                stats._count(ref_unit, hyp_unit)
        return stats

    def _count(self, ref: str, hyp: str) -> None:
        if ref == hyp:
            self.correct += 1
            self._unit(ref).correct += 1
        elif ref == _NOTHING:
            self.insertions[hyp] += 1
            self._unit(hyp).inserted += 1
        elif hyp == _NOTHING:
            self.deletions[ref] += 1
            self._unit(ref).deleted += 1
        else:
            self.substitutions[ref, hyp] += 1
            self._unit(ref).replaced += 1
            self._unit(hyp).replacing += 1

    def _unit(self, unit: str) -> UnitStats:
        return self.per_unit.setdefault(unit, UnitStats())

    @property
    def errors(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.insertions.total() + self.deletions.total() + self.substitutions.total()

    @property
    def rate(self) -> float | None:
        """Error rate in per cent; None if the references have no units."""
        return _rate(self.errors, self.units)

    def by_utterance(self) -> dict[str, tuple[int, int]]:
        """Numbers of errors and of reference units of each utterance."""
        return {
            cut_id: (sum(ref != hyp for ref, hyp in pairs), sum(ref != _NOTHING for ref, _ in pairs))
            for cut_id, pairs in self.alignments
        }

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the rate over utterances."""
        counts = self.by_utterance().values()
        return rate_interval([errors for errors, _ in counts], [units for _, units in counts])

    def above(self, baseline: "ErrorStats") -> list[float] | None:
        """The difference from another rate in percentage points, with its 95 % interval over utterances.

        None if it has no interval, or the two have other utterances or other references.
        """
        if self._references() != baseline._references():
            return None
        counts, others = self.by_utterance(), baseline.by_utterance()
        errors = [count - others[cut_id][0] for cut_id, (count, _) in counts.items()]
        units = [units for _, units in counts.values()]
        interval = rate_interval(errors, units)
        return None if interval is None else [100 * sum(errors) / sum(units), *interval]

    def _references(self) -> dict[str, list[str]]:
        return {cut_id: [ref for ref, _ in pairs if ref != _NOTHING] for cut_id, pairs in self.alignments}

    def __str__(self) -> str:
        """One line in the format of Kaldi's ``%WER`` lines."""
        return (
            f"%{self.metric.upper()} {format_percent(self.rate)} [{self.errors} / {self.units}, "
            f"{self.insertions.total()} ins, {self.deletions.total()} del, {self.substitutions.total()} sub]"
        )

    def without_speech(self) -> str:
        """One line on the recordings without speech; empty if there are none."""
        if not self.no_speech:
            return ""
        per_hour = insertions_per_hour(self.no_speech_insertions, self.no_speech_seconds)
        return (
            f"{self.no_speech} recordings without speech, {self.no_speech_seconds / 3600:.2f} h: "
            f"{'unknown' if per_hour is None else f'{per_hour:.1f}'} insertions an hour ({UNIT_NAMES[self.metric]})"
        )


def error_rates(utterances: Sequence[ScoredUtterance]) -> dict[Metric, float | None]:
    """Error rates in per cent by all metrics; None if the references have no words."""
    rates: dict[Metric, float | None] = {}
    for metric in METRICS:
        counts = [count_errors(utterance.ref, utterance.hyp, metric) for utterance in utterances]
        rates[metric] = _rate(sum(errors for errors, _ in counts), sum(units for _, units in counts))
    return rates


def count_errors(ref: Sequence[str], hyp: Sequence[str], metric: Metric) -> tuple[int, int]:
    """Number of errors of a hypothesis, and of units of its reference. Both are given as words."""
    units = split_units(ref, metric)
    return kaldialign.edit_distance(units, split_units(hyp, metric))["total"], len(units)


def insertions_per_hour(insertions: int, seconds: float) -> float | None:
    """Insertions in an hour of audio; None if the duration is unknown."""
    return 3600 * insertions / seconds if seconds else None


def _rate(errors: int, units: int) -> float | None:
    return 100 * errors / units if units else None


def write_recogs(path: Path, utterances: Iterable[ScoredUtterance]) -> None:
    """Write reference and hypothesis of every cut in icefall's ``recogs`` format, sorted by cut id."""
    with atomic_write(path) as file:
        for utterance in sorted(utterances, key=lambda utterance: utterance.cut_id):
            print(f"{utterance.cut_id}:\tref={utterance.ref}", file=file)
            print(f"{utterance.cut_id}:\thyp={utterance.hyp}", file=file)


def read_recogs(path: Path) -> list[ScoredUtterance]:
    """Read a file written by :func:`write_recogs`.

    Raises:
        ValueError: the file has another format; the message names the line.
    """
    words: dict[str, dict[str, list[str]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), 1):
        cut_id, _, rest = line.rpartition(":\t")
        kind, _, value = rest.partition("=")
        one = words.setdefault(cut_id, {})
        if kind in one:
            raise ValueError(f"{path}, line {number}: the second {kind} of {cut_id}: decode again")
        try:
            one[kind] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{path}, line {number} is not a line of a recogs file: decode again") from error
    if not all(both.keys() == {"ref", "hyp"} for both in words.values()):
        raise ValueError(f"{path} does not have a ref and a hyp for each utterance: decode again")
    return [ScoredUtterance(cut_id, both["ref"], both["hyp"]) for cut_id, both in words.items()]


def write_nbest(path: Path, nbest: dict[str, list[tuple[float, str]]]) -> None:
    """Write the n-best hypotheses of every cut, sorted by cut id, the best first.

    Tab-separated columns: cut id, rank from 1, score (natural log-probability plus added scores), words.
    """
    with atomic_write(path) as file:
        for cut_id, hypotheses in sorted(nbest.items()):
            for rank, (score, text) in enumerate(hypotheses, 1):
                print(cut_id, rank, f"{score:.4f}", text, sep="\t", file=file)


def write_errs(path: Path, stats: ErrorStats, rates: Mapping[Metric, float | None]) -> None:
    """Write an error report in icefall's ``errs`` format: totals, utterances, kinds of errors, words or characters.

    Args:
        path: file to write.
        stats: errors in the units of one metric. A space among characters is shown as ``␣``.
        rates: error rates by all metrics.
    """
    with atomic_write(path) as file:
        _write_totals(file, stats, rates)
        print("\nPER-UTT DETAILS: corr or (ref->hyp)  ", file=file)
        for cut_id, pairs in sorted(stats.alignments):
            print(f"{cut_id}:\t{format_alignment(pairs)}", file=file)
        print("\nSUBSTITUTIONS: count ref -> hyp", file=file)
        for (ref, hyp), count in _most_frequent(stats.substitutions):
            print(f"{count}   {_shown(ref)} -> {_shown(hyp)}", file=file)
        print("\nDELETIONS: count ref", file=file)
        for unit, count in _most_frequent(stats.deletions):
            print(f"{count}   {_shown(unit)}", file=file)
        print("\nINSERTIONS: count hyp", file=file)
        for unit, count in _most_frequent(stats.insertions):
            print(f"{count}   {_shown(unit)}", file=file)
        print("\nPER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp", file=file)
        for unit, counts in sorted(stats.per_unit.items(), key=lambda item: (-item[1].errors, item[0])):
            in_ref = counts.correct + counts.replaced + counts.deleted
            in_hyp = counts.correct + counts.replacing + counts.inserted
            print(f"{_shown(unit)}   {counts.correct} {counts.errors} {in_ref} {in_hyp}", file=file)


def _write_totals(file: IO[str], stats: ErrorStats, rates: Mapping[Metric, float | None]) -> None:
    print(f"%{stats.metric.upper()} = {'n/a' if stats.rate is None else f'{stats.rate:.2f}'}", file=file)
    print(
        f"Errors: {stats.insertions.total()} insertions, {stats.deletions.total()} deletions, "
        f"{stats.substitutions.total()} substitutions, over {stats.units} reference {UNIT_NAMES[stats.metric]} "
        f"({stats.correct} correct)",
        file=file,
    )
    print(", ".join(f"{metric.upper()} {format_percent(rate)}" for metric, rate in rates.items()), file=file)
    if stats.no_speech:
        print(stats.without_speech(), file=file)
    print(
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, INSERTIONS:, "
        "PER-WORD STATS:",
        file=file,
    )


def _most_frequent(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _shown(unit: str) -> str:
    return "␣" if unit == " " else unit


def format_alignment(pairs: list[tuple[str, str]]) -> str:
    """An alignment on one line: correct units as they are, each run of errors as ``(ref units->hyp units)``."""
    parts: list[str] = []
    for correct, run in groupby(pairs, key=lambda pair: pair[0] == pair[1]):
        refs, hyps = zip(*run, strict=True)
        if correct:
            parts += map(_shown, refs)
        else:
            ref, hyp = (" ".join(_shown(unit) for unit in units if unit != _NOTHING) or "*" for units in (refs, hyps))
            parts.append(f"({ref}->{hyp})")
    return " ".join(parts)


@dataclass
class Result:
    """One line of ``results.jsonl``: the result of one setting on one split."""

    recipe: str
    split: str
    mode: str  # offline, simulated or streaming
    method: str
    chunk_ms: int | None  # None: the whole utterance
    left_chunks: int  # -1: unlimited
    epoch: int
    avg: int
    wer: float | None  # per cent
    words: int  # in the references
    insertions: int  # of the units of ``metric``
    deletions: int
    substitutions: int
    utterances: int
    skipped: int
    rtf: float  # seconds of computing (encoder and search) per second of audio
    parameters: int
    commit: str | None
    seconds: float  # of audio
    latency_ms: float | None  # from the first sample of a chunk to the last sample that its result needs
    state_bytes: int | None  # of one stream between two chunks
    num_streams: int | None  # decoded in parallel in streaming mode
    threads: int
    device: str
    recogs: str  # file names, relative to the experiment's folder
    errs: str
    command: str = ""  # decoding command
    search_options: str = ""  # options of the method that affect the result
    hyps: str = ""  # file names as above; empty in older results
    ctm: str = ""
    cer: float | None = None  # per cent; None in older results
    mer: float | None = None  # per cent; None in older results
    metric: Metric = "wer"  # of insertions, deletions and substitutions, and of the errs file
    units: int | None = None  # of the metric, in the references; None in older results, which count words
    no_speech: int = 0  # recordings with an empty reference
    no_speech_seconds: float = 0.0
    no_speech_insertions: int = 0
    interval: Sequence[float] | None = None  # of 95 %, of the error rate by the metric, over utterances
    above_offline: Sequence[float] | None = None  # difference from offline decoding, and its 95 % interval
    first_partial_ms: Sequence[float] | None = None  # see DelaySummary: median and 95th percentile
    first_stable_ms: Sequence[float] | None = None
    final_ms: Sequence[float] | None = None
    changed_words: float | None = None  # per cent
    lookahead_ms: int = 0
    model: str | None = None  # digest of configuration, tokens and weights; None in older results

    @property
    def rate(self) -> float | None:
        """Error rate in per cent by the result's metric; None if the references have no units."""
        return self.rate_by(self.metric)

    def rate_by(self, metric: Metric) -> float | None:
        """Error rate in per cent by a metric; None if it is unknown."""
        rates: dict[Metric, float | None] = {"wer": self.wer, "cer": self.cer, "mer": self.mer}
        return rates[metric]

    @property
    def search(self) -> str:
        """The method with its options."""
        return f"{self.method} {self.search_options}".rstrip()

    @property
    def setting(self) -> tuple[Any, ...]:
        """Key of a measurement; a later result with the same key supersedes an earlier one."""
        return (
            self.recipe,
            self.split,
            self.mode,
            self.search,
            self.chunk_ms,
            self.left_chunks,
            self.lookahead_ms,
            self.epoch,
            self.avg,
        )


def append_result(path: Path, result: Result) -> None:
    """Append ``result`` to ``path`` as one line of JSON.

    Raises:
        OSError: the file could not be written; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(result), ensure_ascii=False) + "\n"
    try:
        with open(path, "a+b") as file:
            size = file.tell()
            file.seek(0)
            content = file.read(size)
            whole = content.rfind(b"\n") + 1
            if _is_json(content[whole:]):  # a record that another program wrote without the end of its line
                file.write(b"\n")
            elif whole < size:  # half a line of a run killed while writing
                file.truncate(whole)
            file.write(line.encode())
    except OSError as error:
        reason = f"Cannot append to {path}: {error.strerror}. Make room or correct --exp-dir, then decode again"
        raise OSError(error.errno, reason) from error


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def read_results(path: Path) -> list[Result]:
    """The results in ``path`` in order of writing, only the last of each setting.

    Raises:
        ValueError: a line is not a result; the message names the file and the line.
    """
    latest: dict[tuple[Any, ...], Result] = {}
    for number, record in read_json_lines(path):
        try:
            result = Result(**record)
        except TypeError as error:
            raise ValueError(f"{path}, line {number} is not a result ({error}): delete that line") from error
        latest.pop(result.setting, None)
        latest[result.setting] = result
    return list(latest.values())


def format_percent(value: float | None) -> str:
    """``3.14%``, or ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.2f}%"


def shown_metrics(results: Iterable[Result]) -> list[Metric]:
    """Metrics to show of results: their own ones first, then WER and CER."""
    return list(dict.fromkeys([*(result.metric for result in results), "wer", "cer"]))


def render_table(results: Sequence[Result], markdown: bool = False) -> str:
    """A table of results for the terminal or in Markdown, one row per setting.

    Columns: split, method, mode, chunk and look-ahead (ms), left context (chunks), error rates (%), insertions,
    deletions, substitutions, real-time factor, algorithmic latency (ms), state of a stream (KiB), epoch and avg. The
    units of the errors, and insertions an hour in recordings without speech, have columns if they are needed.
    """
    metrics = shown_metrics(results)
    with_units = any(result.metric != "wer" for result in results)
    with_no_speech = any(result.no_speech for result in results)
    errors = [*(f"{metric.upper()} %" for metric in metrics), "ins", "del", "sub"]
    errors += with_units * ["of"] + with_no_speech * ["ins/h without speech"]
    header = ["split", "method", *SETTING_COLUMNS, *errors, "RTF", *STREAM_COLUMNS, "epoch-avg"]
    rows = [
        [
            result.split,
            result.search,
            *setting_cells(result),
            *(_rate_cell(result, metric) for metric in metrics),
            str(result.insertions),
            str(result.deletions),
            str(result.substitutions),
            *with_units * [UNIT_NAMES[result.metric]],
            *with_no_speech * [no_speech_cell(result)],
            f"{result.rtf:.4f}",
            *stream_cells(result),
            f"{result.epoch}-{result.avg}",
        ]
        for result in results
    ]
    return render_rows(header, rows, markdown)


def _rate_cell(result: Result, metric: Metric) -> str:
    rate = result.rate_by(metric)
    return f"{rate:.2f}" if rate is not None else "n/a" if metric == result.metric else "–"


def no_speech_cell(result: Result) -> str:
    """Insertions an hour in the recordings without speech, as a cell of a table."""
    per_hour = insertions_per_hour(result.no_speech_insertions, result.no_speech_seconds)
    return "–" if per_hour is None else f"{per_hour:.1f}"


SETTING_COLUMNS = ("mode", "chunk", "left context")
STREAM_COLUMNS = ("latency", "state")


def setting_cells(result: Result) -> list[str]:
    """Cells of a result for SETTING_COLUMNS."""
    if result.chunk_ms is None:
        return [result.mode, "–", "–"]
    chunk = f"{result.chunk_ms} + {result.lookahead_ms} ms" if result.lookahead_ms else f"{result.chunk_ms} ms"
    return [result.mode, chunk, "unlimited" if result.left_chunks < 0 else str(result.left_chunks)]


def stream_cells(result: Result) -> list[str]:
    """Cells of a result for STREAM_COLUMNS."""
    return [
        "–" if result.latency_ms is None else f"{result.latency_ms:.0f} ms",
        "–" if result.state_bytes is None else f"{result.state_bytes / 1024:.0f} KiB",
    ]


def render_rows(header: list[str], rows: list[list[str]], markdown: bool) -> str:
    """A table with aligned columns, for the terminal or in Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, rule, *rows]]
    if markdown:
        return "\n".join("| " + " | ".join(row) + " |" for row in padded)
    return "\n".join("  ".join(row).rstrip() for row in padded)
