#!/usr/bin/env python3
"""Compute filter banks: recordings and supervisions in MANIFEST_DIR -> OUT_DIR/PREFIX_cuts_SPLIT.jsonl.gz.

Noise for augmentation, with --noise-windows 10: recordings -> OUT_DIR/PREFIX_cuts.jsonl.gz, all splits in one.

Killed half-way, the same command goes on where it stopped. The result does not depend on --nj.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

from summarymix.data.extraction import ExtractionOptions, Storage, extract_noise, extract_split
from summarymix.data.features import FbankOptions, FeatureBackend
from summarymix.data.skipped import SkippedItems


def speeds(text: str) -> tuple[float, ...]:
    """``0.9,1.1`` to numbers; the empty text to none."""
    return tuple(float(speed) for speed in text.split(",") if speed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", required=True, help="name of the corpus in the manifests' names")
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("--manifest-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--out-dir", type=Path, default=Path("data/fbank"))
    parser.add_argument("--storage", choices=get_args(Storage), default="numpy_files", help="none: while training")
    parser.add_argument("--backend", choices=get_args(FeatureBackend), default="lhotse")
    parser.add_argument("--sample-rate", type=int, default=16000, help="Hz; other audio is resampled")
    parser.add_argument(
        "--speed-perturb", type=speeds, default=(), metavar="0.9,1.1", help="add copies at these speeds"
    )
    parser.add_argument(
        "--noise-windows",
        type=float,
        metavar="SECONDS",
        help="the splits are noise, without transcripts: cut it into windows, of more than half of this at the end",
    )
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args()
    options = ExtractionOptions(
        fbank=FbankOptions(sample_rate=args.sample_rate, backend=args.backend),
        storage=args.storage,
        speeds=args.speed_perturb,
    )
    with ProcessPoolExecutor(args.nj) as executor:
        if args.noise_windows is not None:
            skipped = extract_noise(
                args.manifest_dir, args.out_dir, args.prefix, args.splits, args.noise_windows, options, executor
            )
            report(args.prefix, skipped, args.out_dir / f"skipped-{args.prefix}-audio.tsv")
            return
        for split in args.splits:
            skipped = extract_split(args.manifest_dir, args.out_dir, args.prefix, split, options, executor)
            report(split, skipped, args.out_dir / f"skipped-{args.prefix}-{split}-audio.tsv")


def report(name: str, skipped: SkippedItems, listing: Path) -> None:
    """Say in one line what was left out and where it is listed."""
    print(f"{name}: {skipped.summary()}" + (f"; see {listing}" if len(skipped) else ""))


if __name__ == "__main__":
    main()
