#!/usr/bin/env python3
"""Make a page of files of tools/benchmark.py, with their tables, plots and commands:

    python tools/report.py benchmark/*.json --out benchmark/report

writes README.md and the plots to the folder. Or make a page of experiments of a recipe:

    python tools/report.py --html egs/mini/ASR/exp --out page.html

writes one file for a web browser, which needs no network: results, learning curves, and the decoded utterances by
errors, with their audio, spectrogram, and hypotheses of all settings beside each other.
"""

import argparse
from pathlib import Path

from benchmark import SUBCOMMANDS
from benchmarks.record import Run, describe, read_run, write_plots
from html_report.content import make_content
from html_report.page import render

from summarymix.cli import clear_errors, say
from summarymix.files import atomic_write


def main() -> None:
    args = parse_args()
    with clear_errors("report.py"):
        print(write_html(args) if args.html else write_markdown(args))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option(
        "paths", type=Path, nargs="+", metavar="PATH", help="files written by tools/benchmark.py --json, or EXP_DIRs"
    )
    option("--out", type=Path, required=True, help="folder for the page; with --html its file")
    option("--html", action="store_true", help="make a page of experiments, trained and decoded")
    option("--splits", nargs="+", help="--html: splits whose utterances are shown (all that were decoded)")
    option(
        "--audio",
        type=int,
        default=50,
        metavar="N",
        help="--html: embed the audio of N utterances of each split with the most errors and N others (50)",
    )
    option("--manifest-dir", help="--html: folder of the manifests, if they have moved since training")
    args = parser.parse_args()
    if not args.html and (args.splits, args.audio, args.manifest_dir) != (None, 50, None):
        parser.error("--splits, --audio and --manifest-dir are for the page of experiments: add --html")
    if args.html and args.out.is_dir():
        parser.error(f"--out {args.out} is a folder: give the name of the page, such as {args.out}/page.html")
    if folders := [] if args.html else [path for path in args.paths if path.is_dir()]:
        parser.error(f"{folders[0]} is a folder: add --html for the page of an experiment")
    first: dict[str, Path] = {}
    for path in [] if args.html else args.paths:
        if (other := first.setdefault(path.stem, path)) != path:
            parser.error(f"{other} and {path} would have plots of one name: rename one of them")
    if args.audio < 0:
        parser.error(f"--audio {args.audio}: give a number of utterances, 0 for none")
    return args


def write_html(args: argparse.Namespace) -> str:
    """Write the page of experiments and describe it in a line."""
    content = make_content(args.paths, args.splits, args.audio, args.manifest_dir)
    names = ", ".join(experiment["name"] for experiment in content["experiments"])
    with atomic_write(args.out) as file:
        file.write(render(f"{content['recipe']}: {names}", content))
    for note in content["notes"]:
        say(f"Warning: {note}")
    utterances, heard = (sum(len(split[key]) for split in content["splits"]) for key in ("ids", "audio"))
    size = args.out.stat().st_size / 1e6
    return f"{args.out}: {size:.1f} MB, {utterances} utterances, {heard} of them with audio (--audio {args.audio})"


def write_markdown(args: argparse.Namespace) -> Path:
    """Write the page of benchmarks and return its path."""
    sections = [section(read_run(path), path, args.out) for path in args.paths]
    page = args.out / "README.md"
    with atomic_write(page) as file:
        file.write("\n\n".join(["# Benchmarks", "Made by `tools/report.py`; do not edit.", *sections]) + "\n")
    return page


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
