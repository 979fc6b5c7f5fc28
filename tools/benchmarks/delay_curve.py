"""Error rate against emission delay, of several experiments: the cost of early emission.

    cd egs/mini/ASR
    ./train.py --exp-dir exp
    ./train.py --exp-dir exp-penalty --loss.delay-penalty 0.01
    ./train.py --exp-dir exp-fastemit --loss.fastemit 0.01
    python ../../../tools/benchmark.py delay --exp-dir exp exp-penalty exp-fastemit --splits test --chunk-ms 320 640 \\
        --json delay.json

The delay of a word is that of its last token, as the subcommand accuracy measures it. All experiments are compared with
the same alignment: that of the first one's CTC head. The JSON file also has the delays of first tokens and of
utterances. Lines in the plots join experiments by the delay penalty, and by the λ of FastEmit; both begin at
experiments with neither.
"""

import argparse
import math
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy import add_delay_options, measure_delays, setting
from benchmarks.delay import PERCENTILES
from benchmarks.record import Run, Table, add_legend, panels
from summarymix.runs import load_run_or_checkpoint
from summarymix.scoring.errors import format_percent

METHODS = {"delay_penalty": "delay penalty", "fastemit": "FastEmit"}
WHAT = "word, last token"
CLOCKS = ("frame", "availability")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    option("--exp-dir", type=Path, nargs="+", required=True, help="folders of training runs; the first one aligns")
    option("--splits", nargs="+", required=True, help="splits to decode and align")
    add_delay_options(parser)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Decode the splits with each experiment, and measure delays.

    Raises:
        ValueError: an experiment has other tokens than the first one.
    """
    runs = {path: load_run_or_checkpoint(path, args.epoch, args.avg) for path in args.exp_dir}
    first = args.exp_dir[0]
    for path, (_, tokenizer, _) in runs.items():
        if tokenizer.tokens != runs[first][1].tokens:
            raise ValueError(
                f"{path} has other tokens than {first}, whose alignment all experiments are compared with: measure it "
                "by itself"
            )
    delay: list[dict[str, Any]] = []
    names = [path.name for path in runs]
    for path, (model, tokenizer, info) in runs.items():
        name = path.name if names.count(path.name) == 1 else str(path)
        key = {"experiment": name} | {method: info["config"]["loss"].get(method, 0.0) for method in METHODS}
        measured = measure_delays(args, model, tokenizer, info, aligner=runs[first][0])
        delay += [key | result for result in measured["delay"]]
    return {"delay": delay, "alignment": measured["alignment"]}


def delay_of(result: dict[str, Any], clock: str) -> dict[str, Any] | None:
    """Delays of the last tokens of words by a clock; None if it has none."""
    return next((one for one in result["delays"] if (one["what"], one["clock"]) == (WHAT, clock)), None)


def tables(run: Run) -> list[Table]:
    """Table of error rates and delays."""
    header = ["split", "chunk", "left context", "experiment", *METHODS.values(), "WER", "95 % interval"]
    header += ["clock", "words", "mean", "p50", "p90"]
    settings = [(result["split"], *setting(result)[:2]) for result in run["results"]["delay"]]
    rows = [
        [
            *key,
            result["experiment"],
            *(f"{result[method]:g}" for method in METHODS),
            format_percent(result["wer"]),
            "n/a" if result["interval"] is None else "{:.2f} to {:.2f}".format(*result["interval"]),
            *(clock, str(found["count"]), f"{found['mean']:.0f}"),
            *(f"{found['percentiles'][PERCENTILES.index(p)]:.0f}" for p in (50, 90)),
        ]
        for one in dict.fromkeys(settings)
        for key, result in zip(settings, run["results"]["delay"], strict=True)
        if key == one
        for clock in CLOCKS
        if (found := delay_of(result, clock))
    ]
    return [Table("Error rate and emission delay of the last tokens of words, ms", header, rows)]


def plots(run: Run) -> dict[str, Figure]:
    """Plots of the error rate against the mean delay by both clocks; each setting of the chunks has a panel."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for result, clock in product(run["results"]["delay"], CLOCKS):
        if result["wer"] is not None and delay_of(result, clock):
            name = ", left context ".join(setting(result)[:2]).removesuffix(", left context –")
            groups.setdefault((result["split"], clock), {}).setdefault(name, []).append(result)
    made = {}
    for (split, clock), settings in groups.items():
        title = f"Error rate against emission delay on {split}"
        made[f"{split}-{clock}"], panel_axes = panels(len(settings), title)
        for axes, (name, results) in zip(panel_axes, settings.items(), strict=True):
            draw(axes, results, clock)
            axes.set(title=name, xlabel=f"mean delay of words by {clock}, ms", ylabel="WER %")
            axes.margins(x=0.15)  # for the labels
            axes.set_ylim(bottom=0)
    return made


def draw(axes: Axes, results: list[dict[str, Any]], clock: str) -> None:
    """Draw a labelled point for each experiment, and a line for each method with two or more values."""
    places = {
        result["experiment"]: (delay["mean"], result["wer"]) for result in results if (delay := delay_of(result, clock))
    }
    for i, (method, name) in enumerate(METHODS.items()):
        alone = [result for result in results if not any(result[other] for other in METHODS if other != method)]
        line = sorted(alone, key=lambda result: result[method])
        if len({result[method] for result in line}) > 1:
            axes.plot(*zip(*(places[result["experiment"]] for result in line), strict=True), color=f"C{i}", label=name)
    for result in results:
        x, y = places[result["experiment"]]
        low, high = result["interval"] or (math.nan, math.nan)
        axes.errorbar(x, y, yerr=[[max(y - low, 0.0)], [max(high - y, 0.0)]], fmt=".", color="0.3", elinewidth=0.5)
        axes.annotate(result["experiment"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    add_legend(axes)
