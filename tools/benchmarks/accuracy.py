"""Error rates with confidence intervals against latency, and emission delays of words.

    cd egs/librispeech/ASR
    ./decode.py --mode offline streaming --chunk-ms 320 640 1280 --left-chunks 4 -1
    python ../../../tools/benchmark.py accuracy --exp-dir exp --splits test-clean --chunk-ms 320 640 1280

Error rates come from EXP/results.jsonl, written by decode.py. Their 95 % intervals are bootstrap intervals over the
utterances of its recogs files: they cover the choice of utterances, not the choice of the seed. If three chunk sizes
and three left contexts were decoded, a map shows the error rate of each pair.

With --splits, this program decodes these splits (greedy search, offline and in chunks), and compares correct words with
an alignment of the transcript by the model's CTC head with full context. The delay begins at the end of the aligned
frame, and ends by one of two clocks. frame: at the end of the emitting frame. availability: when the audio for the
result has arrived, which is the chunk of that frame and the lookahead of the front end. Computing time is not included.
Delays are given for the first and last tokens of words, and of utterances in which every word is correct.
"""

import argparse
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.delay import PERCENTILES, collect
from benchmarks.record import Run, Table, add_legend, add_machine_options, chunk_cells, panels
from summarymix.chunking import ChunkConfig
from summarymix.cli import add_epoch_options
from summarymix.data.evaluation_data import EvalData
from summarymix.data.features import latency_ms
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.evaluate import evaluation_data
from summarymix.decoding.greedy import GreedySearch
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer
from summarymix.runs import load_run_or_checkpoint
from summarymix.scoring.errors import ErrorStats, format_percent, read_recogs
from summarymix.scoring.metrics import RATE_NAMES
from summarymix.scoring.results import read_results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    option("--exp-dir", type=Path, required=True, help="folder of the training run")
    option("--splits", nargs="+", default=[], help="splits to measure emission delays on (none)")
    add_delay_options(parser)


def add_delay_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of measuring emission delays, other than experiments and splits."""
    option = parser.add_argument
    option("--chunk-ms", type=int, nargs="+", default=[640], help="chunk sizes in ms to measure delays with (640)")
    option("--left-chunks", type=int, nargs="+", default=[-1], help="left contexts in chunks, -1: unlimited (-1)")
    option("--lookahead-ms", type=int, nargs="+", default=[0], help="look-aheads in ms (0)")
    add_epoch_options(parser)
    option("--manifest-dir", help="folder of the manifests, if they have moved since training")
    option("--max-duration", type=float, default=200.0, help="seconds of audio in a batch (200)")
    add_machine_options(parser, precision=False)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Collect error rates, and measure delays.

    Raises:
        ValueError: there are no results, and no splits to decode.
    """
    path = args.exp_dir / "results.jsonl"
    if not path.is_file() and not args.splits:
        raise ValueError(f"no {path}, and no --splits: run decode.py first, or give --splits")
    results: dict[str, Any] = {"wer": error_rates(path) if path.is_file() else []}
    if not args.splits:
        return results | {"delay": [], "alignment": {}}
    model, tokenizer, info = load_run_or_checkpoint(args.exp_dir, args.epoch, args.avg)
    return results | measure_delays(args, model, tokenizer, info, aligner=model)


def error_rates(path: Path) -> list[dict[str, Any]]:
    """Results of a file with the 95 % intervals of their error rates, which decode.py has written."""
    rows = []
    for result in read_results(path):
        recogs = path.parent / result.recogs
        if result.interval is None and recogs.is_file():  # an older result
            result.interval = ErrorStats.from_utterances(read_recogs(recogs), result.metric).interval()
        rows.append(vars(result) | {"search": result.search})
    return rows


def measure_delays(
    args: argparse.Namespace, model: Transducer, tokenizer: Tokenizer, info: dict[str, Any], aligner: Transducer
) -> dict[str, Any]:
    """Decode the splits with a model, align them with a model of the same tokens, and measure emission delays."""
    torch.set_num_threads(args.threads)
    model.to(args.device)
    aligner.to(args.device)
    data = evaluation_data(info["config"]["data"], args.manifest_dir)
    settings = product(args.chunk_ms, args.left_chunks, args.lookahead_ms)
    chunks = [ChunkConfig(), *(ChunkConfig.from_ms(*values) for values in settings)]
    for chunk in chunks:
        model.encoder.check_chunk(chunk)
    search = GreedySearch(model, unk_id=tokenizer.unk_id)
    delay, alignment = [], {}
    for split in args.splits:
        batches = EvalData(data, tokenizer, split, output_lengths, max_duration=args.max_duration)
        collected, counts = collect(aligner, tokenizer, search, chunks, data.fbank_options(), batches)
        alignment[split] = counts | {"skipped": len(batches.skipped_items)}
        for chunk, one in collected.items():
            key = {"split": split, "chunk_ms": chunk.chunk_ms, "left_chunks": chunk.left_chunks}
            key |= {"lookahead_ms": chunk.lookahead_ms}
            key |= {"latency_ms": latency_ms(chunk, data.fbank_options()), "epoch": info["epoch"], "avg": info["avg"]}
            delay.append(key | one.figures())
    return {"delay": delay, "alignment": alignment}


def rate_of(result: dict[str, Any]) -> tuple[float, float, float] | None:
    """Error rate of a result and the ends of its interval, in per cent; None without reference words."""
    rate = result[result.get("metric", "wer")]
    return None if rate is None else (rate, *(result["interval"] or (math.nan, math.nan)))


def titles(results: list[dict[str, Any]]) -> str:
    """The metrics of results."""
    return " or ".join(dict.fromkeys(result.get("metric", "wer").upper() for result in results))


def names(results: list[dict[str, Any]]) -> str:
    """Name of the error rate of results."""
    metrics = {result.get("metric", "wer") for result in results}
    return RATE_NAMES[metrics.pop()].capitalize() if len(metrics) == 1 else "Error rate"


def setting(result: dict[str, Any]) -> list[str]:
    """Cells of chunk, left context and latency."""
    if result["chunk_ms"] is None:
        return ["offline", "–", "–"]
    return [*chunk_cells(result), f"{result['latency_ms']:.0f} ms"]


def series(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Split, mode, search, look-ahead and checkpoint of each result, which are the same along a line or in a map."""
    checkpoints = [f"epoch {result['epoch']}, avg {result['avg']}" for result in results]
    several = len(set(checkpoints)) > 1
    return [
        (
            *(result["split"], result["mode"], result["search"]),
            f"look-ahead {result['lookahead_ms']} ms" if result.get("lookahead_ms") else "",
            checkpoint if several else "",
        )
        for result, checkpoint in zip(results, checkpoints, strict=True)
    ]


def tables(run: Run) -> list[Table]:
    """Tables of error rates and of delays."""
    results, made = run["results"], []
    if results["wer"]:
        rows = [
            [
                result["split"],
                result["mode"],
                result["search"],
                *setting(result),
                *(["n/a", "n/a"] if point is None else [f"{point[0]:.2f}", f"{point[1]:.2f} to {point[2]:.2f}"]),
                str(result["utterances"]),
                f"{result['epoch']}-{result['avg']}",
            ]
            for result, point in ((result, rate_of(result)) for result in results["wer"])
        ]
        rate = f"{titles(results['wer'])} %"
        header = ["split", "mode", "search", "chunk", "left context", "latency", rate, "95 % interval", "utterances"]
        title = f"{names(results['wer'])}s, with bootstrap intervals over utterances"
        made.append(Table(title, [*header, "epoch-avg"], rows))
    if results["delay"]:
        rows = [
            [
                result["split"],
                *setting(result),
                *(delay["what"], delay["clock"], str(delay["count"]), f"{delay['mean']:.0f}"),
                *(f"{delay['percentiles'][PERCENTILES.index(p)]:.0f}" for p in (50, 90, 99)),
            ]
            for result in results["delay"]
            for delay in sorted(result["delays"], key=lambda one: (one["what"], one["clock"]))
        ]
        header = ["split", "chunk", "left context", "latency", "token", "clock", "number", "mean", "p50", "p90", "p99"]
        notes = [
            f"{result['split']}, {setting(result)[0]}, left context {setting(result)[1]}: "
            f"WER {format_percent(result['wer'])}, {result['correct']} of {result['words']} words recognised, "
            f"epoch {result['epoch']}, avg {result['avg']}."
            for result in results["delay"]
        ]
        notes += [
            f"{split}: {counts['aligned']} utterances aligned, {counts['not_aligned']} not (no words, or too short), "
            f"{counts['skipped']} skipped."
            for split, counts in results["alignment"].items()
        ]
        made.append(Table("Emission delay, ms", header, rows, notes))
    return made


def plots(run: Run) -> dict[str, Figure]:
    """Plots of error rate against latency, maps of it, and plots of the delay distribution by both clocks."""
    results, made = run["results"], {}
    lines: dict[tuple[str, ...], list[tuple[float, ...]]] = {}  # latency, error rate, ends of its interval
    for result, key in zip(results["wer"], series(results["wer"]), strict=True):
        if rates := rate_of(result):
            left = "" if result["chunk_ms"] is None else f"left context {setting(result)[1]}"
            lines.setdefault((*key[:3], left, *key[3:]), []).append((result["latency_ms"], *rates))
    if lines:
        made["wer"], (axes,) = panels(1, f"{names(results['wer'])} against algorithmic latency")
        for i, (key, points) in enumerate(lines.items()):
            name = ", ".join(part for part in key if part)
            if points[0][0] is None:
                axes.axhline(points[-1][1], color=f"C{i}", linestyle="--", label=name)
                continue
            latencies, ys, lows, highs = np.array(sorted(points)).T
            bars = np.maximum([ys - lows, highs - ys], 0)
            axes.errorbar(latencies, ys, yerr=bars, fmt=".-", color=f"C{i}", capsize=3, label=name)
        axes.set(xlabel="latency, ms", ylabel=f"{titles(results['wer'])} %")
        add_legend(axes)
    made |= maps(results["wer"])
    for split in dict.fromkeys(result["split"] for result in results["delay"]):
        made[f"delay-{split}"], both = panels(2, f"Delay of words recognised on {split}, last token")
        for axes, clock in zip(both, ("frame", "availability"), strict=True):
            for i, result in enumerate(results["delay"]):  # a setting has the same colour in both panels
                for delay in result["delays"]:
                    if (result["split"], delay["what"], delay["clock"]) == (split, "word, last token", clock):
                        name = ", ".join(setting(result)[:2]).removesuffix(", –")
                        axes.plot(delay["percentiles"], PERCENTILES, color=f"C{i}", label=name)
            axes.set(xlabel=f"ms, by {clock}", ylabel="% of words")
            add_legend(axes)
    return made


def maps(results: list[dict[str, Any]]) -> dict[str, Figure]:
    """Maps of the error rate by chunk size and left context, of each of the series that has three values of both."""
    grids: dict[tuple[str, ...], dict[tuple[int, int], float]] = {}
    for result, key in zip(results, series(results), strict=True):
        if result["chunk_ms"] is not None and (rates := rate_of(result)):
            left = math.inf if result["left_chunks"] < 0 else result["left_chunks"]
            grids.setdefault(key, {})[result["chunk_ms"], left] = rates[0]
    made = {}
    for key, grid in grids.items():
        chunks, lefts = (sorted(set(values)) for values in zip(*grid, strict=True))
        if min(len(chunks), len(lefts)) < 3:
            continue
        values = np.array([[grid.get((chunk, left), np.nan) for chunk in chunks] for left in lefts])  # (left, chunk)
        figure = Figure(figsize=(2.5 + 0.55 * len(chunks), 2 + 0.4 * len(lefts)), layout="constrained")
        axes = figure.add_subplot()
        figure.suptitle(", ".join(part for part in (f"{titles(results)} %", *key) if part))
        image = axes.imshow(values, cmap="viridis_r", aspect="auto")
        for (row, column), rate in np.ndenumerate(values):
            is_dark = image.norm(rate) > 0.5
            axes.text(column, row, f"{rate:.1f}", ha="center", va="center", size=8, color="w" if is_dark else "k")
        axes.set_xticks(range(len(chunks)), [str(chunk) for chunk in chunks])
        axes.set_yticks(range(len(lefts)), ["unlimited" if left == math.inf else str(left) for left in lefts])
        axes.set(xlabel="chunk, ms", ylabel="left context, chunks")
        made["-".join(["map", *(part.replace(",", "").replace(" ", "-") for part in key if part)])] = figure
    return made
