"""Streaming: chunk time against the age of the stream, state size, and number of streams that a machine holds.

    cd egs/librispeech/ASR
    python ../../../tools/benchmark.py streaming --exp-dir exp --backend torch onnx --chunk-ms 320 640 \\
        --json benchmark/streaming.json
    python ../../../tools/benchmark.py streaming --config conf/conformer.yaml --left-chunks -1 16 \\
        --config conf/conformer.yaml conf/attention.yaml

Models are trained or exported (--exp-dir), or have random weights (--config, YAML files of train.py, in which later
files override earlier ones). With random weights the number of tokens is arbitrary, and so is the predictor's share of
the time: use a trained model for reliable figures.

The time of a chunk is the time of features, encoder and greedy search in this process. For the first table, one stream
of each setting is decoded as fast as possible; settings take turns chunk by chunk. For the last table, streams begin
evenly over a chunk's duration and send audio in real time; all chunks that have arrived are decoded as one batch. A
machine holds a number of streams if 99 % of their results come within the duration of a chunk.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.pacing import in_time, most
from benchmarks.parts import add_config_option
from benchmarks.record import Run, Table, add_legend, add_machine_options, chunk_cells, panels
from benchmarks.streams import (
    Audio,
    Model,
    load_models,
    make_recognizer,
    paced_latencies,
    state_components,
    synchronize,
)
from summarymix.chunking import ChunkConfig
from summarymix.cli import above_zero, add_epoch_options
from summarymix.training.precision import autocast

AGES = (60.0, 600.0, 3600.0)  # seconds: upper edges of the age bins in the table


class StreamSetting(NamedTuple):
    """A model with a chunk size and left context."""

    name: str
    chunk: ChunkConfig

    def key(self) -> dict[str, Any]:
        """Fields for the JSON file."""
        chunk = self.chunk
        return {
            "config": self.name,
            "chunk_ms": chunk.chunk_ms,
            "left_chunks": chunk.left_chunks,
            "lookahead_ms": chunk.lookahead_ms,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    add_config_option(parser, required=False)
    option(
        "--exp-dir", type=Path, action="append", default=[], help="folder of a training run or of export.py; repeatable"
    )
    add_epoch_options(parser)
    option(
        "--backend",
        nargs="+",
        choices=["torch", "onnx"],
        default=["torch"],
        help="trained models: PyTorch, ONNX Runtime on the CPU, or both (torch)",
    )
    option("--int8", action="store_true", help="exported models: measure the files with int8 weights, too")
    option("--chunk-ms", type=int, nargs="+", default=[640], help="chunk sizes in ms (640)")
    option("--left-chunks", type=int, nargs="+", default=[-1], help="left contexts in chunks, -1: unlimited (-1)")
    option("--lookahead-ms", type=int, nargs="+", default=[0], help="look-aheads in ms (0)")
    option(
        "--parts",
        nargs="+",
        choices=["chunks", "streams"],
        default=["chunks", "streams"],
        help="parts to measure (both)",
    )
    option("--seconds", type=float, default=3600, help="length of the stream whose chunks are timed (3600)")
    option("--paced-seconds", type=float, default=20, help="length of the real-time streams (20)")
    option("--max-streams", type=above_zero(int), default=1024, help="largest number of streams to try (1024)")
    option("--resolution", type=float, default=0.03, help="relative accuracy of the number of streams (0.03)")
    add_machine_options(parser)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure state sizes, chunk times and numbers of streams."""
    torch.set_num_threads(args.threads)
    models = load_models(args)
    settings, left_out = [], []
    for name, *values in product(models, args.chunk_ms, args.left_chunks, args.lookahead_ms):
        setting = StreamSetting(name, ChunkConfig.from_ms(*values))
        try:
            make_recognizer(models[name], setting.chunk, 1)
            settings.append(setting)
        except ValueError as error:
            left_out.append(setting.key() | {"left_out": str(error)})
    longest = max((setting.chunk.chunk_ms or 0 for setting in settings), default=0)
    if "chunks" in args.parts and 1000 * args.seconds < longest:
        raise ValueError(f"--seconds {args.seconds:g} is shorter than a chunk of {longest} ms")
    results: dict[str, Any] = {"left_out": left_out, "state": [], "chunks": [], "streams": []}
    for setting in settings:
        results["state"].append(setting.key() | {"bytes": state_components(models[setting.name], setting.chunk)})
    with autocast(torch.device(args.device), args.precision):
        if "chunks" in args.parts:
            results["chunks"] = time_chunks(models, settings, args.seconds)
        for setting in settings if "streams" in args.parts else []:
            results["streams"].append(setting.key() | count_streams(models[setting.name], setting, args))
    return results


def time_chunks(models: dict[str, Model], settings: list[StreamSetting], seconds: float) -> list[dict[str, Any]]:
    """Decode a stream of each setting, and time each chunk. Settings take turns in the order of audio time."""
    recognizers = [make_recognizer(models[s.name], s.chunk, 1) for s in settings]
    streams = [recognizer.open() for recognizer in recognizers]
    audios = [Audio(models[s.name], s.chunk) for s in settings]
    times: list[list[float]] = [[] for _ in settings]
    for i in turns([setting.chunk.chunk_ms / 1000 for setting in settings], seconds):  # type: ignore[operator]
        block = audios[i].block()
        start = time.perf_counter()
        streams[i].accept_samples(block)
        done = recognizers[i].step()
        synchronize(models[settings[i].name])
        times[i].append(time.perf_counter() - start)
        assert done == 1, (settings[i], done)
    return [
        setting.key() | {"tokens": len(stream.hypothesis.tokens), "seconds": [round(t, 7) for t in taken]}
        for setting, stream, taken in zip(settings, streams, times, strict=True)
    ]


def turns(periods: list[float], seconds: float) -> Iterator[int]:
    """Yield setting numbers in the order of time up to ``seconds``; number i comes every ``periods[i]`` seconds."""
    counts = [0] * len(periods)
    while True:
        ends = [(count + 1) * period for count, period in zip(counts, periods, strict=True)]
        i = min(range(len(ends)), key=ends.__getitem__)
        if ends[i] > seconds:
            return
        counts[i] += 1
        yield i


def count_streams(model: Model, setting: StreamSetting, args: argparse.Namespace) -> dict[str, Any]:
    """Find the number of real-time streams that the machine holds, and the latencies of each number tried."""
    period = setting.chunk.chunk_ms / 1000  # type: ignore[operator]
    tried: list[dict[str, Any]] = []

    def holds(num_streams: int) -> bool:
        latencies = paced_latencies(model, setting.chunk, num_streams, max(2, round(args.paced_seconds / period)))
        p50, p95, p99 = (float(p) for p in np.percentile(latencies, [50, 95, 99]))
        held = in_time(latencies, period)
        tried.append({"streams": num_streams, "p50": p50, "p95": p95, "p99": p99, "in_time": held})
        print(f"{setting.name}, {setting.chunk}: {num_streams} streams, p99 {p99:.3f} s", flush=True)
        return held

    number = most(holds, args.max_streams, args.resolution)
    return {"streams": number, "tried": sorted(tried, key=lambda one: one["streams"])}


def label(result: dict[str, Any]) -> list[str]:
    """Cells of configuration, chunk with its look-ahead, and left context."""
    return [result["config"], *chunk_cells(result)]


LABEL = ["configuration", "chunk", "left context"]


def tables(run: Run) -> list[Table]:
    """Tables of chunk times, state sizes and numbers of streams."""
    results = run["results"]
    notes = [f"{', '.join(label(result))}: left out, {result['left_out']}" for result in results["left_out"]]
    made = []
    if results["chunks"]:
        header = [*LABEL, "age of the stream", "chunks", "p50 ms", "p95 ms", "p99 ms", "RTF"]
        rows = [[*label(result), *cells] for result in results["chunks"] for cells in age_rows(result)]
        made.append(Table("Streaming: time of a chunk, one stream", header, rows))
    components = list(dict.fromkeys(name for result in results["state"] for name in result["bytes"]))
    rows = [
        [
            *label(result),
            *(f"{result['bytes'].get(name, 0)}" for name in components),
            f"{sum(result['bytes'].values())}",
        ]
        for result in results["state"]
    ]
    made.append(Table("Streaming: state of a stream, bytes", [*LABEL, *components, "total"], rows, notes))
    if results["streams"]:
        limit = run["settings"]["max_streams"]
        rows = []
        for result in results["streams"]:
            best = next((one for one in result["tried"] if one["streams"] == result["streams"]), None)
            latencies = [f"{1000 * best[p]:.0f}" for p in ("p50", "p95", "p99")] if best else ["–"] * 3
            more = " or more" if result["streams"] == limit else ""
            rows.append([*label(result), f"{result['streams']}{more}", *latencies])
        header = [*LABEL, "streams", "p50 ms", "p95 ms", "p99 ms"]
        made.append(Table("Streaming: streams held in real time, and latencies of their chunks", header, rows))
    return made


def age_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield rows of chunk times by the age of the stream, and over all chunks."""
    period = result["chunk_ms"] / 1000
    times = np.array(result["seconds"])
    ages = period * np.arange(len(times))
    begin = 0.0
    for end in (*AGES, np.inf):
        chosen = times[(ages >= begin) & (ages < end)]
        if chosen.size:
            name = f"{begin:g} s on" if end == np.inf else f"{begin:g} to {end:g} s"
            yield [name, *percentile_cells(chosen, period)]
        begin = end
    yield ["all", *percentile_cells(times, period)]


def percentile_cells(times: np.ndarray, period: float) -> list[str]:
    """Cells of number, percentiles in ms and real-time factor."""
    percentiles = (f"{1000 * p:.2f}" for p in np.percentile(times, [50, 95, 99]))
    return [str(len(times)), *percentiles, f"{times.mean() / period:.5f}"]


def plots(run: Run) -> dict[str, Figure]:
    """Plots of chunk time against the age of the stream, and of latency against the number of streams."""
    results, made = run["results"], {}
    if results["chunks"]:
        made["chunks"], (axes,) = panels(1, "Time of a chunk, one stream")
        for i, result in enumerate(results["chunks"]):
            parts = np.array_split(np.array(result["seconds"]), min(60, len(result["seconds"])))
            ends = result["chunk_ms"] / 1000 * np.cumsum([len(part) for part in parts])
            axes.plot(ends, [1000 * np.median(part) for part in parts], color=f"C{i}", label=", ".join(label(result)))
            axes.plot(ends, [1000 * np.percentile(part, 99) for part in parts], color=f"C{i}", alpha=0.4)
        axes.set(xlabel="age of the stream, s", ylabel="median, and p99 (faint), ms", ylim=(0, None))
        add_legend(axes)
    if results["streams"]:
        made["streams"], (axes,) = panels(1, "Latency of a chunk, streams in real time")
        most = max(one["streams"] for result in results["streams"] for one in result["tried"])
        ticks = [2**n for n in range(most.bit_length())]
        for i, result in enumerate(results["streams"]):
            tried = sorted(result["tried"], key=lambda one: one["streams"])
            axes.loglog([one["streams"] for one in tried], [one["p99"] for one in tried], ".-", color=f"C{i}")
            axes.plot([], [], color=f"C{i}", label=", ".join(label(result)))
            axes.axhline(result["chunk_ms"] / 1000, color=f"C{i}", linestyle=":")
        axes.set_xticks(ticks, [str(number) for number in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="streams", ylabel="p99, s (dotted: duration of a chunk)")
        add_legend(axes)
    return made
