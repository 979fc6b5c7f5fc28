#!/usr/bin/env python3
"""Make lhotse manifests from a table of audio files and transcripts.

The table is a .tsv, .csv or .jsonl with the columns audio, text and optionally id, speaker, split. Writes
OUT_DIR/PREFIX_{recordings,supervisions}_SPLIT.jsonl.gz for every split, and OUT_DIR/skipped-table.tsv.
"""

import argparse
from pathlib import Path

from summarymix.data.table import prepare_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--audio-dir", type=Path, required=True, help="what audio paths in the table are relative to")
    parser.add_argument("--prefix", required=True, help="name of the corpus in the manifests' names")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=int, default=4, help="files to open at a time")
    args = parser.parse_args()
    skipped = prepare_table(args.table, args.audio_dir, args.prefix, args.out_dir, args.nj)
    print(f"{args.table}: {skipped.summary()}" + (f"; see {args.out_dir}/skipped-table.tsv" if len(skipped) else ""))


if __name__ == "__main__":
    main()
