"""A run that is killed, however and whenever, ends with the numbers of one that is not."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toy
from programs import Program, run_program
from training_toy import ToyData, run, toy_config

from summarymix.runs import read_checkpoint, save_checkpoint
from summarymix.training.config import TrainConfig
from summarymix.training.schedule import LossScales, OptimConfig

PROGRAM = training_toy.__file__
OPTIONS = ["--num_epochs=3", "--accumulate=2"]  # 12 steps, checkpoints after 3, 4 (epoch), 6, 8 (epoch), 9, 12 (epoch)


def assert_same_run(one: Path, other: Path) -> None:
    """Final checkpoints equal in every bit, logs in every number that is no time."""

    def compare(a: Any, b: Any, where: str) -> None:
        assert type(a) is type(b), where
        if isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, list):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}.{i}")
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        else:
            assert a == b, where

    def comparable(path: Path) -> dict[str, Any]:
        checkpoint = read_checkpoint(path)
        del checkpoint["config"]["exp_dir"]
        for name in ("log_lines", "wall_seconds", "cpu_seconds", "line_start"):
            del checkpoint["progress"][name]
        return checkpoint

    names = sorted(path.name for path in one.glob("*.pt"))
    assert names == sorted(path.name for path in other.glob("*.pt"))
    for name in names:
        compare(comparable(one / name), comparable(other / name), name)

    def numbers(exp_dir: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (exp_dir / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if line["kind"] in ("valid", "epoch", "left_out", "skipped")]

    assert numbers(one) == numbers(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp_dir = tmp_path_factory.mktemp("uninterrupted")
    run(toy_config(exp_dir, num_epochs=3, accumulate=2))
    return exp_dir


def test_killed_while_writing_checkpoints(tmp_path: Path, uninterrupted: Path) -> None:
    # The second write is epoch 1's end, the first of a resumed run is that again, or one within an epoch.
    for number in (2, 1):
        killed = run_program(PROGRAM, tmp_path, f"--die-in-write={number}", *OPTIONS)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert list(tmp_path.glob(".*.part"))
    resumed = run_program(PROGRAM, tmp_path, *OPTIONS)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming from" in resumed.stderr
    assert not list(tmp_path.glob(".*.part"))
    assert_same_run(uninterrupted, tmp_path)


def test_killed_at_random_moments(tmp_path: Path, uninterrupted: Path) -> None:
    rng = random.Random()
    kills = 0
    for attempt in range(2):
        lines = len((tmp_path / "log.jsonl").read_text().splitlines()) if attempt else 0
        program = Program([PROGRAM, tmp_path, *OPTIONS])
        # Wait for it to get going, or the kills would all hit its start.
        deadline = time.monotonic() + 60
        log = tmp_path / "log.jsonl"
        while program.is_running() and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) > lines:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        program.kill()
        kills += program.wait().returncode == -signal.SIGKILL
    assert kills > 0
    resumed = run_program(PROGRAM, tmp_path, *OPTIONS)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim": OptimConfig(name="adamw")},
        {"optim": OptimConfig(name="scaled_adam")},
        {"scales": LossScales(consistency=0.2, warmup_steps=6)},
    ],
    ids=["muon", "adamw", "scaled_adam", "two views"],
)
def test_each_step_is_a_place_to_resume(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Without a process of its own: interrupted after every single batch group, checkpoints after every step."""

    class Killed(BaseException):
        pass

    class Interrupted(ToyData):
        left = 100

        def batch(self, epoch: int, number: int) -> Any:
            if epoch > 0:
                if self.left == 0:
                    raise Killed
                self.left -= 1
            return super().batch(epoch, number)

    def config(exp_dir: Path) -> TrainConfig:
        return toy_config(exp_dir, num_epochs=2, accumulate=2, save_every_steps=1, **changes)

    data = Interrupted()
    for _ in range(40):
        data.left = 2
        try:
            progress, _ = run(config(tmp_path), data)
        except Killed:
            continue
        break
    assert progress.step == 8
    expected = tmp_path / "expected"
    run(config(expected))
    assert_same_run(expected, tmp_path)


def test_more_epochs_continue_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(toy_config(tmp_path, num_epochs=1))
    progress, _ = run(toy_config(tmp_path, num_epochs=2))
    assert (progress.epoch, progress.step) == (3, 16)
    assert "Options changed since that checkpoint: num_epochs was 1 and is 2" in capsys.readouterr().err


def test_a_finished_run_refuses_other_options(tmp_path: Path) -> None:
    """They would have no effect. Its folder may move."""
    run(toy_config(tmp_path / "old", num_epochs=1))
    before = (tmp_path / "old" / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"has ended, .* no effect: seed was 42 and is 7\. Give its own options, more"):
        run(toy_config(tmp_path / "old", num_epochs=1, seed=7))
    (tmp_path / "old").rename(tmp_path / "new")
    progress, _ = run(toy_config(tmp_path / "new", num_epochs=1))
    assert progress.step == 8
    assert (tmp_path / "new" / "config.yaml").read_text() == before


def test_options_newer_than_a_finished_run_have_their_defaults(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=1))
    path = tmp_path / "epoch-1.pt"
    checkpoint = read_checkpoint(path)
    config = checkpoint["config"]
    del config["max_bad_steps"], config["optim"]["clip_norm"], config["scales"]
    save_checkpoint(path, checkpoint)
    with pytest.raises(ValueError, match=r"no effect: scales.warmup_steps was 2000 and is 6\. Give"):
        run(toy_config(tmp_path, num_epochs=1))
    config["scales"] = {"warmup_steps": 6}
    save_checkpoint(path, checkpoint)
    progress, _ = run(toy_config(tmp_path, num_epochs=1))
    assert progress.step == 8


def test_log_lines_of_steps_that_are_taken_again_are_dropped(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=1))
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    with open(log, "a") as file:
        file.write('{"kind": "train", "step": 9, "lr": 1}\n{"kind": "tr')  # and one that was being written
    run(toy_config(tmp_path, num_epochs=2))
    after = [json.loads(line) for line in log.read_text().splitlines()]
    assert [json.dumps(line) for line in after[: len(lines)]] == lines
    assert after[len(lines)]["kind"] == "start"
    steps = [line["step"] for line in after if line["kind"] == "train"]
    assert steps == [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_saves_and_continues(tmp_path: Path, uninterrupted: Path, number: signal.Signals) -> None:
    """During a step, and in the validation after an epoch; the signal comes twice, as from a batch system."""
    for moment in ("--send-in-step=3", "--send-in-validation=1"):
        stopped = run_program(PROGRAM, tmp_path, moment, f"--send={int(number)}", *OPTIONS)
        assert stopped.returncode == 128 + number, stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert f"Stopped by {number.name}: epoch " in stopped.stderr.splitlines()[-1]
        assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 1
    resumed = run_program(PROGRAM, tmp_path, *OPTIONS)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(uninterrupted, tmp_path)


def test_validation_within_an_epoch_is_repeated_if_it_was_interrupted(tmp_path: Path) -> None:
    options = [*OPTIONS, "--valid_every_steps=3"]
    run(toy_config(tmp_path / "whole", num_epochs=3, accumulate=2, valid_every_steps=3))
    program = [PROGRAM, tmp_path / "stopped", *options]
    for send in (["--send-in-validation=1"], ["--send-in-validation=1"], []):  # the second while it is repeated
        done = run_program(*program, *send, f"--send={int(signal.SIGTERM)}")
        assert done.returncode == (128 + signal.SIGTERM if send else 0), done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
