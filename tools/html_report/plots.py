"""Plots of the page as data, which its script draws."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from summarymix.files import read_json_lines
from summarymix.scoring.metrics import RATE_NAMES
from summarymix.scoring.results import Result
from summarymix.training.validation import metric_of

MOST_POINTS = 400  # of a curve
Plot = dict[str, Any]


def line(
    name: str, points: Sequence[Sequence[float]], color: int, style: Literal["markers", "plain", "dashed"] = "markers"
) -> dict[str, Any]:
    """A line of a plot.

    Args:
        name: entry of the legend.
        points: (x, y), or (x, y, lower, upper) with an interval of y.
        color: number of the color.
        style: only a line with markers shows single points.
    """
    return {"name": name, "points": points, "color": color, "style": style}


def _points(values: Mapping[int, float], digits: int) -> list[tuple[int, float]]:
    """Finite values by step: a curve has a gap where training diverged."""
    return [(step, round(value, digits)) for step, value in values.items() if math.isfinite(value)]


def learning_curves(logs: Mapping[str, Path]) -> list[Plot]:
    """Dev error rates and training losses over the updates.

    Args:
        logs: ``log.jsonl`` of each experiment by name; the files need not exist. Of several experiments, only the first
            validation setting is shown.
    """
    rates, losses = [], []
    rate_name = "error rate"
    for number, (name, path) in enumerate(logs.items()):
        records = [record for _, record in read_json_lines(path)] if path.is_file() else []
        valid = [r for r in records if r["kind"] == "valid" and "@" not in r["setting"] and metric_of(r) in r]
        settings = list(dict.fromkeys(record["setting"] for record in valid))
        for i, setting in enumerate(settings[:1] if len(logs) > 1 else settings):
            metric = metric_of(valid[0])
            rate_name = RATE_NAMES[metric]
            by_step = {record["step"]: record for record in valid if record["setting"] == setting}
            label = f"{name}, {setting}" if len(logs) > 1 else setting
            rates.append(line(label, _points({step: r[metric] for step, r in by_step.items()}, 2), number + i))
            if i == 0:
                ctc = _points({step: r[f"ctc_{metric}"] for step, r in by_step.items()}, 2)
                rates.append(line(f"{label}, CTC head", ctc, number, "dashed"))
        loss = _points({record["step"]: record["loss"] for record in records if record["kind"] == "train"}, 4)
        if loss:
            thinned = loss[:: 1 + len(loss) // MOST_POINTS]
            losses.append(line(name if len(logs) > 1 else "training", thinned, number, "plain"))
    plots = [
        {"title": f"Dev {rate_name} in training", "y": f"{rate_name}, %", "lines": rates},
        {"title": "Training loss", "y": "loss per encoder frame", "lines": losses},
    ]
    return [plot | {"x": "updates", "log": False} for plot in plots if plot["lines"]]


def latency_plot(split: str, results: Sequence[tuple[str, Result]]) -> list[Plot]:
    """The error rate of a split against the algorithmic latency; no plot for fewer than two latencies.

    Args:
        split: its name.
        results: results in order, each with the name of its model and search. Those that only differ in chunk
            size form a line; offline decoding is a horizontal one beside it.
    """
    models = {model for model, result in results if result.latency_ms}
    latencies = sorted({result.latency_ms for _, result in results if result.latency_ms})
    if len(latencies) < 2:
        return []
    curves: dict[tuple[str, str], dict[float, list[float]]] = {}
    for model, result in results:
        rate, interval = result.rate, result.interval or ()
        if rate is None or model not in models:
            continue
        if result.mode == "offline":
            curves[model, "offline"] = {latency: [rate] for latency in (latencies[0], latencies[-1])}
        elif result.latency_ms is not None:
            left = "unlimited left context" if result.left_chunks < 0 else f"left context {result.left_chunks}"
            name = f"{left}, look-ahead {result.lookahead_ms} ms" if result.lookahead_ms else left
            # Simulated and streaming decoding have the same results.
            curves.setdefault((model, name), {}).setdefault(result.latency_ms, [rate, *interval])
    lines = [
        line(
            ", ".join(filter(None, (model, name))),
            [[latency, *(round(value, 3) for value in values)] for latency, values in sorted(points.items())],
            color,
            "dashed" if name == "offline" else "markers",
        )
        for color, ((model, name), points) in enumerate(curves.items())
    ]
    rate_name = RATE_NAMES[results[0][1].metric]
    title = f"{split}: {rate_name} against latency"
    return [{"title": title, "x": "latency, ms", "y": f"{rate_name}, %", "log": True, "lines": lines}] if lines else []
