#!/usr/bin/env python3
"""Write RESULTS.md from the results of one or more experiments of a recipe:

local/write_results.py --out RESULTS.md exp exp-attention
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.decoding.report import write_report
from summarymix.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dirs", type=Path, nargs="+", metavar="EXP_DIR", help="folders with a results.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with clear_errors("write_results.py"):
        text = write_report(args.exp_dirs)
        with atomic_write(args.out) as file:
            file.write(text)
    print(args.out)


if __name__ == "__main__":
    main()
