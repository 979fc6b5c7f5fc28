"""RESULTS.md: what a recipe's experiments gave, and the commands that give it again. Made from files, never by hand."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from summarymix.decoding.results import (
    SETTING_COLUMNS,
    STREAM_COLUMNS,
    Result,
    read_results,
    render_rows,
    setting_cells,
    stream_cells,
)
from summarymix.training.checkpoint import read_selection

HEADING = """# Results of the recipe {recipe}

Made by `local/write_results.py` from the `results.jsonl` of each experiment; do not edit.
Columns named after splits are word error rates in per cent. RTF is seconds of computing (encoder and search) per second
of audio on the device named below the table. Latency is algorithmic: from the first sample of a chunk to the last one
that its result needs. State is what is kept of a stream from one chunk to the next. Left context is in chunks."""


def write_report(exp_dirs: Sequence[Path]) -> str:
    """The text of RESULTS.md, a section for each experiment.

    Args:
        exp_dirs: folders of training runs that have been decoded.

    Raises:
        FileNotFoundError: one of them has no results.
        ValueError: a damaged file, or experiments of different recipes.
    """
    sections = []
    recipes: set[str] = set()
    for exp_dir in exp_dirs:
        path = exp_dir / "results.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"No {path}: run ./decode.py --exp-dir {exp_dir} first")
        results = read_results(path)
        recipes.update(result.recipe for result in results)
        sections.append(_section(exp_dir, results))
    if len(recipes) != 1:
        raise ValueError(f"The experiments are of the recipes {sorted(recipes)}: write one file for each recipe")
    return "\n\n".join([HEADING.format(recipe=recipes.pop()), *sections]) + "\n"


def pivot(results: Iterable[Result], markdown: bool = True) -> str:
    """A table with a row for each way of decoding and a column for each split."""
    results = list(results)
    splits = sorted({result.split for result in results})
    rows: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        key = (result.mode, result.method, result.chunk_ms, result.left_chunks, result.epoch, result.avg)
        rows.setdefault(key, {})[result.split] = result
    cells = []
    for by_split in rows.values():
        one = next(iter(by_split.values()))
        computing = sum(result.rtf * result.seconds for result in by_split.values())
        wers = [by_split[split].wer if split in by_split else None for split in splits]
        cells.append(
            [
                one.method,
                *setting_cells(one),
                *("–" if wer is None else f"{wer:.2f}" for wer in wers),
                f"{computing / sum(result.seconds for result in by_split.values()):.4f}",
                *stream_cells(one),
                f"{one.epoch}-{one.avg}",
            ]
        )
    header = ["method", *SETTING_COLUMNS, *splits, "RTF", *STREAM_COLUMNS, "epoch-avg"]
    return render_rows(header, cells, markdown)


def _section(exp_dir: Path, results: list[Result]) -> str:
    # Weights of one folder have one size, unless somebody has moved files about.
    sizes = sorted({result.parameters for result in results})
    machines = sorted({f"{result.device} ({result.threads} threads)" for result in results})
    commits = sorted({result.commit or "unknown" for result in results})
    sets = {
        result.split: f"{result.split} {result.utterances} utterances, {result.words} words, {result.skipped} skipped"
        for result in results
    }
    commands = [result.command for result in results]
    parts = [
        f"## {exp_dir.name}",
        *(f"Number of parameters: {size}, i.e., {size / 1e6:.2f} M." for size in sizes),
        *_training(exp_dir),
        pivot(results),
        f"Decoded on {', '.join(machines)} at commit {', '.join(commits)}. Sets: {'; '.join(sets.values())}.",
    ]
    if choice := read_selection(exp_dir):
        tried = f"{len(choice['tried'])} candidates"
        parts.append(
            f"Epoch {choice['epoch']}, avg {choice['avg']} was chosen on {', '.join(choice['splits'])} among {tried}."
        )
        commands.insert(0, choice.get("command", ""))
    return "\n\n".join([*parts, *_code(commands)])


def _training(exp_dir: Path) -> list[str]:
    """How the run was trained, from its log; nothing where the log is gone."""
    path = exp_dir / "log.jsonl"
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    ended = (
        f"Trained for {epochs[-1]['epoch']} epochs, {epochs[-1]['step']} steps." if epochs else "Not one epoch done."
    )
    return [ended, *_code([line.get("command", "") for line in lines if line["kind"] == "start"])]


def _code(commands: list[str]) -> list[str]:
    """Commands as a block of code, each once; those that older versions have not noted down are empty."""
    known = [command for command in dict.fromkeys(commands) if command]
    return ["\n".join(["```bash", *known, "```"])] if known else []
