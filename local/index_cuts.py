#!/usr/bin/env python3
"""Index the cuts of training splits, so that training starts at once: MANIFEST_DIR/PREFIX_cuts_SPLIT.index.

An index for these cuts and tokens that exists already is kept. Training makes missing ones, in one process.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.config import DataConfig
from summarymix.data.index import open_index
from summarymix.data.manifests import add_split_options
from summarymix.data.tokens import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser, "data/fbank")
    parser.add_argument("--lang-dir", type=Path, required=True, help="folder of the tokens")
    parser.add_argument("--nj", type=above_zero(int), default=4, help="processes")
    args = parser.parse_args()

    config = DataConfig(prefix=args.prefix, manifest_dir=str(args.manifest_dir))
    tokenizer = Tokenizer.from_lang_dir(args.lang_dir)
    with ProcessPoolExecutor(args.nj) as executor:
        for split in args.splits:
            index = open_index(config, split, tokenizer, None, executor)
            print(f"{split}: {len(index)} cuts indexed in {config.index_dir(split)}")


if __name__ == "__main__":
    with clear_errors("index_cuts.py"):
        main()
