"""Learning curves of a toy run, and when made-up runs took off."""

import json
from pathlib import Path

import pytest
from training_toy import run as train
from training_toy import toy_config

from summarymix.training.curves import Curve, Point, read_curve, take_off_table

SCRIPT = "local/learning_curves.py"


def curve(name: str, *wers: tuple[float, float]) -> Curve:
    points = [Point(100 * i, 1.5 * i, 0.7 * i, wer, ctc_wer, 0.5) for i, (wer, ctc_wer) in enumerate(wers, 1)]
    return Curve(name, "train.py", points)


def test_take_off_is_the_first_of_either_head() -> None:
    risen = curve("a", (100.0, 100.0), (95.0, 79.9), (81.0, 85.0), (55.0, 70.0))
    header, row, flat = take_off_table([risen, curve("b", (100.0, 99.0))], [80, 60])
    cells = dict(zip(header, row, strict=True))
    assert (cells["WER < 80 %: updates"], cells["WER < 60 %: updates"]) == ("200", "400")
    assert row[1:7] == ["200", "3.0", "1.4", "400", "6.0", "2.8"]
    assert row[7:] == ["6.0", "2.8", "55.0", "70.0", "0.500"]
    assert flat[1:7] == ["–"] * 6


def test_a_run_is_read_kept_and_drawn(run, tmp_path: Path) -> None:
    train(toy_config(tmp_path / "toy", num_epochs=2, valid_every_steps=4))
    found = read_curve(tmp_path / "toy")
    assert [point.step for point in found.points] == [4, 8, 12, 16]  # at the epochs' ends once
    records = [json.loads(line) for line in (tmp_path / "toy" / "log.jsonl").read_text().splitlines()]
    offline = [r for r in records if r["kind"] == "valid" and r["setting"] == "offline" and r["step"] == 12]
    assert found.points[2].wer == pytest.approx(offline[0]["wer"], abs=0.01)
    hours = [point.hours for point in found.points]
    assert hours == sorted(hours)

    files = ["--json", tmp_path / "curves.json", "--plot", tmp_path / "curves.png"]
    made = run(SCRIPT, tmp_path / "toy", *files)
    assert made.code == 0, made.err
    assert "| toy " in made.out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert run(SCRIPT, *files).out == made.out  # from what is kept


def test_a_log_without_error_rates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"kind": "start", "step": 0}\n')
    with pytest.raises(ValueError, match="no validation with error rates"):
        read_curve(tmp_path)


def test_two_runs_of_one_name_are_refused(run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        train(toy_config(tmp_path / folder / "exp", num_epochs=1))
    done = run(SCRIPT, tmp_path / "a" / "exp", tmp_path / "b" / "exp")
    assert done.code != 0
    assert "Several folders are called exp" in done.err
