#!/usr/bin/env python3
"""Check cuts and their audio, remove bad ones, find speakers that two splits share, and print durations.

Cuts removed from MANIFEST_DIR/PREFIX_cuts_SPLIT.jsonl.gz are listed in
MANIFEST_DIR/skipped-PREFIX-SPLIT-validate.tsv, shared speakers in MANIFEST_DIR/PREFIX-shared-speakers.tsv.
"""

import argparse
import sys
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.corpus.measured import read_measured
from summarymix.data.corpus.validate import duration_statistics, shared_speakers, validate_split
from summarymix.data.manifests import add_split_options, removed_path
from summarymix.data.names import printable
from summarymix.files import write_list


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser, "data/fbank")
    parser.add_argument(
        "--audio-dir",
        type=Path,
        default=Path("data/manifests/audio"),
        help="folder with the findings of the manifest stage; files that have not changed since are not read again",
    )
    parser.add_argument("--disjoint-speakers", action="store_true", help="fail if two splits share a speaker")
    parser.add_argument("--nj", type=above_zero(int), default=4, help="processes, and files to open at a time")
    args = parser.parse_args()

    measured = read_measured(args.audio_dir)
    speakers = {}
    for split in args.splits:
        found = validate_split(args.manifest_dir, args.prefix, split, args.nj, measured)
        speakers[split] = found.speakers
        print(f"{split}: {duration_statistics(found.seconds)}")
        if len(found.skipped):
            listing = removed_path(args.manifest_dir, args.prefix, split)
            print(f"{split}: {found.skipped.summary()}; see {listing}")
    shared = shared_speakers(speakers)
    for (a, b), names in shared.items():
        print(f"Warning: {a} and {b} share {len(names)} speakers: {', '.join(names[:10])}")
    listing = args.manifest_dir / f"{args.prefix}-shared-speakers.tsv"
    write_list(listing, ["\t".join((printable(name), *pair)) for pair, names in shared.items() for name in names])
    if shared:
        print(f"All of them are in {listing}")
        if args.disjoint_speakers:
            sys.exit("Splits share speakers: move each speaker's utterances to one split")


if __name__ == "__main__":
    with clear_errors("validate_cuts.py"):
        main()
