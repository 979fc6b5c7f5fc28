"""Experiments as records: what a run cost and what it gave, in one line of JSON that outlives its folder."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

import yaml

from summarymix.files import atomic_write
from summarymix.runs import read_selection
from summarymix.scoring.results import Result, read_results


@dataclass
class Experiment:
    """A training run and its results. What its folder does not tell, as older logs and those that are gone, is None.

    Args:
        name: of its folder.
        group: its name without ``-sSEED``: that of the model, which others have been trained of with other seeds.
        seed: of the run.
        epochs: trained.
        steps: of the optimiser.
        dev_loss: the pruned loss after the last epoch, mean of the validation settings; each per encoder frame.
        wall_seconds: of training, without validation.
        cpu_seconds: of the main process's threads in that time.
        peak_memory: bytes; see :func:`summarymix.training.usage.peak_memory`.
        threads: on the CPU.
        commands: that trained it.
        selection: what ``decode.py --select`` has chosen: epoch, avg, splits, command, and how many it has tried.
        results: the latest of each setting.
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
        """Numbers of parameters: one, unless somebody has moved files about."""
        return sorted({result.parameters for result in self.results})


def collect(exp_dir: Path) -> Experiment:
    """The record of a folder that has been trained in and decoded.

    Raises:
        FileNotFoundError: it has no results yet.
        ValueError: a damaged file.
    """
    path = exp_dir / "results.jsonl"
    results = read_results(path) if path.is_file() else []
    if not results:
        raise FileNotFoundError(f"No results in {path}: run ./decode.py --exp-dir {exp_dir} first")
    config, log = exp_dir / "config.yaml", exp_dir / "log.jsonl"
    seed = yaml.safe_load(config.read_text(encoding="utf-8"))["seed"] if config.is_file() else None
    lines: dict[str, list[dict[str, Any]]] = {"start": [], "epoch": [], "cost": [], "valid": []}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        record = json.loads(line)
        lines.setdefault(record["kind"], []).append(record)
    last_epoch, last_cost = ((lines[kind] or [{}])[-1] for kind in ("epoch", "cost"))
    dev_losses = [line["pruned"] for line in lines["valid"] if line["step"] == last_epoch.get("step")]
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
        # Each process that a run was resumed in has its own peak.
        peak_memory=max((line["peak_memory"] for line in lines["cost"]), default=None),
        threads=lines["start"][-1].get("threads") if lines["start"] else None,
        commands=list(dict.fromkeys(line.get("command", "") for line in lines["start"])),
        selection=selection | {"tried": len(selection["tried"])} if selection else {},
        results=results,
    )


class Named(Protocol):
    """Something of an experiment, called as its folder is."""

    name: str


N = TypeVar("N", bound=Named)


def by_name(old: Iterable[N], new: Sequence[N]) -> dict[str, N]:
    """All of them by name; of two of the same name the new one.

    Raises:
        ValueError: two new ones have the same name.
    """
    names = [one.name for one in new]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several folders are called {', '.join(twice)}: rename them, as experiments go by that name")
    return {one.name: one for one in (*old, *new)}


def merge(old: Iterable[Experiment], new: Sequence[Experiment]) -> list[Experiment]:
    """All experiments :func:`by_name`, sorted."""
    return sorted(
        by_name(old, new).values(), key=lambda experiment: (experiment.group, experiment.seed or 0, experiment.name)
    )


def read_experiments(path: Path) -> list[Experiment]:
    """The experiments in a file of :func:`write_experiments`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another kind; names the file.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [
            Experiment(**record | {"results": [Result(**result) for result in record["results"]]}) for record in records
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} was not made by local/collect_results.py, or edited ({error}): restore it") from error


def write_experiments(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write a list in JSON with an experiment in each line, so that version control shows which have changed."""
    lines = [json.dumps(asdict(experiment), ensure_ascii=False) for experiment in experiments]
    with atomic_write(path) as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
