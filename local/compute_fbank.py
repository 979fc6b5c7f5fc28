#!/usr/bin/env python3
"""Compute filter banks: recordings and supervisions in MANIFEST_DIR -> OUT_DIR/PREFIX_cuts_SPLIT.jsonl.gz.

For noise, with --noise-windows 10: recordings -> OUT_DIR/PREFIX_cuts.jsonl.gz, all splits in one file.

Run the same command again to continue after an interruption. The result does not depend on --nj or --executor.

--executor dask uses the workers of a Dask cluster, which must have access to this folder, the audio and this library.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from summarymix.cli import above_zero, clear_errors
from summarymix.data.extraction import LARGE_HOURS, ExtractionOptions, Storage, extract_noise, extract_split
from summarymix.data.features import FbankOptions, FeatureBackend
from summarymix.data.manifests import add_split_options, cuts_path
from summarymix.data.skipped import SkippedItems


def speeds(text: str) -> tuple[float, ...]:
    """Parse ``0.9,1.1``, each once; the empty string gives no speeds."""
    return tuple(dict.fromkeys(above_zero(float)(speed) for speed in text.split(",") if speed))


@contextmanager
def open_executor(kind: str, num_jobs: int, dask_scheduler: str | None) -> Iterator[Executor]:
    """Open the executor of the shards: a pool of processes or threads, or the workers of a Dask cluster."""
    if kind != "dask":
        with {"process": ProcessPoolExecutor, "thread": ThreadPoolExecutor}[kind](num_jobs) as executor:
            yield executor
        return
    try:
        from distributed import Client
    except ImportError:
        sys.exit("--executor dask needs the package distributed: pip install distributed")
    if dask_scheduler is None:
        # One thread per worker: several would compete for its processor.
        options: dict[str, Any] = {"n_workers": num_jobs, "threads_per_worker": 1, "dashboard_address": None}
    elif Path(dask_scheduler).is_file():
        options = {"scheduler_file": dask_scheduler}
    else:
        options = {"address": dask_scheduler}
    try:
        client = Client(**options)
    except OSError as error:
        sys.exit(f"No Dask scheduler answers at {dask_scheduler}: {error}. Start it, or correct --dask-scheduler")
    with client, client.get_executor() as executor:
        yield executor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser, "data/manifests")
    parser.add_argument("--out-dir", type=Path, default=Path("data/fbank"))
    parser.add_argument(
        "--storage",
        choices=get_args(Storage),
        help="none: compute features in training (default: lilcom_chunky for splits of more than "
        f"{LARGE_HOURS} hours, otherwise numpy_files)",
    )
    parser.add_argument("--backend", choices=get_args(FeatureBackend), default="lhotse")
    parser.add_argument("--sample-rate", type=above_zero(int), default=16000, help="Hz; other audio is resampled")
    parser.add_argument("--num-mel-bins", type=above_zero(int), default=80, help="features per frame")
    parser.add_argument(
        "--speed-perturb", type=speeds, default=(), metavar="0.9,1.1", help="add copies at these speeds"
    )
    parser.add_argument(
        "--noise-windows",
        type=above_zero(float),
        metavar="SECONDS",
        help="cut noise recordings into windows of this length; a shorter last one must exceed half",
    )
    parser.add_argument("--nj", type=above_zero(int), default=2, help="processes or threads")
    parser.add_argument("--executor", choices=["process", "thread", "dask"], default="process", help="kind of workers")
    parser.add_argument(
        "--dask-scheduler",
        metavar="ADDRESS",
        help="tcp://HOST:8786 or a scheduler file (default: --nj local processes)",
    )
    args = parser.parse_args()
    if args.dask_scheduler and args.executor != "dask":
        parser.error("--dask-scheduler needs --executor dask")
    options = ExtractionOptions(
        fbank=FbankOptions(args.sample_rate, args.num_mel_bins, args.backend),
        storage=args.storage,
        speeds=args.speed_perturb,
    )
    with open_executor(args.executor, args.nj, args.dask_scheduler) as executor:
        if args.noise_windows is not None:
            skipped = extract_noise(
                args.manifest_dir, args.out_dir, args.prefix, args.splits, args.noise_windows, options, executor
            )
            print_skipped(args.prefix, skipped, args.out_dir / f"skipped-{args.prefix}-audio.tsv")
            return
        # Splits that an interrupted run has finished are only checked, and last.
        for split in sorted(args.splits, key=lambda split: cuts_path(args.out_dir, args.prefix, split).exists()):
            skipped = extract_split(args.manifest_dir, args.out_dir, args.prefix, split, options, executor)
            print_skipped(split, skipped, args.out_dir / f"skipped-{args.prefix}-{split}-audio.tsv")


def print_skipped(name: str, skipped: SkippedItems, listing: Path) -> None:
    """Print the summary of skipped items and the path of their list."""
    print(f"{name}: {skipped.summary()}" + (f"; see {listing}" if len(skipped) else ""))


if __name__ == "__main__":
    with clear_errors("compute_fbank.py"):
        main()
