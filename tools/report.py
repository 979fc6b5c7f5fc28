#!/usr/bin/env python3
"""A page of what tools/benchmark.py has measured: tables and plots of its files, and the commands that made them.

    python tools/report.py benchmark/*.json --out benchmark/report

The folder gets README.md and the plots.
"""

import argparse
from pathlib import Path

from benchmark import SUBCOMMANDS
from benchmarks.record import Run, describe, read_run, write_plots

from summarymix.cli import clear_errors
from summarymix.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by tools/benchmark.py --json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page")
    args = parser.parse_args()
    with clear_errors("report.py"):
        sections = [section(read_run(path), path, args.out) for path in args.files]
        page = args.out / "README.md"
        with atomic_write(page) as file:
            file.write("\n\n".join(["# Benchmarks", "Made by `tools/report.py`; do not edit.", *sections]) + "\n")
    print(page)


def section(run: Run, path: Path, out: Path) -> str:
    """What a file holds, in Markdown; its plots are written into ``out``.

    Raises:
        ValueError: no subcommand of this version has written it.
    """
    module = SUBCOMMANDS.get(run["benchmark"])
    if module is None:
        raise ValueError(f"{path} is of the benchmark {run['benchmark']!r}; there are {', '.join(SUBCOMMANDS)}")
    plots = write_plots(out, path.stem, module.plots(run))
    parts = [f"## {path.stem}: {run['benchmark']}", describe(run) + ".", f"```bash\n{run['command']}\n```"]
    parts += [table.render(markdown=True) for table in module.tables(run)]
    return "\n\n".join([*parts, *(f"![{plot.stem}]({plot.name})" for plot in plots)])


if __name__ == "__main__":
    main()
