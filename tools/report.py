#!/usr/bin/env python3
"""Make a page of files of tools/benchmark.py, with their tables, plots and commands.

    python tools/report.py benchmark/*.json --out benchmark/report

Writes README.md and the plots to the folder.
"""

import argparse
from pathlib import Path

from benchmark import SUBCOMMANDS
from benchmarks.record import Run, describe, read_run, write_plots

from summarymix.cli import clear_errors
from summarymix.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="file written by tools/benchmark.py --json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page")
    args = parser.parse_args()
    with clear_errors("report.py"):
        sections = [section(read_run(path), path, args.out) for path in args.files]
        page = args.out / "README.md"
        with atomic_write(page) as file:
            file.write("\n\n".join(["# Benchmarks", "Made by `tools/report.py`; do not edit.", *sections]) + "\n")
    print(page)


def section(run: Run, path: Path, out: Path) -> str:
    """Render a file in Markdown, and write its plots into ``out``.

    Raises:
        ValueError: this version does not have the benchmark.
    """
    module = SUBCOMMANDS.get(run["benchmark"])
    if module is None:
        raise ValueError(f"{path}: unknown benchmark {run['benchmark']!r}, expected one of {', '.join(SUBCOMMANDS)}")
    plots = write_plots(out, path.stem, module.plots(run))
    parts = [f"## {path.stem}: {run['benchmark']}", describe(run) + ".", f"```bash\n{run['command']}\n```"]
    parts += [table.render(markdown=True) for table in module.tables(run)]
    return "\n\n".join([*parts, *(f"![{plot.stem}]({plot.name})" for plot in plots)])


if __name__ == "__main__":
    main()
