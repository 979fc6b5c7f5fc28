"""Output of a benchmark: tables, plots, and a JSON file of its figures with the settings to repeat it."""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from summarymix.cli import above_zero
from summarymix.distributed import find_device
from summarymix.files import atomic_write, write_png
from summarymix.scoring.results import render_rows
from summarymix.version import commit

Run = dict[str, Any]  # content of the JSON file: machine, settings, results


@dataclass
class Table:
    """A table with a title, and notes under it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def render(self, markdown: bool = False) -> str:
        """Render for the terminal or in Markdown."""
        heading = f"### {self.title}" if markdown else self.title
        return "\n\n".join([heading, render_rows(self.header, self.rows, markdown), *self.notes])


def make_run(benchmark: str, args: argparse.Namespace, results: Any) -> Run:
    """Combine results with machine, versions, commit, command and options."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([*allocator_settings(), shlex.join(["tools/benchmark.py", *sys.argv[1:]])]),
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "settings": {key: value for key, value in vars(args).items() if key not in ("benchmark", "json")},
        "results": results,
    }


def allocator_settings() -> list[str]:
    """Environment variables of the memory allocator, as a prefix of the command; they change time and peak memory."""
    names = (name for name in sorted(os.environ) if name == "LD_PRELOAD" or name.startswith("MALLOC_"))
    return [f"{name}={shlex.quote(os.environ[name])}" for name in names]


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU and system of this machine."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.*)", info.read_text()) if info.is_file() else None
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def describe(run: Run) -> str:
    """Format machine, settings, versions and commit of a run as a sentence."""
    where = run["machine"]
    settings = run["settings"]
    gpu = f", {where['gpu']}" if where["gpu"] else ""
    return (
        f"{where['processor']}, {where['cores']} cores, {where['memory_gb']:g} GB{gpu}; "
        f"threads {settings['threads']}, device {settings.get('device', 'cpu')}, "
        f"precision {settings.get('precision', 'fp32')}; torch {run['torch']}, Python {run['python']}; "
        f"commit {run['commit'] or 'unknown'}, {run['date']}"
    )


def write_run(path: Path, run: Run) -> None:
    """Write the JSON file of a run."""
    with atomic_write(path) as file:
        json.dump(run, file, indent=1, default=str, ensure_ascii=False)
        file.write("\n")


def read_run(path: Path) -> Run:
    """Read the JSON file of a run.

    Raises:
        ValueError: tools/benchmark.py did not write the file.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        run["benchmark"], run["results"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a file of tools/benchmark.py ({error}): write one with its --json") from error
    return run


def write_plots(folder: Path, prefix: str, plots: dict[str, Figure]) -> list[Path]:
    """Write each plot as ``PREFIX-NAME.png``."""
    paths = []
    for name, figure in plots.items():
        paths.append(folder / f"{prefix}-{name}.png")
        write_png(paths[-1], figure)
    return paths


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``count`` plots side by side."""
    figure = Figure(figsize=(1 + 5 * count, 4), layout="constrained")
    figure.suptitle(title)
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for one in axes:
        one.grid(alpha=0.3)
    return figure, axes


def chunk_cells(result: Mapping[str, Any]) -> list[str]:
    """Cells of a result's chunk with its look-ahead, and of its left context."""
    left = "unlimited" if result["left_chunks"] < 0 else str(result["left_chunks"])
    ahead = f" + {result['lookahead_ms']}" if result.get("lookahead_ms") else ""  # unknown to older files
    return [f"{result['chunk_ms']}{ahead} ms", left]


def add_legend(axes: Axes) -> None:
    """Add a legend if a plot has labels."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def add_machine_options(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """Add --threads, --device and --precision."""
    parser.add_argument(
        "--threads", type=above_zero(int), default=torch.get_num_threads(), help="CPU threads (%(default)s)"
    )
    parser.add_argument("--device", default=str(find_device()), help="cpu, cuda, cuda:1, … (%(default)s)")
    if precision:
        parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="model precision (fp32)")
