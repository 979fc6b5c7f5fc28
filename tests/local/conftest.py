"""Stage scripts called in the tests' own process."""

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "local"


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path: Path):
    """Calls a stage script in ``tmp_path``; in this process, because loading torch and lhotse takes seconds."""

    def call(script: str, *options: object) -> Result:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
        status: str | int | None = 0
        try:
            runpy.run_path(str(LOCAL / script), run_name="__main__")
        except SystemExit as exit_:
            status = exit_.code
        out, err = capsys.readouterr()
        return Result(1, out, err + status) if isinstance(status, str) else Result(status or 0, out, err)

    return call
