"""Records of experiments: cost and results of a run in one line of JSON, kept when its folder is gone."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

import yaml

from summarymix.files import atomic_write, read_json_lines
from summarymix.runs import read_selection
from summarymix.scoring.results import Result, read_results


@dataclass
class Experiment:
    """A training run and its results. Values that are missing from its log, or whose log is gone, are None.

    Args:
        name: name of the folder.
        group: name of the model: ``name`` without ``-sSEED``, shared by runs with other seeds.
        seed: seed of the run.
        epochs: number of epochs trained.
        steps: number of optimiser steps.
        dev_loss: pruned loss per encoder frame after the last epoch, averaged over the validation settings.
        wall_seconds: wall-clock time of training, without validation.
        cpu_seconds: CPU time of the main process's threads over the same period.
        peak_memory: bytes; see :func:`summarymix.training.usage.peak_memory`.
        threads: number of CPU threads.
        commands: training commands.
        selection: choice of ``decode.py --select``: epoch, avg, splits, command, and the number of candidates tried.
        results: latest result of each setting.
    """

    name: str
    group: str
    seed: int | None
    epochs: int | None
    steps: int | None
    dev_loss: float | None
    wall_seconds: float | None
    cpu_seconds: float | None
    peak_memory: int | None
    threads: int | None
    commands: list[str]
    selection: dict[str, Any]
    results: list[Result]

    @property
    def parameters(self) -> list[int]:
        """Numbers of parameters in the results; more than one if files of different models were mixed."""
        return sorted({result.parameters for result in self.results})


def collect(exp_dir: Path) -> Experiment:
    """Read the record of a run that was trained and decoded.

    Raises:
        FileNotFoundError: the folder has no results yet.
        ValueError: a file is damaged.
    """
    path = exp_dir / "results.jsonl"
    results = read_results(path) if path.is_file() else []
    if not results:
        raise FileNotFoundError(f"No results in {path}: run ./decode.py --exp-dir {exp_dir} first")
    config, log = exp_dir / "config.yaml", exp_dir / "log.jsonl"
    seed = yaml.safe_load(config.read_text(encoding="utf-8"))["seed"] if config.is_file() else None
    lines: dict[str, list[dict[str, Any]]] = {"start": [], "epoch": [], "cost": [], "valid": []}
    for _, record in read_json_lines(log) if log.is_file() else ():
        lines.setdefault(record["kind"], []).append(record)
    last_epoch, last_cost = ((lines[kind] or [{}])[-1] for kind in ("epoch", "cost"))
    last = [line for line in lines["valid"] if line["step"] == last_epoch.get("step")]
    dev_losses = [line["pruned"] for line in last if "@" not in line["setting"]]  # of all corpora together
    selection = read_selection(exp_dir)
    name = exp_dir.resolve().name
    return Experiment(
        name=name,
        group=name.removesuffix(f"-s{seed}"),
        seed=seed,
        epochs=last_epoch.get("epoch"),
        steps=last_epoch.get("step"),
        dev_loss=fmean(dev_losses) if dev_losses else None,
        wall_seconds=last_cost.get("wall_seconds"),
        cpu_seconds=last_cost.get("cpu_seconds"),
        # Each process of a resumed run has its own peak.
        peak_memory=max((line["peak_memory"] for line in lines["cost"]), default=None),
        threads=lines["start"][-1].get("threads") if lines["start"] else None,
        commands=list(dict.fromkeys(line.get("command", "") for line in lines["start"])),
        selection=selection | {"tried": len(selection["tried"])} if selection else {},
        results=results,
    )


class Named(Protocol):
    """An item with the name of its experiment's folder."""

    name: str


N = TypeVar("N", bound=Named)


def by_name(old: Iterable[N], new: Sequence[N]) -> dict[str, N]:
    """All items by name; a new item replaces an old one of the same name.

    Raises:
        ValueError: two new items have the same name.
    """
    names = [one.name for one in new]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several folders are called {', '.join(twice)}: rename them, so that names are unique")
    return {one.name: one for one in (*old, *new)}


def merge(old: Iterable[Experiment], new: Sequence[Experiment]) -> list[Experiment]:
    """Old and new experiments, merged :func:`by_name` and sorted."""
    return sorted(
        by_name(old, new).values(), key=lambda experiment: (experiment.group, experiment.seed or 0, experiment.name)
    )


def read_experiments(path: Path) -> list[Experiment]:
    """The experiments in a file written by :func:`write_experiments`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format; the message names it.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [
            Experiment(**record | {"results": [Result(**result) for result in record["results"]]}) for record in records
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} was not made by local/collect_results.py, or was edited ({error}): restore it"
        ) from error


def write_experiments(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write experiments as a JSON list, one per line, so that version control shows which have changed."""
    lines = [json.dumps(asdict(experiment), ensure_ascii=False) for experiment in experiments]
    with atomic_write(path) as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
