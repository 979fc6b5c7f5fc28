"""Errors of utterances: counts by alignment, and ``recogs-*.txt`` and ``errs-*.txt`` in icefall's format."""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import kaldialign

from summarymix.files import atomic_write
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


def format_percent(value: float | None) -> str:
    """``3.14%``, or ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.2f}%"


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
