"""Comparison of models over seeds, from the records of experiments: error rates with their spread, and costs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill
from typing import NamedTuple

from matplotlib.figure import Figure

from summarymix.files import write_png
from summarymix.scoring.experiments import Experiment
from summarymix.scoring.metrics import RATE_NAMES, UNIT_NAMES, Metric
from summarymix.scoring.results import Result, render_rows

# Quantiles of Student's t for two-sided 95 % intervals, for 1, 2, … degrees of freedom, the last also for more.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

MARKERS = "os^D"  # of plots, each with ten colours

SECTION_TITLE = "## Comparison over seeds"
TEXT = """{title}

Columns named after splits are {rates} in per cent, mean ± standard deviation over the seeds: offline, or in
simulated streaming with the given chunk in ms (and left context in chunks). Dev loss is the pruned RNN-T loss per frame
after the last epoch, averaged over the validation settings. CPU seconds are those of the training process, without data
workers and validation; memory is its peak. Both are means over the seeds."""

DIFFERENCES = """Differences in {rate} from `{baseline}`, in percentage points: means over the seeds that both
models were trained with, paired by seed, with 95 % confidence intervals (Student's t; none for a single seed). The
intervals cover the variation between training seeds, not between sets of test utterances."""


class ComparedSetting(NamedTuple):
    """A split and a decoding setting: a column of the comparison."""

    split: str
    chunk_ms: int | None
    left_chunks: int
    method: str
    metric: Metric
    lookahead_ms: int

    def title(self, with_method: bool) -> str:
        """A short name for tables and plots."""
        left = "" if self.left_chunks < 0 else f" ({self.left_chunks})"
        ahead = f" + {self.lookahead_ms}" if self.lookahead_ms else ""
        name = f"{self.split} offline" if self.chunk_ms is None else f"{self.split} {self.chunk_ms}{ahead} ms{left}"
        name += "" if self.metric == "wer" else f" {self.metric.upper()}"
        return f"{name} {self.method}" if with_method else name


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % confidence interval, None for a single value."""

    mean: float
    half_width: float | None

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "Interval":
        """The interval of independent values with a normal distribution."""
        if len(values) < 2:
            return cls(fmean(values), None)
        t = T_95[min(len(values) - 1, len(T_95)) - 1]
        return cls(fmean(values), t * stdev(values) / math.sqrt(len(values)))

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.mean - self.half_width:+.2f}, {self.mean + self.half_width:+.2f}]"


class SeedComparison:
    """A comparison of experiments by model and seed.

    Args:
        experiments: one experiment for each model and seed.
        baseline: model that the others are compared with; None takes the first.

    Raises:
        ValueError: no experiment has the model ``baseline``, two have the same model and seed, or the test sets differ.
    """

    def __init__(self, experiments: Sequence[Experiment], baseline: str | None = None) -> None:
        self.groups: dict[str, dict[int | None, Experiment]] = {}
        for experiment in experiments:
            seeds = self.groups.setdefault(experiment.group, {})
            if experiment.seed in seeds:
                raise ValueError(f"{experiment.name} and {seeds[experiment.seed].name} have the same model and seed")
            seeds[experiment.seed] = experiment
        self.baseline = baseline or next(iter(self.groups))
        if self.baseline not in self.groups:
            raise ValueError(f"--baseline {self.baseline} is not one of the models {', '.join(self.groups)}")
        self.groups = {self.baseline: self.groups[self.baseline]} | self.groups
        # {setting: {model: {seed: error rate}}}
        self.rates: dict[ComparedSetting, dict[str, dict[int | None, float]]] = {}
        scored: dict[tuple[str, Metric], tuple[tuple[int, int], str]] = {}  # sizes of test sets, and who had them first
        for experiment in self.experiments:
            for result in _chosen(experiment):
                size = (result.utterances, result.units or result.words)
                same, first = scored.setdefault((result.split, result.metric), (size, experiment.name))
                if size != same:
                    raise ValueError(
                        f"{first} and {experiment.name} were scored on different sets {result.split}, of {same[0]} and "
                        f"{size[0]} utterances with {same[1]} and {size[1]} {UNIT_NAMES[result.metric]}: decode again"
                    )
                if result.mode != "streaming" and result.rate is not None:
                    by_group = self.rates.setdefault(_setting(result), {})
                    by_group.setdefault(experiment.group, {})[experiment.seed] = result.rate
        # Offline, then the longest chunk first.
        self.settings = sorted(self.rates, key=lambda s: (s.split, s.method, -(s.chunk_ms or math.inf)))

    @property
    def experiments(self) -> list[Experiment]:
        """All experiments, grouped by model, the baseline first."""
        return [experiment for seeds in self.groups.values() for experiment in seeds.values()]

    @property
    def rate_name(self) -> str:
        """Name of the error rate; if there are several, all of them are error rates."""
        metrics = {setting.metric for setting in self.settings}
        return RATE_NAMES[metrics.pop()] if len(metrics) == 1 else "error rate"

    def section(self) -> str:
        """The Markdown section: a table of error rates and costs, and a table of differences."""
        parts = [TEXT.format(title=SECTION_TITLE, rates=f"{self.rate_name}s"), self._table()]
        if len(self.groups) > 1:
            parts += [DIFFERENCES.format(rate=self.rate_name, baseline=self.baseline), self._differences()]
        if exact := self._exactness():
            parts.append(exact)
        return "\n\n".join(parts)

    def titles(self) -> list[str]:
        """Names of the settings."""
        several = len({setting.method for setting in self.settings}) > 1
        return [setting.title(several) for setting in self.settings]

    def _table(self) -> str:
        rows = []
        for group, seeds in self.groups.items():
            experiments = list(seeds.values())
            cells = [", ".join(f"{n / 1e6:.2f} M" for n in sorted({n for e in experiments for n in e.parameters}))]
            cells += [str(len(experiments)), _mean(experiments, lambda e: e.steps)]
            cells += [_spread(list(self.rates[s].get(group, {}).values()), len(experiments)) for s in self.settings]
            cells.append(_spread([e.dev_loss for e in experiments if e.dev_loss is not None], len(experiments), 4))
            cells += [
                _mean(experiments, lambda e: e.cpu_seconds),
                _mean(experiments, lambda e: e.peak_memory and e.peak_memory / 1e6, " MB"),
            ]
            rows.append([group, *cells])
        header = ["model", "parameters", "seeds", "steps", *self.titles(), "dev loss", "CPU seconds", "memory"]
        return render_rows(header, rows, markdown=True)

    def _differences(self) -> str:
        rows = []
        for group in list(self.groups)[1:]:
            cells = []
            for rates in (self.rates[setting] for setting in self.settings):
                ours, theirs = rates.get(group, {}), rates.get(self.baseline, {})
                paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
                cells.append(str(Interval.from_values(paired)) if paired else "–")
            rows.append([group, *cells])
        return render_rows(["model", *self.titles()], rows, markdown=True)

    def _exactness(self) -> str:
        """A sentence on how often streaming and simulated streaming made the same errors; empty without such pairs."""
        same = []
        for experiment in self.experiments:
            by_mode: dict[tuple[ComparedSetting, int, int], dict[str, tuple[int, int, int]]] = {}
            for result in _chosen(experiment):
                errors = (result.insertions, result.deletions, result.substitutions)
                by_mode.setdefault((_setting(result), result.epoch, result.avg), {})[result.mode] = errors
            both = [errors for errors in by_mode.values() if {"simulated", "streaming"} <= errors.keys()]
            same += [errors["simulated"] == errors["streaming"] for errors in both]
        if not same:
            return ""
        return f"Streaming made the same numbers of errors as simulated streaming in {sum(same)} of {len(same)} cases."

    def plot(self, path: Path) -> None:
        """Draw the error rates as PNG: a point for each seed, a bar for their mean."""
        figure = Figure(figsize=(1.5 + 2 * len(self.settings), 4), layout="constrained")
        axes = figure.add_subplot()
        width = 0.8 / len(self.groups)
        for i, group in enumerate(self.groups):
            colour, marker = f"C{i}", MARKERS[i // 10 % len(MARKERS)]
            axes.plot([], [], marker, color=colour, label=group)
            for x, setting in enumerate(self.settings):
                values = list(self.rates[setting].get(group, {}).values())
                if values:
                    centre = x + (i - (len(self.groups) - 1) / 2) * width
                    axes.plot([centre] * len(values), values, marker, color=colour, alpha=0.5)
                    axes.hlines(fmean(values), centre - 0.35 * width, centre + 0.35 * width, color=colour, linewidth=2)
        axes.set_xticks(range(len(self.settings)), [fill(title, 18) for title in self.titles()])
        axes.set_ylabel(f"{self.rate_name} %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        figure.legend(loc="outside upper center", ncols=3)
        write_png(path, figure)


def _setting(result: Result) -> ComparedSetting:
    return ComparedSetting(
        result.split, result.chunk_ms, result.left_chunks, result.search, result.metric, result.lookahead_ms
    )


def _chosen(experiment: Experiment) -> list[Result]:
    """The results of the (epoch, avg) chosen on dev, or all results without a choice; the last of a setting counts."""
    choice = experiment.selection
    return [
        result
        for result in experiment.results
        if not choice or (result.epoch, result.avg) == (choice["epoch"], choice["avg"])
    ]


def _spread(values: Sequence[float], expected: int, digits: int = 2) -> str:
    """Mean ± standard deviation, with the number of values if it is not the expected one."""
    if not values:
        return "–"
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}" + (f" ({len(values)} seeds)" if len(values) != expected else "")


def _mean(experiments: Sequence[Experiment], value: Callable[[Experiment], float | None], unit: str = "") -> str:
    """Mean of a number over the experiments that have it."""
    known = [number for experiment in experiments if (number := value(experiment)) is not None]
    return f"{fmean(known):.0f}{unit}" if known else "–"
