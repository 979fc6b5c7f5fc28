"""What training writes down."""

import json
import logging
import math
from pathlib import Path

import pytest

from summarymix.training.log import TrainingLog


def test_lines_are_there_at_once_and_hold_any_number(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "exp", rank=0, tensorboard=False)
    log.record("valid", 3, setting="offline", loss=math.nan)
    log.record("train", 4, loss=0.1 + 0.2)
    first, second = (json.loads(line) for line in (tmp_path / "exp" / "log.jsonl").read_text().splitlines())
    assert (first["kind"], first["step"], first["setting"]) == ("valid", 3, "offline")
    assert math.isnan(first["loss"])
    assert second == {"kind": "train", "step": 4, "loss": 0.1 + 0.2}
    assert log.lines == 2


def test_other_processes_speak_but_do_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(tmp_path / "exp", rank=2, tensorboard=True)
    log.record("train", 1, loss=1.0)
    log.say("a warning")
    log.close()
    assert not (tmp_path / "exp").exists()
    assert capsys.readouterr().err == "[rank 2] a warning\n"


def test_bar_counts_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, rank=0, tensorboard=False).bar("epoch 1/2", 100.0, 25.0) as bar:
        bar.mininterval = 0
        bar.set_postfix(loss="1.5", lr="1.0e-03", refresh=False)
        bar.update(25.0)
    shown = capsys.readouterr().err
    assert "epoch 1/2  50%" in shown
    assert "s of audio/s, loss=1.5, lr=1.0e-03" in shown


@pytest.mark.parametrize("rank", [0, 1])
def test_warnings_of_the_library_come_from_one_process_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    for _ in range(2):  # a second run in the same process
        TrainingLog(tmp_path, rank=rank, tensorboard=False)
    logging.getLogger("summarymix.training.scaled_adam").warning("norms of %d", 5)
    assert capsys.readouterr().err == ("norms of 5\n" if rank == 0 else "")
