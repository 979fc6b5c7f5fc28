"""RESULTS.md: results of a recipe's experiments and the commands that reproduce them, generated from files."""

from collections.abc import Iterable, Sequence
from typing import Any

from summarymix.scoring.comparison import SeedComparison
from summarymix.scoring.experiments import Experiment
from summarymix.scoring.metrics import RATE_NAMES, UNIT_NAMES, Metric
from summarymix.scoring.results import (
    SETTING_COLUMNS,
    STREAM_COLUMNS,
    Result,
    no_speech_cell,
    render_rows,
    setting_cells,
    shown_metrics,
    stream_cells,
)

HEADING = """# Results of the recipe {recipe}

Made by `local/write_results.py` from the results of each experiment; do not edit.
Columns named after splits are {rates} in per cent.{no_speech} RTF is seconds of computing
(encoder and search) per second of audio on the device named below the table. Latency is algorithmic: from the first
sample of a chunk to the last sample that its result needs. State is the memory that a stream keeps from one chunk to
the next. Left context is in chunks."""


def write_report(
    experiments: Sequence[Experiment], comparison: SeedComparison | None = None, plot_link: str | None = None
) -> str:
    """The text of RESULTS.md.

    Args:
        experiments: experiments with a section each.
        comparison: comparison for the last section.
        plot_link: link to the comparison's plot.

    Raises:
        ValueError: there are no experiments, or experiments of different recipes.
    """
    compared = comparison.experiments if comparison else []
    results = [result for experiment in (*experiments, *compared) for result in experiment.results]
    recipes = {result.recipe for result in results}
    if not recipes:
        raise ValueError("No experiments: give folders, or a file of experiments")
    if len(recipes) > 1:
        raise ValueError(f"The experiments belong to the recipes {sorted(recipes)}: write one file for each recipe")
    sections = []
    if comparison:
        plot = [f"![{comparison.rate_name.capitalize()}s]({plot_link})"] if plot_link else []
        first = [next(iter(seeds.values())) for seeds in comparison.groups.values()]
        parts = [
            comparison.section(),
            *plot,
            surroundings([result for experiment in compared for result in experiment.results]),
            "Training commands for the first seed of each model:",
            *_code([command for experiment in first for command in experiment.commands]),
        ]
        sections.append("\n\n".join(parts))
    metrics = shown_metrics(results)
    heading = HEADING.format(
        recipe=recipes.pop(),
        rates=" / ".join(f"{RATE_NAMES[metric]}s" for metric in metrics),
        no_speech=" In brackets: insertions an hour without speech." if any(r.no_speech for r in results) else "",
    )
    return "\n\n".join([heading, *(_section(experiment, metrics) for experiment in experiments), *sections]) + "\n"


INTERVALS = """Error rates and their differences from offline decoding, in percentage points, with 95 % intervals
(bootstrap over utterances). Of streaming also delays, with computing, median / 95th percentile in ms: from the
beginning of an utterance to the first word, and to the result since which it has not changed; from the end to the final
result; and the share of words in partial results that later changed or grew."""


def pivot(results: Sequence[Result], metrics: Sequence[Metric]) -> list[list[str]]:
    """Cells of a table: a header, and a row for each decoding setting with its error rates on each split."""
    splits = sorted({result.split for result in results})
    rows: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        key = result.setting[2:]
        rows.setdefault(key, {})[result.split] = result
    cells = []
    for by_split in rows.values():
        one = next(iter(by_split.values()))
        computing = sum(result.rtf * result.seconds for result in by_split.values())
        cells.append(
            [
                one.search,
                *setting_cells(one),
                *(_error_rates(by_split.get(split), metrics) for split in splits),
                f"{computing / sum(result.seconds for result in by_split.values()):.4f}",
                *stream_cells(one),
                f"{one.epoch}-{one.avg}",
            ]
        )
    return [["method", *SETTING_COLUMNS, *splits, "RTF", *STREAM_COLUMNS, "epoch-avg"], *cells]


def interval_table(results: Sequence[Result]) -> list[list[str]]:
    """Cells of a table of intervals and delays: a header, and a row for each result that has them; or nothing."""
    rows = [
        [
            result.split,
            result.search,
            *setting_cells(result),
            "–" if result.rate is None else _with_interval([result.rate, *(result.interval or [])], ".2f"),
            "–" if result.above_offline is None else _with_interval(result.above_offline, "+.2f"),
            *(_percentiles(values) for values in (result.first_partial_ms, result.first_stable_ms, result.final_ms)),
            "–" if result.changed_words is None else f"{result.changed_words:.1f} %",
        ]
        for result in results
        if result.interval is not None or result.final_ms is not None
    ]
    header = ["split", "method", *SETTING_COLUMNS, "error rate", "against offline", "first word", "stable", "final"]
    return [[*header, "changed words"], *rows] if rows else []


def _markdown(table: list[list[str]]) -> str:
    header, *rows = table
    return render_rows(header, rows, markdown=True)


def _with_interval(values: Sequence[float], form: str) -> str:
    """A value with the bounds of its interval."""
    value, *bounds = [format(value, form) for value in values]
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def _percentiles(values: Sequence[float] | None) -> str:
    return "–" if values is None else " / ".join(f"{value:.0f}" for value in values)


def _error_rates(result: Result | None, metrics: Sequence[Metric]) -> str:
    """Error rates, without unknown ones at the end, and insertions an hour in recordings without speech."""
    if result is None:
        return "–"
    rates = [result.rate_by(metric) for metric in metrics]
    cell = " / ".join("–" if rate is None else f"{rate:.2f}" for rate in rates)
    while cell.endswith(" / –"):
        cell = cell.removesuffix(" / –")
    return f"{cell} [{no_speech_cell(result)}]" if result.no_speech else cell


def _section(experiment: Experiment, metrics: Sequence[Metric]) -> str:
    done = f"Trained for {experiment.epochs} epochs, {experiment.steps} steps."
    choice, commands = experiment.selection, [result.command for result in experiment.results]
    parts = [
        f"## {experiment.name}",
        *(f"Number of parameters: {size}, i.e., {size / 1e6:.2f} M." for size in experiment.parameters),
        *([done] if experiment.epochs else []),
        *_code(experiment.commands),
        _markdown(pivot(experiment.results, metrics)),
        *([INTERVALS, _markdown(table)] if (table := interval_table(experiment.results)) else []),
        surroundings(experiment.results),
    ]
    if choice:
        commands.insert(0, choice.get("command", ""))
        parts.append(
            f"Epoch {choice['epoch']}, avg {choice['avg']} was chosen on {', '.join(choice['splits'])} among "
            f"{choice['tried']} candidates."
        )
    return "\n\n".join([*parts, *_code(commands)])


def surroundings(results: Iterable[Result]) -> str:
    """Devices, commits and test sets of the results, as text."""
    machines, commits, sets = set(), set(), set()
    for result in results:
        machines.add(f"{result.device} ({result.threads} threads)")
        commits.add(result.commit or "unknown")
        units = f"{result.units or result.words} {UNIT_NAMES[result.metric]}"
        sets.add(f"{result.split} {result.utterances} utterances, {units}, {result.skipped} skipped")
    return (
        f"Decoded on {', '.join(sorted(machines))} at commit {', '.join(sorted(commits))}. "
        f"Sets: {'; '.join(sorted(sets))}."
    )


def _code(commands: list[str]) -> list[str]:
    """Commands as a code block, each once, without the empty commands in records of older versions."""
    known = [command for command in dict.fromkeys(commands) if command]
    return ["\n".join(["```bash", *known, "```"])] if known else []
