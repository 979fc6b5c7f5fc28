"""Killing of programs: a real one that resumes, and toys that do not."""

import random
import sys
from pathlib import Path

import pytest
import soak

# Writes a file in two parts, with time for a kill between them, and takes a file that is there for a whole one.
CARELESS = """
import pathlib, time
path = pathlib.Path("egs/result.txt")
if not path.exists():
    time.sleep(0.3)
    path.write_text("half")
    time.sleep(0.6)
    path.write_text("whole")
"""
STUBBORN = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(2)"


def toy(folder: Path, code: str) -> soak.Program:
    (folder / "egs").mkdir()
    return soak.Program("toy", [sys.executable, "-c", code], folder)


def test_a_program_that_takes_half_a_file_for_a_whole_one_is_found(tmp_path: Path) -> None:
    outcome = soak.soak(toy(tmp_path, CARELESS), tmp_path / "egs", 6, random.Random(0))
    assert outcome.kills.total() == 6
    assert "result.txt differs" in outcome.differences[0]
    assert (tmp_path / "egs" / "result.txt").read_text() == "whole"


def test_a_program_that_goes_on_after_a_signal_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SECONDS_TO_END", 0.2)
    monkeypatch.setattr(soak, "SIGNALS", soak.SIGNALS[1:])
    outcome = soak.soak(toy(tmp_path, STUBBORN), tmp_path / "egs", 2, random.Random(0))
    assert "it goes on 0.2 s after SIGTERM" in outcome.differences[0]


def test_new_recipe_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(soak, "recipe_programs", lambda folder, all_of=soak.recipe_programs: all_of(folder)[:1])
    monkeypatch.setattr(sys, "argv", ["soak.py", "--kills", "1", "--work-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        soak.main()
    out = capsys.readouterr().out
    assert ended.value.code == 0, out
    assert out.startswith("new_recipe.py: 1 kills (1 SIGKILL), ")
    assert out.endswith(" 0 differences\n")
