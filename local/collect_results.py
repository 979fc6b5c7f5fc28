#!/usr/bin/env python3
"""Gather what experiments cost and gave in one small file, to be committed where their folders are not:

local/collect_results.py --out comparison.json exp exp-compare/*

What the file has of other experiments stays, so that these may have been run elsewhere; an experiment collected again
replaces its record. local/write_results.py --comparison makes RESULTS.md from it. Folders without results yet are named
and left out.
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.scoring.experiments import collect, merge, read_experiments, write_experiments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dirs", type=Path, nargs="+", metavar="EXP_DIR", help="folders of trained, decoded models")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with clear_errors("collect_results.py"):
        new = []
        for exp_dir in args.exp_dirs:
            try:
                new.append(collect(exp_dir))
            except FileNotFoundError as error:
                print(f"{exp_dir} is left out: {error}")
        experiments = merge(read_experiments(args.out) if args.out.is_file() else [], new)
        write_experiments(args.out, experiments)
    print(f"{args.out}: {len(new)} of {len(experiments)} experiments are new or have been replaced")


if __name__ == "__main__":
    main()
