"""Time and peak memory of mixer, encoder and training step against the length of the audio.

    cd egs/librispeech/ASR
    python ../../../tools/benchmark.py encoder --config conf/conformer.yaml \\
        --config conf/conformer.yaml conf/attention.yaml --config conf/conformer.yaml conf/local.yaml

Each --config is a model: YAML files of train.py, in which later files override earlier ones. Parts: mixer, the
SummaryMixing or attention module of a layer; encoder, with its front end; model, the whole transducer with losses and
optimiser, in training only. A training step of mixer or encoder is forward and backward. Weights and audio are random.

Each measurement runs in a fresh process. Configurations take steps in turns; the first step is a warm-up. "host" is the
share of the time until Python has given out all work: near 100 %, a GPU waits for it. The peak is the memory of the
process with its libraries, or of the tensors on a GPU; "of it step" is the part that steps add to weights, input and
optimiser. If a step exceeds --max-seconds or --max-gb, it is stopped, and longer audio is left out. Notes on forward
passes of the encoder give the rate of matrix products and convolutions, as a share of the machine's rate of matrix
products.
"""

import argparse
import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from count_flops import encoder_flops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.parts import (
    PARTS,
    add_config_option,
    feature_frames,
    make_product,
    make_step,
    product_size,
    read_configs,
)
from benchmarks.record import Run, Table, add_legend, add_machine_options, panels
from benchmarks.workers import Job, Limits, run_in_turns
from summarymix.chunking import ChunkConfig
from summarymix.cli import above_zero
from summarymix.model import make_encoder
from summarymix.training.config import TrainConfig

COUNTED_SECONDS = 60  # longest audio whose FLOPs are counted; counting runs the encoder and takes its memory


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    add_config_option(parser)
    option(
        "--seconds",
        type=float,
        nargs="+",
        default=[15, 60, 240, 960, 3840],
        help="lengths of audio (15 60 240 960 3840)",
    )
    option("--batch", type=above_zero(int), default=1, help="utterances per batch (1)")
    option("--parts", nargs="+", choices=PARTS, default=["mixer", "encoder"], help="parts to measure (mixer encoder)")
    option(
        "--passes",
        nargs="+",
        choices=["forward", "training"],
        default=["forward", "training"],
        help="passes to measure (both)",
    )
    option(
        "--modes",
        nargs="+",
        choices=["offline", "chunked"],
        default=["offline", "chunked"],
        help="modes to measure (both)",
    )
    option("--chunk-ms", type=int, default=640, help="chunked: chunk size in ms (640)")
    option("--left-chunks", type=int, default=-1, help="chunked: left context in chunks, -1: unlimited (-1)")
    option("--rounds", type=above_zero(int), default=5, help="timed steps of each measurement (5)")
    option("--max-seconds", type=float, default=60, help="time limit of a step (60)")
    option("--max-gb", type=float, help="memory limit of a process beyond weights and input (80 %% of free memory)")
    add_machine_options(parser)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each part, pass, mode, length and configuration, and the rate of matrix products."""
    configs = read_configs(args.config)
    if not list(cases(args)):
        raise ValueError("--parts model is measured in training only: add --passes training")
    args.max_gb = args.max_gb or 0.8 * free_memory(args.device) / 1e9
    limits = Limits(args.threads, args.device, args.max_seconds, args.max_gb)
    products = {"product": Job(make_product, (args.device, args.precision))}
    best = run_in_turns(products, args.rounds, Limits(args.threads, args.device))["product"]
    if "left_out" in best:
        raise ValueError(f"the matrix product on {args.device} failed: {best['left_out']}")
    figures = []
    for part, mode, kind in cases(args):
        chunk = ChunkConfig.from_ms(args.chunk_ms, args.left_chunks) if mode == "chunked" else ChunkConfig()
        remaining = dict(configs)
        for seconds in sorted(args.seconds):
            jobs = {}
            for name, config in remaining.items():
                arguments = (config, part, kind == "training", seconds, args.batch, chunk, args.device, args.precision)
                jobs[name] = Job(make_step, arguments)
            for name, result in run_in_turns(jobs, args.rounds, limits).items():
                key = {"config": name, "part": part, "pass": kind, "mode": mode, "audio_seconds": seconds}
                if "left_out" in result:
                    del remaining[name]
                elif (part, kind) == ("encoder", "forward") and seconds <= COUNTED_SECONDS:
                    result["gflop"] = args.batch * gflop(configs[name], seconds, chunk)
                figures.append(key | result)
                print("  ".join([*map(str, key.values()), summary(result)]), flush=True)
    rate = 2e-9 * product_size(args.device) ** 3 / min(best["seconds"])
    return {"product_gflops": rate, "figures": figures}


def gflop(config: TrainConfig, seconds: float, chunk: ChunkConfig) -> float:
    """GFLOPs of the encoder for ``seconds`` of audio; see tools/count_flops.py."""
    encoder = make_encoder(config.model).eval()
    return encoder_flops(encoder, config.model.feature_dim, feature_frames(seconds), chunk) / 1e9


def cases(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Yield each (part, mode, pass) except the forward pass of the model."""
    for part, mode, kind in product(args.parts, args.modes, args.passes):
        if (part, kind) != ("model", "forward"):
            yield part, mode, kind


def free_memory(device: str) -> int:
    """Free memory of the machine or its GPU, in bytes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if info.is_file():
        return 1024 * int(re.search(r"MemAvailable:\s+(\d+) kB", info.read_text())[1])  # type: ignore[index]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def summary(figures: dict[str, Any]) -> str:
    """Format a result as a line of progress."""
    if "left_out" in figures:
        return f"left out: {figures['left_out']}"
    return f"{median(figures['seconds']):.4f} s  {figures['peak_mb']:.0f} MB"


def group(results: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Group results by part, pass and mode."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["part"], result["pass"], result["mode"]), []).append(result)
    return groups


def tables(run: Run) -> list[Table]:
    """A table for each part, pass and mode."""
    settings = run["settings"]
    first = run["results"]["figures"][0]["config"]
    header = ["configuration", "audio s", "median s", "least s", "RTF", f"time : {first}", "time 4T/T"]
    header += ["host", "peak MB", "of it step", f"step : {first}", "step 4T/T"]
    made = []
    for (part, kind, mode), results in group(run["results"]["figures"]).items():
        measured = {(r["config"], r["audio_seconds"]): r for r in results if "left_out" not in r}
        rows = []
        for (name, seconds), result in measured.items():
            baseline, quarter = measured.get((first, seconds)), measured.get((name, seconds / 4))
            rows.append([name, f"{seconds:g}", *cells(result, baseline, quarter, seconds * settings["batch"])])
        notes = [
            f"{r['config']}, {r['audio_seconds']:g} s and longer: left out, {r['left_out']}"
            for r in results
            if "left_out" in r
        ]
        left = "unlimited" if settings["left_chunks"] < 0 else f"{settings['left_chunks']} chunks"
        how = mode if mode == "offline" else f"chunks of {settings['chunk_ms']} ms, left context {left}"
        title = f"{part}, {kind}, {how}, batch {settings['batch']}, {settings['rounds']} rounds"
        if rows or notes:
            made.append(Table(title, header, rows, notes + rates(list(measured.values()), run["results"])))
    return made


def rates(measured: list[dict[str, Any]], results: dict[str, Any]) -> list[str]:
    """Format the rates of the counted FLOPs, as shares of the machine's rate of matrix products."""
    best = results["product_gflops"]
    each = [
        f"{r['config']} {r['audio_seconds']:g} s {rate:.1f} GFLOP/s ({100 * rate / best:.0f} %)"
        for r in measured
        if "gflop" in r and (rate := r["gflop"] / min(r["seconds"]))
    ]
    return [f"Products of matrices, at best: {best:.1f} GFLOP/s. Encoders: {', '.join(each)}."] if each else []


def cells(
    result: dict[str, Any], baseline: dict[str, Any] | None, quarter: dict[str, Any] | None, audio: float
) -> list[str]:
    """Cells of time and memory, with ratios to the first configuration and to a quarter of the length."""
    seconds, step = median(result["seconds"]), result["increment_mb"]
    ratio, memory_ratio, growth, memory_growth = ["–"] * 4
    if baseline:
        # Ratios within a round, because a disturbance affects both configurations.
        pairs = zip(result["seconds"], baseline["seconds"], strict=True)
        ratio = f"{median(ours / theirs for ours, theirs in pairs):.2f}"
        memory_ratio = f"{step / max(baseline['increment_mb'], 0.1):.2f}"
    if quarter:
        growth = f"{seconds / median(quarter['seconds']):.2f}"
        memory_growth = f"{step / max(quarter['increment_mb'], 0.1):.2f}"
    times = [f"{seconds:.4f}", f"{min(result['seconds']):.4f}", f"{seconds / audio:.5f}", ratio, growth]
    pairs = zip(result.get("host_seconds", []), result["seconds"], strict=False)  # unknown to older files
    shares = [host / whole for host, whole in pairs]
    host = f"{100 * median(shares):.0f} %" if shares else "–"
    return [*times, host, f"{result['peak_mb']:.0f}", f"{step:.1f}", memory_ratio, memory_growth]


def plots(run: Run) -> dict[str, Figure]:
    """Plots of time and memory per part and pass: against length, with a line style per mode; bars for one length."""
    names = list(dict.fromkeys(result["config"] for result in run["results"]["figures"]))
    lengths = sorted({result["audio_seconds"] for result in run["results"]["figures"]})
    figures: dict[str, Figure] = {}
    axes: dict[str, list[Axes]] = {}
    for (part, kind, mode), results in group(run["results"]["figures"]).items():
        title = f"{part}-{kind}"
        if title not in figures:
            audio = f", {lengths[0]:g} s of audio" if len(lengths) == 1 else ""
            figures[title], axes[title] = panels(2, f"{part}, {kind}{audio}")
        for i, name in enumerate(names):
            points = [r for r in results if r["config"] == name and "left_out" not in r]
            values = [median(r["seconds"]) for r in points], [max(r["increment_mb"], 0.1) for r in points]
            for one, ys, label in zip(axes[title], values, ("seconds", "peak memory of a step, MB"), strict=True):
                if len(lengths) == 1:
                    _draw_bars(one, f"{name}, {mode}", ys, f"C{i}", label)
                else:
                    style = {"color": f"C{i}", "linestyle": "-" if mode == "offline" else "--", "marker": "."}
                    one.loglog([r["audio_seconds"] for r in points], ys, label=f"{name}, {mode}", **style)
                    one.set(xlabel="seconds of audio", ylabel=label)
                    one.set_xticks(lengths, [f"{seconds:g}" for seconds in lengths])
                    one.xaxis.set_minor_formatter(NullFormatter())
    if len(lengths) > 1:
        for one, _ in axes.values():
            add_legend(one)
    return figures


def _draw_bars(axes: Axes, name: str, values: list[float], color: str, label: str) -> None:
    bars = axes.barh([name] * len(values), values, color=color)
    axes.bar_label(bars, fmt="{:.4g}", label_type="center", color="white")
    axes.set_xlabel(label)
    axes.yaxis.set_inverted(True)
