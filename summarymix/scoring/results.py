"""``results.jsonl``, one line for each setting, and tables of results."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from summarymix.files import read_json_lines
from summarymix.scoring.errors import insertions_per_hour
from summarymix.scoring.metrics import UNIT_NAMES, Metric


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
            raise ValueError(
                f"{path}, line {number} is not a result of this version ({error}): update this copy of the "
                "repository, or delete that line"
            ) from error
        latest.pop(result.setting, None)
        latest[result.setting] = result
    return list(latest.values())


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
