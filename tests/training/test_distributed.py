"""Two processes train what one process trains that accumulates two batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_toy import ToyData, run, toy_config

from summarymix.training.checkpoint import read_checkpoint

PROGRAM = str(Path(__file__).with_name("training_toy.py"))


def torchrun(exp_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", PROGRAM]
    # No GPU: this tests gloo.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(exp_dir), *options], capture_output=True, text=True, env=environment, timeout=300
    )


def test_two_gloo_processes_equal_one(tmp_path: Path) -> None:
    two = torchrun(tmp_path / "two")
    assert two.returncode == 0, two.stderr
    run(toy_config(tmp_path / "one", accumulate=2))
    a, b = (read_checkpoint(tmp_path / name / "epoch-2.pt") for name in ("one", "two"))
    assert a["progress"]["step"] == b["progress"]["step"] == 8
    for name, value in a["model"].items():
        torch.testing.assert_close(value, b["model"][name], rtol=1e-4, atol=1e-5)
    for one, other in zip(a["history"], b["history"], strict=True):
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-4)
        for setting in one["valid"]:
            assert one["valid"][setting] == pytest.approx(other["valid"][setting], rel=1e-4)


def test_two_processes_agree_on_bad_data_and_resume(tmp_path: Path) -> None:
    """One process meets NaN in an utterance, in a whole batch, and a batch of nothing; the other goes on."""
    first = torchrun(tmp_path, "--num_epochs=1", "--spoil=1")
    assert first.returncode == 0, first.stderr
    second = torchrun(tmp_path, "--spoil=1")
    assert second.returncode == 0, second.stderr
    assert "Resuming from" in second.stderr
    progress = read_checkpoint(tmp_path / "epoch-2.pt")["progress"]
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert kinds.count("start") == 2
    assert (progress["step"], progress["skipped"], progress["left_out"]) == (8, 0, 8)
    # The same from one process, which meets the same batches two by two.
    for num_epochs in (1, 2):
        run(toy_config(tmp_path / "one", accumulate=2, num_epochs=num_epochs), ToyData(spoil=True))
    a, b = (read_checkpoint(exp_dir / "epoch-2.pt")["model"] for exp_dir in (tmp_path, tmp_path / "one"))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


def test_failure_of_one_process_ends_the_other(tmp_path: Path) -> None:
    failed = torchrun(tmp_path, "--fail-on-rank=1")
    assert failed.returncode != 0
    assert "this process fails" in failed.stderr
