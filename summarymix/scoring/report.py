"""RESULTS.md: results of a recipe's experiments and the commands that reproduce them, generated from files."""

from collections.abc import Iterable, Sequence
from typing import Any

from summarymix.scoring.comparison import SeedComparison
from summarymix.scoring.experiments import Experiment
from summarymix.scoring.results import (
    SETTING_COLUMNS,
    STREAM_COLUMNS,
    Result,
    render_rows,
    setting_cells,
    stream_cells,
)

HEADING = """# Results of the recipe {recipe}

Made by `local/write_results.py` from the results of each experiment; do not edit.
Columns named after splits are word error rates / character error rates in per cent. RTF is seconds of computing
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
    recipes = {result.recipe for experiment in (*experiments, *compared) for result in experiment.results}
    if not recipes:
        raise ValueError("No experiments: give folders, or a file of experiments")
    if len(recipes) > 1:
        raise ValueError(f"The experiments belong to the recipes {sorted(recipes)}: write one file for each recipe")
    sections = [_section(experiment) for experiment in experiments]
    if comparison:
        plot = [f"![Word error rates]({plot_link})"] if plot_link else []
        first = [next(iter(seeds.values())) for seeds in comparison.groups.values()]
        parts = [
            comparison.section(),
            *plot,
            _surroundings([result for experiment in compared for result in experiment.results]),
            "Training commands for the first seed of each model:",
            *_code([command for experiment in first for command in experiment.commands]),
        ]
        sections.append("\n\n".join(parts))
    return "\n\n".join([HEADING.format(recipe=recipes.pop()), *sections]) + "\n"


def pivot(results: Iterable[Result], markdown: bool = True) -> str:
    """A table with a row for each decoding setting and a column for each split."""
    results = list(results)
    splits = sorted({result.split for result in results})
    rows: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        key = (result.mode, result.search, result.chunk_ms, result.left_chunks, result.epoch, result.avg)
        rows.setdefault(key, {})[result.split] = result
    cells = []
    for by_split in rows.values():
        one = next(iter(by_split.values()))
        computing = sum(result.rtf * result.seconds for result in by_split.values())
        cells.append(
            [
                one.search,
                *setting_cells(one),
                *(_error_rates(by_split.get(split)) for split in splits),
                f"{computing / sum(result.seconds for result in by_split.values()):.4f}",
                *stream_cells(one),
                f"{one.epoch}-{one.avg}",
            ]
        )
    header = ["method", *SETTING_COLUMNS, *splits, "RTF", *STREAM_COLUMNS, "epoch-avg"]
    return render_rows(header, cells, markdown)


def _error_rates(result: Result | None) -> str:
    """Word and character error rate, if known."""
    if result is None or result.wer is None:
        return "–"
    return f"{result.wer:.2f}" + ("" if result.cer is None else f" / {result.cer:.2f}")


def _section(experiment: Experiment) -> str:
    done = f"Trained for {experiment.epochs} epochs, {experiment.steps} steps."
    choice, commands = experiment.selection, [result.command for result in experiment.results]
    parts = [
        f"## {experiment.name}",
        *(f"Number of parameters: {size}, i.e., {size / 1e6:.2f} M." for size in experiment.parameters),
        *([done] if experiment.epochs else []),
        *_code(experiment.commands),
        pivot(experiment.results),
        _surroundings(experiment.results),
    ]
    if choice:
        commands.insert(0, choice.get("command", ""))
        parts.append(
            f"Epoch {choice['epoch']}, avg {choice['avg']} was chosen on {', '.join(choice['splits'])} among "
            f"{choice['tried']} candidates."
        )
    return "\n\n".join([*parts, *_code(commands)])


def _surroundings(results: Iterable[Result]) -> str:
    """Devices, commits and test sets of the results, as text."""
    machines, commits, sets = set(), set(), {}
    for result in results:
        machines.add(f"{result.device} ({result.threads} threads)")
        commits.add(result.commit or "unknown")
        sets[result.split] = (
            f"{result.split} {result.utterances} utterances, {result.words} words, {result.skipped} skipped"
        )
    return (
        f"Decoded on {', '.join(sorted(machines))} at commit {', '.join(sorted(commits))}. "
        f"Sets: {'; '.join(sets.values())}."
    )


def _code(commands: list[str]) -> list[str]:
    """Commands as a code block, each once, without the empty commands in records of older versions."""
    known = [command for command in dict.fromkeys(commands) if command]
    return ["\n".join(["```bash", *known, "```"])] if known else []
