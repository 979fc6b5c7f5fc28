"""Costs of a run."""

import subprocess
import sys

import pytest
import torch

from summarymix.training import usage
from summarymix.training.usage import peak_memory


def test_a_lap_counts_from_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"monotonic": [10.0, 12.5, 13.0], "process_time": [1.0, 4.0, 4.0]}
    for name, times in clocks.items():
        monkeypatch.setattr(usage.time, name, iter(times).__next__)
    watch = usage.Stopwatch()
    assert watch.lap() == (2.5, 3.0)
    assert watch.lap() == (0.5, 0.0)


def test_peak_memory_remembers_what_has_been_freed():
    program = (
        "import torch; from summarymix.training.usage import peak_memory; device = torch.device('cpu');"
        "before = peak_memory(device); torch.ones(100_000_000); print(peak_memory(device) - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 300e6 < grown < 500e6
    assert peak_memory(torch.device("cpu")) > 50e6
