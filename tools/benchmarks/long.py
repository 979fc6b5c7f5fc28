"""Word error rate against elapsed time, on long recordings made of a split's utterances.

    cd egs/librispeech/ASR
    python ../../../tools/benchmark.py long --exp-dir exp --split test-clean --left-chunks 2 8 -1 --json long.json

Utterances are joined in random order, with gaps between them. Each model recognises each recording offline in windows,
and as one stream for each chunk size and left context, as transcribe.py does. With unlimited left context, the mean of
SummaryMixing covers the stream from its beginning; a model with decay_seconds gives recent chunks more weight.

The words of a recording are aligned with its transcript. Errors of an utterance, and insertions after its words, count
at the time at which it begins; intervals are 95 % bootstrap intervals over utterances. "alone" are the same utterances,
recognised one by one. Additional errors in recordings come from the gaps if they appear in the first minute, and from
the length if they grow with time.
"""

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import kaldialign
import torch
from lhotse.cut import Cut
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.record import Run, Table, add_legend, add_machine_options, chunk_cells, panels
from summarymix.chunking import ChunkConfig
from summarymix.cli import above_zero, add_epoch_options
from summarymix.data.cuts import transcript
from summarymix.data.shar import read_data, with_data
from summarymix.decoding.evaluate import evaluation_data
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.runs import load_run_or_checkpoint
from summarymix.scoring.intervals import rate_interval

EDGES = (0, 1, 2, 5, 10, 30, 60)  # minutes at which bins of elapsed time begin


class LongUtterance(NamedTuple):
    """An utterance in a recording: its samples [begin, end) and its cut."""

    cut: Cut
    begin: int
    end: int


class Recording(NamedTuple):
    """Samples (n,) and their utterances."""

    samples: Tensor
    utterances: list[LongUtterance]


class LongSetting(NamedTuple):
    """A model and options of :meth:`Recognizer.transcribe`."""

    model: str
    chunk_ms: int | None  # None: offline
    left_chunks: int
    reset_after_silence: float | None

    def __str__(self) -> str:
        reset = "" if self.reset_after_silence is None else f", reset after {self.reset_after_silence:g} s of silence"
        return f"{self.model}, {ChunkConfig.from_ms(self.chunk_ms, self.left_chunks)}{reset}"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`Recognizer.transcribe`."""
        if self.chunk_ms is None:
            return {"mode": "offline"}
        names = ("chunk_ms", "left_chunks", "reset_after_silence")
        return {"mode": "streaming", **{name: getattr(self, name) for name in names}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    option("--exp-dir", type=Path, nargs="+", required=True, help="folders of training runs")
    option("--split", required=True, help="split whose utterances are joined")
    option("--minutes", type=float, default=30, help="minimum length of a recording (30)")
    option(
        "--recordings",
        type=above_zero(int),
        help="number of recordings (as many as one pass over the split fills, at least 1)",
    )
    option("--gap-seconds", type=float, nargs="+", default=[0.3], help="gaps between utterances (0.3)")
    option("--gap-db", type=float, help="level of white noise in the gaps, in dBFS (digital silence)")
    option("--chunk-ms", type=int, nargs="+", default=[640], help="chunk sizes in ms (640)")
    option("--left-chunks", type=int, nargs="+", default=[8, -1], help="left contexts in chunks, -1: unlimited (8 -1)")
    option(
        "--reset-after-silence",
        type=float,
        nargs="+",
        default=[],
        metavar="SECONDS",
        help="also reset the encoder after so many seconds without a word",
    )
    add_epoch_options(parser)
    option("--manifest-dir", help="folder of the manifests, if they have moved since training")
    option("--seed", type=int, default=0, help="seed of the order of utterances (0)")
    SearchOptions.add_to(parser)
    add_machine_options(parser, precision=False)


Count = tuple[float, int, int]  # begin in seconds, errors and words of an utterance


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure error rates by elapsed time, for each gap, model and setting.

    Raises:
        ValueError: an option is invalid, or no audio of the split can be read.
    """
    torch.set_num_threads(args.threads)
    search = SearchOptions.from_args(args)
    recognizers: dict[str, Recognizer] = {}
    runs = []  # configurations
    for exp_dir in args.exp_dir:
        model, tokenizer, info = load_run_or_checkpoint(exp_dir, args.epoch, args.avg)
        runs.append(info["config"])
        recognizers[str(exp_dir)] = Recognizer.from_run(model, tokenizer, info["config"], args.device)
        recognizers[str(exp_dir)].set_search(search)
    streams = [*product(args.chunk_ms, args.left_chunks, [None, *args.reset_after_silence])]
    settings, left_out = [], []
    for name, options in product(recognizers, [(None, -1, None), *streams]):
        setting = LongSetting(name, *options)
        try:
            recognizers[name].transcribe(torch.zeros(0), **setting.options())
            settings.append(setting)
        except ValueError as error:
            left_out.append(setting._asdict() | {"left_out": str(error)})

    data = evaluation_data(runs[0]["data"], args.manifest_dir)
    cuts = sorted(data.open(args.split), key=lambda cut: cut.id)
    results: dict[str, Any] = {"rates": [], "recordings": [], "left_out": left_out}
    by_itself: dict[tuple[LongSetting, str], list[Count]] = {}
    for gap in args.gap_seconds:
        counts: dict[LongSetting, tuple[list[Count], list[Count]]] = {setting: ([], []) for setting in settings}
        skipped: list[str] = []
        for number, recording in enumerate(join(cuts, gap, data.sample_rate, args, skipped)):
            minutes = len(recording.samples) / data.sample_rate / 60
            results["recordings"].append(
                {"gap_seconds": gap, "minutes": minutes, "utterances": len(recording.utterances)}
            )
            for setting, (joined, alone) in counts.items():
                recognizer, options = recognizers[setting.model], setting.options()
                joined += count_errors(recognizer, recording, data.sample_rate, options)
                for one in recording.utterances:
                    if (setting, one.cut.id) not in by_itself:
                        part = Recording(recording.samples[one.begin : one.end], [one])
                        by_itself[setting, one.cut.id] = count_errors(recognizer, part, data.sample_rate, options)
                    alone += by_itself[setting, one.cut.id]
                print(f"gap {gap:g} s, recording {number + 1} of {minutes:.1f} min: {setting}", flush=True)
        for setting, (joined, alone) in counts.items():
            decay = recognizers[setting.model].model.config.mixing.decay_seconds
            bins = list(rates(joined, alone))
            results["rates"].append(
                {"gap_seconds": gap, "decay_seconds": decay, "skipped": len(skipped), "bins": bins} | setting._asdict()
            )
    return results


def join(
    cuts: Sequence[Cut], gap_seconds: float, sample_rate: int, args: argparse.Namespace, skipped: list[str]
) -> Iterator[Recording]:
    """Yield recordings of a split's utterances in random order. Adds unreadable cuts to ``skipped``.

    Raises:
        ValueError: no cut can be read.
    """
    rng = random.Random(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    size = round(60 * args.minutes * sample_rate)
    gap = torch.zeros(round(gap_seconds * sample_rate))
    parts: list[Tensor] = []
    utterances: list[LongUtterance] = []
    position, made = 0, 0
    while True:
        for cut in rng.sample(cuts, len(cuts)):
            if cut.id in skipped:
                continue
            try:
                samples = torch.from_numpy(with_data(cut, read_data([cut])).resample(sample_rate).load_audio()[0])
            # The exception for a broken file depends on format and library.
            except Exception:
                skipped.append(cut.id)
                continue
            utterances.append(LongUtterance(cut, position, position + len(samples)))
            if args.gap_db is not None:
                gap = 10 ** (args.gap_db / 20) * torch.randn(len(gap), generator=generator)
            parts += [samples, gap]
            position += len(samples) + len(gap)
            if position >= size:
                yield Recording(torch.cat(parts), utterances)
                made += 1
                if made == args.recordings:
                    return
                parts, utterances, position = [], [], 0
        if len(skipped) == len(cuts):
            raise ValueError(f"no audio of the split {args.split} can be read, for example {cuts[0].id}")
        # End of a pass over the split.
        if made and args.recordings is None:
            return


def count_errors(
    recognizer: Recognizer, recording: Recording, sample_rate: int, options: dict[str, Any]
) -> list[Count]:
    """Recognise a recording, and count the errors of each utterance."""
    words = recognizer.transcribe(recording.samples, sample_rate, **options).text.split()
    refs = [transcript(utterance.cut, recognizer.tokenizer).split() for utterance in recording.utterances]
    return [
        (utterance.begin / sample_rate, count, len(ref))
        for utterance, count, ref in zip(recording.utterances, errors_of(refs, words), refs, strict=True)
    ]


def errors_of(refs: list[list[str]], hyp: list[str]) -> list[int]:
    """Count the errors of each utterance in ``refs``, recognised in a row as ``hyp``.

    An inserted word counts for the utterance of the preceding word; before all words, for the first utterance.
    """
    owners = [i for i, words in enumerate(refs) for _ in words]  # of each word
    errors = [0] * len(refs)
    done = 0  # words
    for ref, word in kaldialign.align([word for words in refs for word in words], hyp, ""):
        done += ref != ""
        if ref != word:
            errors[owners[max(done - 1, 0)] if owners else 0] += 1
    return errors


def rates(joined: list[Count], alone: list[Count]) -> Iterator[dict[str, Any]]:
    """Yield error rates with intervals: alone, by elapsed minutes, and overall."""
    bins = {"alone": alone}
    for begin, end in zip(EDGES, (*EDGES[1:], math.inf), strict=True):
        name = f"from {begin}" if end == math.inf else f"{begin}–{end}"
        bins[f"{name} min"] = [count for count in joined if 60 * begin <= count[0] < 60 * end]
    bins["all"] = joined
    for name, counts in bins.items():
        errors, words = [count[1] for count in counts], [count[2] for count in counts]
        if interval := rate_interval(errors, words):
            rate = 100 * sum(errors) / sum(words)
            figures = {"words": sum(words), "errors": sum(errors), "wer": rate, "interval": interval}
            yield {"bin": name, "utterances": len(counts)} | figures


def label(result: dict[str, Any]) -> list[str]:
    """Cells of model, chunk and left context."""
    if result["chunk_ms"] is None:
        return [result["model"], "offline, windows", "–"]
    chunk, left = chunk_cells(result)
    if result["decay_seconds"]:
        left += f", decay {result['decay_seconds']:g} s"
    if result["reset_after_silence"]:
        left += f", reset after {result['reset_after_silence']:g} s"
    return [result["model"], chunk, left]


def tables(run: Run) -> list[Table]:
    """Tables of error rates, one for each gap."""
    results, made = run["results"], []
    for gap in dict.fromkeys(result["gap_seconds"] for result in results["rates"]):
        chosen = [result for result in results["rates"] if result["gap_seconds"] == gap]
        names = list(dict.fromkeys(one["bin"] for result in chosen for one in result["bins"]))
        rows = []
        for result in chosen:
            cells = {
                one["bin"]: f"{one['wer']:.2f} ({one['interval'][0]:.2f}–{one['interval'][1]:.2f})"
                for one in result["bins"]
            }
            rows.append([*label(result), *(cells.get(name, "n/a") for name in names)])
        recordings = [one for one in results["recordings"] if one["gap_seconds"] == gap]
        notes = [
            f"{len(recordings)} recordings of {max(one['minutes'] for one in recordings):.1f} minutes at most, with "
            f"{sum(one['utterances'] for one in recordings)} utterances; {chosen[0]['skipped']} could not be read."
        ]
        notes += [
            f"{', '.join(label(one | {'decay_seconds': None}))}: left out, {one['left_out']}"
            for one in results["left_out"]
        ]
        kind = run["settings"]["gap_db"]
        kind = "silence" if kind is None else f"noise at {kind:g} dB"
        title = f"WER % against elapsed time, gaps of {gap:g} s of {kind}"
        made.append(Table(title, ["model", "chunk", "left context", *names], rows, notes))
    return made


def plots(run: Run) -> dict[str, Figure]:
    """Plot of error rates by elapsed time, a panel for each gap."""
    rates = run["results"]["rates"]
    gaps = list(dict.fromkeys(result["gap_seconds"] for result in rates))
    figure, axes = panels(len(gaps), "Word error rate against elapsed time")
    for one, gap in zip(axes, gaps, strict=True):
        chosen = [result for result in rates if result["gap_seconds"] == gap]
        for i, result in enumerate(chosen):
            points = [point for point in result["bins"] if point["bin"] != "all"]
            ys = [point["wer"] for point in points]
            bars = [[y - p["interval"][0] for p, y in zip(points, ys, strict=True)]]
            bars += [[p["interval"][1] - y for p, y in zip(points, ys, strict=True)]]
            xs = [k + 0.5 * i / len(chosen) for k in range(len(points))]  # shifted, so that bars do not overlap
            one.errorbar(xs, ys, yerr=bars, fmt=".-", capsize=2, label=", ".join(label(result)))
            one.set_xticks(range(len(points)), [point["bin"] for point in points], rotation=30)
        one.set(title=f"gaps of {gap:g} s", ylabel="WER %", ylim=(0, None))
        add_legend(one)
    return {"wer": figure}
