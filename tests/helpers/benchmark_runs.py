"""Runs of tools/benchmark.py and tools/report.py in this process."""

import json
import sys
from pathlib import Path

import benchmark
import pytest
import report


def run_benchmark(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Run a subcommand, check the page of its file, and return the content of the file."""
    path = folder / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *command.split(), "--json", str(path)])
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    benchmark.main()
    run = json.loads(path.read_text())
    assert run["command"] == f"MALLOC_ARENA_MAX=2 tools/benchmark.py {command} --json {path}"
    assert {"machine", "torch", "commit", "settings", "results"} <= run.keys()
    plots = sorted(folder.glob("figures-*.png"))
    assert plots

    monkeypatch.setattr(sys, "argv", ["report.py", str(path), "--out", str(folder / "page")])
    report.main()
    page = (folder / "page" / "README.md").read_text()
    assert run["command"] in page
    for table in benchmark.SUBCOMMANDS[run["benchmark"]].tables(run):
        assert table.render(markdown=True) in page
    assert [plot.name for plot in sorted((folder / "page").glob("*.png"))] == [plot.name for plot in plots]
    assert all(f"]({plot.name})" in page for plot in plots)
    return run
