"""Costs of a run."""

import subprocess
import sys

import torch

from summarymix.training.usage import Stopwatch, peak_memory


def test_a_lap_counts_this_process_and_begins_anew():
    watch = Stopwatch()
    torch.randn(400, 400) @ torch.randn(400, 400)
    (wall, cpu), (next_wall, _) = watch.lap(), watch.lap()
    assert cpu > 0
    assert 0 <= next_wall < wall


def test_peak_memory_remembers_what_has_been_freed():
    program = (
        "import torch; from summarymix.training.usage import peak_memory; device = torch.device('cpu');"
        "before = peak_memory(device); torch.ones(100_000_000); print(peak_memory(device) - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 300e6 < grown < 500e6
    assert peak_memory(torch.device("cpu")) > 50e6
