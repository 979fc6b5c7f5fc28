"""Time and peak memory against the length of the audio: of the mixer alone, the encoder, and a training step.

    cd egs/librispeech/ASR
    python ../../../tools/benchmark.py encoder --config conf/conformer.yaml \\
        --config conf/conformer.yaml conf/attention.yaml --config conf/conformer.yaml conf/local.yaml

Each --config is a model: files of train.py, of which later ones win. Parts: mixer, through which the frames of a layer
see each other; encoder, with its front end; model, the whole transducer with its losses and optimiser, which has a
training step only. A training step of the first two is forward and backward. Weights and audio are random.

Each measurement has a fresh process; configurations take their steps in turns, and the first step warms up. The peak is
that of the process, libraries included; "of it step" is what the steps have added to weights, input and optimiser.
Where a step exceeds --max-seconds or --max-gb it is given up, and longer audio is not tried.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.record import Run, Table, add_legend, add_machine_options, panels
from benchmarks.workers import Job, LeftOut, Limits, run_in_turns
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.cli import parse_config
from summarymix.mixer import make_mixer
from summarymix.model import Transducer, make_encoder
from summarymix.subsampling import output_lengths
from summarymix.training.config import TrainConfig
from summarymix.training.optim import make_optimizer
from summarymix.training.precision import autocast

VOCAB_SIZE = 500  # where a configuration leaves it to the token table
TOKENS_PER_SECOND = 5  # of transcripts, about those of LibriSpeech
PARTS = ("mixer", "encoder", "model")
Compute = Callable[[Any], Tensor]  # input to the output, or to the loss


def add_options(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    option = parser.add_argument
    add_config_option(parser)
    option("--seconds", type=float, nargs="+", default=[15, 60, 240, 960, 3840], help="lengths (15 to 3840, by 4)")
    option("--batch", type=int, default=1, help="utterances (1)")
    option("--parts", nargs="+", choices=PARTS, default=["mixer", "encoder"], help="(mixer encoder)")
    option("--passes", nargs="+", choices=["forward", "training"], default=["forward", "training"], help="(both)")
    option("--modes", nargs="+", choices=["offline", "chunked"], default=["offline", "chunked"], help="(both)")
    option("--chunk-ms", type=int, default=640, help="of the mode chunked (640)")
    option("--left-chunks", type=int, default=-1, help="its left context, -1: unlimited (-1)")
    option("--rounds", type=int, default=5, help="timed steps of each measurement (5)")
    option("--max-seconds", type=float, default=60, help="for a step (60)")
    option("--max-gb", type=float, help="for a process, beyond weights and input (80 %% of the memory)")
    add_machine_options(parser)


def add_config_option(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--config."""
    parser.add_argument(
        "--config", type=Path, nargs="+", action="append", required=required, metavar="FILE", help="a model; repeatable"
    )


def read_configs(groups: list[list[Path]]) -> dict[str, TrainConfig]:
    """The configurations by name: ``conformer + attention``."""
    configs = {}
    for paths in groups:
        options = [option for path in paths for option in ("--config", str(path))]
        config = parse_config(TrainConfig, options)
        size = config.model.vocab_size or VOCAB_SIZE
        config.model = replace(config.model, vocab_size=size, feature_dim=config.data.num_mel_bins)
        configs[" + ".join(path.stem for path in paths)] = config
    return configs


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Figures of each part, pass, mode, length and configuration."""
    configs = read_configs(args.config)
    args.max_gb = args.max_gb or 0.8 * total_memory(args.device) / 1e9
    limits = Limits(args.threads, args.device, args.max_seconds, args.max_gb)
    results = []
    for part, mode, kind in cases(args):
        chunk = ChunkConfig.from_ms(args.chunk_ms, args.left_chunks) if mode == "chunked" else ChunkConfig()
        remaining = dict(configs)
        for seconds in sorted(args.seconds):
            jobs = {}
            for name, config in remaining.items():
                arguments = (config, part, kind == "training", seconds, args.batch, chunk, args.device, args.precision)
                jobs[name] = Job(make_step, arguments)
            for name, figures in run_in_turns(jobs, args.rounds, limits).items():
                key = {"config": name, "part": part, "pass": kind, "mode": mode, "audio_seconds": seconds}
                results.append(key | figures)
                if "left_out" in figures:
                    del remaining[name]
                print("  ".join([*map(str, key.values()), summary(figures)]), flush=True)
    return results


def cases(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Every part with every mode and pass."""
    for part, mode, kind in product(args.parts, args.modes, args.passes):
        if (part, kind) != ("model", "forward"):
            yield part, mode, kind


def total_memory(device: str) -> int:
    """Bytes that a machine or its GPU has."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def make_step(
    config: TrainConfig,
    part: str,
    training: bool,
    seconds: float,
    batch: int,
    chunk: ChunkConfig,
    device_name: str,
    precision: str,
) -> Callable[[], None]:
    """A function that takes one step on audio of that length; shorter audio has warmed it up.

    Raises:
        LeftOut: the configuration does not have such a part.
    """
    torch.manual_seed(0)
    device = torch.device(device_name)
    prepare = {"mixer": prepare_mixer, "encoder": prepare_encoder, "model": prepare_model}[part]
    try:
        module, make_input, compute = prepare(config, batch, chunk, device)
    except ValueError as error:
        raise LeftOut(str(error)) from error
    module.to(device).train(training)
    optimizer = make_optimizer(module, config.optim) if part == "model" else None

    def step(given: Any) -> None:
        module.zero_grad()
        with torch.set_grad_enabled(training), autocast(device, precision):  # type: ignore[arg-type]
            out = compute(given)
        if training:
            # Of an output the mean square is the loss.
            (out if out.dim() == 0 else out.float().square().mean()).backward()
        if optimizer is not None:
            optimizer.step()

    step(make_input(1.0))
    module.zero_grad()
    given = make_input(seconds)
    return lambda: step(given)


def prepare_mixer(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """A layer's mixer, what makes its input for a number of seconds, and what computes."""
    model = config.model
    if model.encoder != "conformer":
        raise ValueError(f"the mixer alone is that of a Conformer; measure a {model.encoder} with --parts encoder")
    mixer = make_mixer(model, model.dim, model.summary_dim, model.num_heads, model.dropout)

    def make_input(seconds: float) -> tuple[Tensor, Tensor, int]:
        num_frames = output_lengths(feature_frames(seconds))
        lengths = torch.full((batch,), num_frames, device=device)
        padded = ChunkGrid(lengths, num_frames, chunk).num_frames
        return torch.randn(batch, padded, model.dim, device=device), lengths, num_frames

    def compute(given: tuple[Tensor, Tensor, int]) -> Tensor:
        # The grid is part of the work: attention's mask is made of it.
        x, lengths, num_frames = given
        return mixer(x, ChunkGrid(lengths, num_frames, chunk))

    return mixer, make_input, compute


def prepare_encoder(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """The same of the encoder."""
    encoder = make_encoder(config.model)
    encoder.check_chunk(chunk)

    def make_input(seconds: float) -> tuple[Tensor, Tensor]:
        return random_features(batch, seconds, config.model.feature_dim, device)

    return encoder, make_input, lambda given: encoder(*given, chunk)[0]


def prepare_model(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """The same of the transducer and its losses."""
    model = Transducer(config.model)
    model.encoder.check_chunk(chunk)

    def make_input(seconds: float) -> tuple[Tensor, Tensor, list[list[int]]]:
        tokens = torch.randint(2, config.model.vocab_size, (batch, round(TOKENS_PER_SECOND * seconds)))
        return *random_features(batch, seconds, config.model.feature_dim, device), tokens.tolist()

    def compute(given: tuple[Tensor, Tensor, list[list[int]]]) -> Tensor:
        losses = model(*given, chunk, config.loss)
        scales = config.scales
        total = scales.simple * losses.simple + scales.pruned * losses.pruned + scales.ctc * losses.ctc
        total = total + config.loss.consistency_scale * losses.consistency
        return (total / losses.num_frames).mean()

    return model, make_input, compute


def random_features(batch: int, seconds: float, feature_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (N, T, F) and their numbers (N,)."""
    frames = feature_frames(seconds)
    return torch.randn(batch, frames, feature_dim, device=device), torch.full((batch,), frames, device=device)


def feature_frames(seconds: float) -> int:
    """Feature frames of so much audio."""
    return round(100 * seconds)


def summary(figures: dict[str, Any]) -> str:
    """Progress, for the terminal."""
    if "left_out" in figures:
        return f"left out: {figures['left_out']}"
    return f"{median(figures['seconds']):.4f} s  {figures['peak_mb']:.0f} MB"


def group(results: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Results by part, pass and mode."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["part"], result["pass"], result["mode"]), []).append(result)
    return groups


def tables(run: Run) -> list[Table]:
    """A table for each part, pass and mode."""
    settings = run["settings"]
    first = run["results"][0]["config"] if run["results"] else ""
    header = ["configuration", "audio s", "median s", "least s", "RTF", f"time : {first}", "time 4T/T"]
    header += ["peak MB", "of it step", f"step : {first}", "step 4T/T"]
    made = []
    for (part, kind, mode), results in group(run["results"]).items():
        measured = {(r["config"], r["audio_seconds"]): r for r in results if "left_out" not in r}
        rows = []
        for (name, seconds), result in measured.items():
            twin, quarter = measured.get((first, seconds)), measured.get((name, seconds / 4))
            rows.append([name, f"{seconds:g}", *cells(result, twin, quarter, seconds * settings["batch"])])
        notes = [
            f"{r['config']}, {r['audio_seconds']:g} s and longer: left out, {r['left_out']}"
            for r in results
            if "left_out" in r
        ]
        left = "unlimited" if settings["left_chunks"] < 0 else f"{settings['left_chunks']} chunks"
        how = mode if mode == "offline" else f"chunks of {settings['chunk_ms']} ms, left context {left}"
        title = f"{part}, {kind}, {how}, batch {settings['batch']}, {settings['rounds']} rounds"
        if rows or notes:
            made.append(Table(title, header, rows, notes))
    return made


def cells(
    result: dict[str, Any], twin: dict[str, Any] | None, quarter: dict[str, Any] | None, audio: float
) -> list[str]:
    """Time and memory, beside those of the first configuration and of a quarter of the length."""
    seconds, step = median(result["seconds"]), result["increment_mb"]
    ratio, memory_ratio, growth, memory_growth = ["–"] * 4
    if twin:
        # Of each round, as what disturbs a round disturbs both.
        pairs = zip(result["seconds"], twin["seconds"], strict=True)
        ratio = f"{median(ours / theirs for ours, theirs in pairs):.2f}"
        memory_ratio = f"{step / max(twin['increment_mb'], 0.1):.2f}"
    if quarter:
        growth = f"{seconds / median(quarter['seconds']):.2f}"
        memory_growth = f"{step / max(quarter['increment_mb'], 0.1):.2f}"
    times = [f"{seconds:.4f}", f"{min(result['seconds']):.4f}", f"{seconds / audio:.5f}", ratio, growth]
    return [*times, f"{result['peak_mb']:.0f}", f"{step:.1f}", memory_ratio, memory_growth]


def plots(run: Run) -> dict[str, Figure]:
    """Time and memory against length, for each part and pass; modes differ in the style of lines."""
    names = list(dict.fromkeys(result["config"] for result in run["results"]))
    figures: dict[str, Figure] = {}
    axes: dict[str, list[Any]] = {}
    for (part, kind, mode), results in group(run["results"]).items():
        title = f"{part}-{kind}"
        if title not in figures:
            figures[title], axes[title] = panels(2, f"{part}, {kind}")
        for i, name in enumerate(names):
            points = [r for r in results if r["config"] == name and "left_out" not in r]
            lengths = [r["audio_seconds"] for r in points]
            values = [median(r["seconds"]) for r in points], [max(r["increment_mb"], 0.1) for r in points]
            style = {"color": f"C{i}", "linestyle": "-" if mode == "offline" else "--", "marker": "."}
            for one, ys, label in zip(axes[title], values, ("seconds", "peak memory of a step, MB"), strict=True):
                one.loglog(lengths, ys, label=f"{name}, {mode}", **style)
                one.set_xlabel("seconds of audio")
                one.set_ylabel(label)
    for one, _ in axes.values():
        add_legend(one)
    return figures
