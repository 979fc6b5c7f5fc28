#!/usr/bin/env python3
"""Collect costs and results of experiments in one small JSON file, which is committed instead of their folders:

  local/collect_results.py --out comparison.json exp exp-compare/*

Records of other experiments stay in the file, so experiments may run on several machines. An experiment collected again
replaces its record. Folders without results are reported and left out. local/write_results.py --comparison makes
RESULTS.md from the file.
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.scoring.experiments import collect, merge, read_experiments, write_experiments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dirs", type=Path, nargs="+", metavar="EXP_DIR", help="folders of decoded models")
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
    print(f"{args.out}: {len(new)} of {len(experiments)} experiments are new or updated")


if __name__ == "__main__":
    main()
