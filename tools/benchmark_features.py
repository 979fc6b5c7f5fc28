#!/usr/bin/env python3
"""Time of the feature backends for an hour of audio, side by side.

    python tools/benchmark_features.py --threads 1 2 --json benchmark.json
    python tools/benchmark_features.py --audio recordings/*.flac

Every backend computes the features of the same recordings, generated or given ones, held in memory. They take their
turns round by round, so that a busy machine disturbs all alike; the first round warms up. Backends that are not
installed are left out. The last column is the largest difference to lhotse, which must not exceed 2e-3.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import get_args

import soundfile
import torch
from torch import Tensor

from summarymix.data.check_features import difference_to_lhotse, generated_audio
from summarymix.data.features import FbankExtractor, FbankOptions, FeatureBackend
from summarymix.files import atomic_write


def main() -> None:
    args = parse_args()
    recordings = load(args.audio, args.sample_rate) or [generated_audio(args.seconds, args.sample_rate)] * args.copies
    hours = sum(len(samples) for samples in recordings) / args.sample_rate / 3600
    extractors: dict[str, FbankExtractor] = {}
    for backend in args.backends:
        try:
            extractors[backend] = FbankExtractor(FbankOptions(args.sample_rate, args.num_mel_bins, backend))
        except ImportError as error:
            print(f"{backend} is left out: {error}")

    results = []
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
        results += [
            {"backend": backend, "threads": threads, "seconds_per_hour": times} for backend, times in seconds.items()
        ]
    for backend, extractor in extractors.items():
        difference = max(difference_to_lhotse(samples, extractor.options) for samples in unique(recordings))
        for result in results:
            if result["backend"] == backend:
                result["difference_to_lhotse"] = difference

    print(
        f"{len(recordings)} recordings, {3600 * hours:.0f} s, {args.sample_rate} Hz, {args.num_mel_bins} bins, "
        f"{args.rounds} rounds; seconds for an hour of audio"
    )
    print(f"{'':20}{'threads':>8}{'median s':>10}{'least s':>10}{'difference':>12}")
    for result in results:
        times = result["seconds_per_hour"]
        print(
            f"{result['backend']:20}{result['threads']:8}{statistics.median(times):10.2f}{min(times):10.2f}"
            f"{result['difference_to_lhotse']:12.1e}"
        )
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in ("json", "audio", "backends")}
        with atomic_write(args.json) as file:
            json.dump({"torch": torch.__version__, "settings": settings, "results": results}, file, indent=2)
            file.write("\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--audio", type=Path, nargs="+", default=[], help="recordings; without, they are generated:")
    parser.add_argument("--seconds", type=float, default=15, help="length of the generated recording")
    parser.add_argument("--copies", type=int, default=20, help="how often it is taken")
    parser.add_argument("--sample-rate", type=int, default=16000)
    parser.add_argument("--num-mel-bins", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=10, help="timed passes over all recordings")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backends", nargs="+", choices=get_args(FeatureBackend), default=get_args(FeatureBackend))
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def load(paths: list[Path], sample_rate: int) -> list[Tensor]:
    """The first channels of some files, (n,) in [-1, 1] each."""
    recordings = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (n, channels)
        if rate != sample_rate:
            raise SystemExit(f"{path} has {rate} Hz: give --sample-rate {rate}, and only files of one sample rate")
        recordings.append(torch.from_numpy(samples[:, 0].copy()))
    return recordings


def unique(recordings: list[Tensor]) -> list[Tensor]:
    return list({id(samples): samples for samples in recordings}.values())


if __name__ == "__main__":
    main()
