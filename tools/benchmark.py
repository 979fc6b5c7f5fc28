#!/usr/bin/env python3
"""Measure time, memory, streaming and error rates of this library, with a subcommand for each kind of measurement.

    python tools/benchmark.py encoder --config conf/conformer.yaml --config conf/conformer.yaml conf/attention.yaml
    python tools/benchmark.py SUBCOMMAND --help

Each subcommand prints its tables. With --json FILE it also writes its figures with the machine, versions, commit and
command to the file, and its plots to the same folder. tools/report.py makes a page of such files.
"""

import argparse
from pathlib import Path

from benchmarks import accuracy, data, delay_curve, depthwise, encoder, features, long, loss, serve, shar, streaming
from benchmarks.record import describe, make_run, write_plots, write_run

from summarymix.cli import clear_errors
from summarymix.distributed import find_device

SUBCOMMANDS = {
    "encoder": encoder,
    "loss": loss,
    "depthwise": depthwise,
    "streaming": streaming,
    "accuracy": accuracy,
    "delay": delay_curve,
    "long": long,
    "features": features,
    "data": data,
    "shar": shar,
    "serve": serve,
}


def main() -> None:
    args = parse_args()
    module = SUBCOMMANDS[args.benchmark]
    with clear_errors("benchmark.py"):
        if "device" in args:
            find_device(args.device)
        run = make_run(args.benchmark, args, module.measure(args))
        print(describe(run))
        if args.json:
            write_run(args.json, run)  # before anything else, because measuring takes long
        for table in module.tables(run):
            print(f"\n{table.render()}")
        if args.json:
            for path in (args.json, *write_plots(args.json.parent, args.json.stem, module.plots(run))):
                print(path)


def parse_args() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    subparsers = parser.add_subparsers(dest="benchmark", required=True, metavar="SUBCOMMAND")
    for name, module in SUBCOMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        subparser = subparsers.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=formatter, allow_abbrev=False
        )
        module.add_options(subparser)
        subparser.add_argument("--json", type=Path, help="file for the figures; plots go to its folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
