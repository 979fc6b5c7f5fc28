#!/usr/bin/env python3
"""Write RESULTS.md from the experiments of a recipe: from their folders, with a section for each,

  local/write_results.py --out RESULTS.md exp exp-attention

or from a file made by local/collect_results.py. One section then compares the models of all experiments called
MODEL-sSEED over their seeds; each other experiment has its own section:

  local/write_results.py --out RESULTS.md --comparison comparison.json --baseline conformer --plot comparison.png
"""

import argparse
import os
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.files import atomic_write
from summarymix.scoring.comparison import SECTION_TITLE, SeedComparison
from summarymix.scoring.experiments import collect, read_experiments
from summarymix.scoring.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dirs", type=Path, nargs="*", metavar="EXP_DIR", help="folders with a results.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--comparison", type=Path, metavar="JSON", help="file made by local/collect_results.py")
    parser.add_argument("--baseline", metavar="MODEL", help="model to compare the others with (default: the first)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the comparison into this file")
    args = parser.parse_args()
    with clear_errors("write_results.py"):
        collected = read_experiments(args.comparison) if args.comparison else []
        alone = [experiment for experiment in collected if experiment.group == experiment.name]
        compared = [experiment for experiment in collected if experiment.group != experiment.name]
        if not compared and (args.baseline or args.plot):
            raise ValueError("--baseline and --plot need experiments called MODEL-sSEED in the file of --comparison")
        comparison = SeedComparison(compared, args.baseline) if compared else None
        if not comparison and args.out.is_file() and SECTION_TITLE in args.out.read_text(encoding="utf-8"):
            raise ValueError(
                f"{args.out} has a comparison over seeds, which this command would remove: give the file of "
                "--comparison too, or another --out"
            )
        link = os.path.relpath(args.plot, args.out.parent) if args.plot else None
        text = write_report([*map(collect, args.exp_dirs), *alone], comparison, link)
        if comparison and args.plot:
            comparison.plot(args.plot)
            print(args.plot)
        with atomic_write(args.out) as file:
            file.write(text)
    print(args.out)


if __name__ == "__main__":
    main()
