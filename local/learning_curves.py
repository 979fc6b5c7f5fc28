#!/usr/bin/env python3
"""Report when training runs took off: the updates, CPU minutes and hours of audio after which the dev word error rate,
the better of transducer and CTC head, fell below some limits.

  local/learning_curves.py exp exp-adamw --json curves.json --plot curves.png

prints a Markdown table. Curves of other runs stay in the JSON file and appear in table and plot; a run given again
replaces its curve. The table is as exact as the validations are frequent (./train.py --valid_every_steps).
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.scoring.experiments import by_name
from summarymix.scoring.results import render_rows
from summarymix.training.curves import plot_curves, read_curve, read_curves, take_off_table, write_curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dirs", type=Path, nargs="*", metavar="EXP_DIR", help="folders of runs")
    parser.add_argument("--json", type=Path, help="JSON file that collects the curves")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument(
        "--wer", type=float, nargs="+", default=[80.0, 60.0], help="limits of the word error rate in %%"
    )
    args = parser.parse_args()
    if not args.exp_dirs and args.json is None:
        parser.error("give folders of runs, or the --json file of an earlier call")
    with clear_errors("learning_curves.py"):
        kept = read_curves(args.json) if args.json is not None and args.json.is_file() else []
        curves = by_name(kept, [read_curve(exp_dir) for exp_dir in args.exp_dirs])
        if args.json is not None:
            write_curves(args.json, curves.values())
        if args.plot is not None:
            plot_curves(args.plot, list(curves.values()))
        header, *rows = take_off_table(list(curves.values()), args.wer)
        print(render_rows(header, rows, markdown=True))


if __name__ == "__main__":
    main()
