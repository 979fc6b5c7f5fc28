#!/usr/bin/env python3
"""Pack prepared splits into a few large files (lhotse's Shar format), for network disks and object stores.

MANIFEST_DIR/PREFIX_cuts_SPLIT.jsonl.gz and its data -> OUT_DIR/SPLIT/*.tar and OUT_DIR/SPLIT.json. Copy OUT_DIR to any
disk or server and train with --data.shar_dir OUT_DIR, https://… or s3://…

Run the same command again to continue after an interruption.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.manifests import add_split_options
from summarymix.data.shar import Field, export_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser, "data/fbank")
    parser.add_argument("--out-dir", type=Path, default=Path("data/shar"))
    parser.add_argument(
        "--features",
        choices=["numpy", "lilcom", "none"],
        default="numpy",
        help="numpy: exact; lilcom: lossy compression",
    )
    parser.add_argument(
        "--recording",
        choices=["flac", "opus", "wav", "none"],
        default="none",
        help="audio format, for --data.on_the_fly true; 16 bits, so a signal above full scale is clipped",
    )
    parser.add_argument("--shard-size", type=above_zero(int), default=1000, help="utterances per file")
    parser.add_argument("--nj", type=above_zero(int), default=2, help="processes")
    args = parser.parse_args()
    fields: dict[Field, str] = {}
    if args.features != "none":
        fields["features"] = args.features
    if args.recording != "none":
        fields["recording"] = args.recording
    if not fields:
        parser.error("--features none --recording none leaves nothing to export")
    with ProcessPoolExecutor(args.nj) as executor:
        for split in args.splits:
            skipped = export_split(
                args.manifest_dir, args.prefix, split, args.out_dir, fields, args.shard_size, executor
            )
            listing = f"; see {args.out_dir}/skipped-{split}-shar.tsv" if len(skipped) else ""
            print(f"{split}: {skipped.summary()}{listing}")


if __name__ == "__main__":
    with clear_errors("export_shar.py"):
        main()
