#!/usr/bin/env python3
"""Make lhotse manifests from a table of audio files and transcripts, Kaldi data folders, other lhotse manifests, or
one of lhotse's recipes.

The table is a .tsv, .csv or .jsonl with the columns audio, text and optionally id, speaker, split, start, duration
(seconds), channel, language. Writes OUT_DIR/PREFIX_{recordings,supervisions}_SPLIT.jsonl.gz for every split, prints a
report on the corpus, and lists skipped utterances with reasons in OUT_DIR/skipped-PREFIX-table.tsv.
"""

import argparse
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.corpus.options import add_source_options, prepare_corpus, source_of
from summarymix.data.names import name_argument


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source_options(parser)
    parser.add_argument(
        "--prefix", type=name_argument, required=True, help="name of the corpus in the manifests' file names"
    )
    parser.add_argument("--fill-splits", action="store_true", help="take missing dev and test splits from train")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=above_zero(int), default=4, help="files to open at a time")
    args = parser.parse_args()
    with clear_errors("prepare_table.py"):
        _, lines = prepare_corpus(source_of(args), args.prefix, args.out_dir, args.nj, args.fill_splits)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
