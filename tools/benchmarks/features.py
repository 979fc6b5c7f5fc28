"""Time of the feature backends for an hour of audio.

    python tools/benchmark.py features --threads 1 2 --json benchmark/features.json
    python tools/benchmark.py features --audio recordings/*.flac

Each backend computes features of the same recordings, generated or given, held in memory. Backends take turns in each
round, so that other load on the machine affects all of them; the first round is a warm-up. Missing backends are left
out. The last column is the largest difference from lhotse; it must not exceed 2e-3.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any, get_args

import soundfile
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.record import Run, Table, panels
from summarymix.cli import above_zero
from summarymix.data.check_features import difference_to_lhotse, generated_audio
from summarymix.data.features import FbankExtractor, FbankOptions, FeatureBackend


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--audio", type=Path, nargs="+", default=[], help="recordings (default: a generated one)")
    parser.add_argument("--seconds", type=float, default=15, help="length of the generated recording (15)")
    parser.add_argument("--copies", type=above_zero(int), default=20, help="copies of the generated recording (20)")
    parser.add_argument("--sample-rate", type=int, default=16000, help="sample rate in Hz (16000)")
    parser.add_argument("--num-mel-bins", type=int, default=80, help="mel bins (80)")
    parser.add_argument("--rounds", type=above_zero(int), default=10, help="timed passes over all recordings (10)")
    parser.add_argument(
        "--threads", type=above_zero(int), nargs="+", default=[1, 2], help="numbers of CPU threads (1 2)"
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=get_args(FeatureBackend),
        default=get_args(FeatureBackend),
        help="backends to measure (all)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each backend with each number of threads."""
    recordings = load(args.audio, args.sample_rate) or [generated_audio(args.seconds, args.sample_rate)] * args.copies
    hours = sum(len(samples) for samples in recordings) / args.sample_rate / 3600
    extractors: dict[str, FbankExtractor] = {}
    left_out = {}
    for backend in args.backends:
        try:
            extractors[backend] = FbankExtractor(FbankOptions(args.sample_rate, args.num_mel_bins, backend))
        except ImportError as error:
            left_out[backend] = str(error)

    figures: list[dict[str, Any]] = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = {backend: [] for backend in extractors}
        for round_number in range(args.rounds + 1):
            for backend, extractor in extractors.items():
                start = time.perf_counter()
                for samples in recordings:
                    extractor.extract(samples)
                if round_number > 0:
                    seconds[backend].append((time.perf_counter() - start) / hours)
        figures += [{"backend": name, "threads": threads, "seconds_per_hour": times} for name, times in seconds.items()]
    unique = {id(samples): samples for samples in recordings}.values()
    for backend, extractor in extractors.items():
        difference = max(difference_to_lhotse(samples, extractor.options) for samples in unique)
        for result in figures:
            if result["backend"] == backend:
                result["difference_to_lhotse"] = difference
    return {"recordings": len(recordings), "seconds": 3600 * hours, "figures": figures, "left_out": left_out}


def load(paths: list[Path], sample_rate: int) -> list[Tensor]:
    """Read the first channel of each file: samples (n,) in [-1, 1]."""
    recordings = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (n, channels)
        if rate != sample_rate:
            raise ValueError(f"{path} has {rate} Hz: give --sample-rate {rate}, and only files of that rate")
        recordings.append(torch.from_numpy(samples[:, 0].copy()))
    return recordings


def tables(run: Run) -> list[Table]:
    """Table of times and differences."""
    settings, results = run["settings"], run["results"]
    title = (
        f"Features: {results['recordings']} recordings, {results['seconds']:.0f} s, {settings['sample_rate']} Hz, "
        f"{settings['num_mel_bins']} bins, {settings['rounds']} rounds; seconds for an hour of audio"
    )
    rows = [
        [
            result["backend"],
            str(result["threads"]),
            f"{median(result['seconds_per_hour']):.2f}",
            f"{min(result['seconds_per_hour']):.2f}",
            f"{result['difference_to_lhotse']:.1e}",
        ]
        for result in results["figures"]
    ]
    notes = [f"{backend} is left out: {reason}" for backend, reason in results["left_out"].items()]
    return [Table(title, ["", "threads", "median s", "least s", "difference"], rows, notes)]


def plots(run: Run) -> dict[str, Figure]:
    """Bar plot of the times."""
    figure, (axes,) = panels(1, "Features of an hour of audio")
    results = run["results"]["figures"]
    names = [f"{result['backend']}\n{result['threads']} threads" for result in results]
    axes.bar(names, [median(result["seconds_per_hour"]) for result in results])
    axes.set_ylabel("seconds")
    axes.tick_params(axis="x", labelsize=7)
    return {"time": figure}
