"""Learning curves: error rates over a run's validations, and when they take off."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from summarymix.files import atomic_write, read_json_lines, write_png
from summarymix.scoring.metrics import Metric
from summarymix.training.validation import metric_of


@dataclass
class Point:
    """A validation at the first validation setting.

    Args:
        step: optimiser steps so far.
        cpu_minutes: CPU minutes of training so far, on all threads.
        hours: hours of audio so far.
        wer: error rate of the transducer by greedy search, in per cent, by the metric of the curve.
        ctc_wer: error rate of the CTC head.
        ctc: CTC loss per encoder frame.
    """

    step: int
    cpu_minutes: float
    hours: float
    wer: float
    ctc_wer: float
    ctc: float


@dataclass
class Curve:
    """Learning curve of a run.

    Args:
        name: name of the run's folder.
        command: training command.
        points: validations in order of steps.
        metric: metric of the error rates.
    """

    name: str
    command: str
    points: list[Point]
    metric: Metric = "wer"

    def take_off(self, wer: float) -> Point | None:
        """The first validation with the transducer's or the CTC head's error rate below ``wer``."""
        return next((point for point in self.points if min(point.wer, point.ctc_wer) < wer), None)


def read_curve(exp_dir: Path) -> Curve:
    """The learning curve in a run's ``log.jsonl``.

    Raises:
        FileNotFoundError: the run has no log.
        ValueError: the log is damaged, or has no validation with error rates.
    """
    path = exp_dir / "log.jsonl"
    records = [record for _, record in read_json_lines(path)]
    costs = {record["step"]: record for record in records if record["kind"] == "cost" and "seconds" in record}
    metric: Metric = "wer"
    points: dict[int, Point] = {}
    for record in records:
        step = record["step"]
        if record["kind"] == "valid" and step in costs and step not in points:
            cost, metric = costs[step], metric_of(record)
            points[step] = Point(
                step=step,
                cpu_minutes=round(cost["cpu_seconds"] / 60, 2),
                hours=round(cost["seconds"] / 3600, 2),
                wer=round(record[metric], 2),
                ctc_wer=round(record[f"ctc_{metric}"], 2),
                ctc=round(record["ctc"], 4),
            )
    if not points:
        raise ValueError(f"{path} has no validation with error rates: train longer, or give --valid_every_steps")
    commands = [record.get("command", "") for record in records if record["kind"] == "start"]
    return Curve(exp_dir.resolve().name, commands[0] if commands else "", list(points.values()), metric)


def read_curves(path: Path) -> list[Curve]:
    """The curves in a file written by :func:`write_curves`."""
    made: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [Curve(**one | {"points": [Point(**point) for point in one["points"]]}) for one in made]


def write_curves(path: Path, curves: Iterable[Curve]) -> None:
    """Write curves as JSON, one per line."""
    lines = (json.dumps(asdict(curve)) for curve in curves)
    with atomic_write(path) as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")


def take_off_table(curves: Sequence[Curve], limits: Sequence[float]) -> list[list[str]]:
    """Table of when each run took off: a header row, then one row per curve."""
    header, title = ["run"], _title(curves)
    for limit in limits:
        header += [f"{title} < {limit:g} %: updates", "CPU min", "audio h"]
    rows = [[*header, "last: CPU min", "audio h", f"{title} %", f"CTC {title} %", "CTC loss"]]
    for curve in curves:
        row = [curve.name]
        for limit in limits:
            point = curve.take_off(limit)
            row += ["–"] * 3 if point is None else [f"{point.step}", f"{point.cpu_minutes:.1f}", f"{point.hours:.1f}"]
        last = curve.points[-1]
        row += [f"{last.cpu_minutes:.1f}", f"{last.hours:.1f}", f"{last.wer:.1f}", f"{last.ctc_wer:.1f}"]
        rows.append([*row, f"{last.ctc:.3f}"])
    return rows


def plot_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Draw error rates against CPU minutes as PNG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, curve in enumerate(curves):
        minutes = [point.cpu_minutes for point in curve.points]
        best = [min(point.wer, point.ctc_wer) for point in curve.points]
        axes.plot(minutes, best, "-" if i < 10 else "--", color=f"C{i % 10}", label=curve.name)
    axes.set_xlabel("CPU minutes of training")
    axes.set_ylabel(f"dev {_title(curves)} %, the better of transducer and CTC head")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    write_png(path, figure)


def _title(curves: Iterable[Curve]) -> str:
    return " or ".join(sorted({curve.metric.upper() for curve in curves}, reverse=True))
