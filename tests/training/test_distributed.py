"""Two processes, on one machine or on two, train what one process trains that accumulates two batches."""

import json
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import training_toy
from programs import Program, run_in_parallel
from torch.distributed import TCPStore
from training_toy import ToyData, run, toy_config

from summarymix.runs import read_checkpoint
from summarymix.training.cli import main
from summarymix.training.run import Run
from summarymix.training.step import Step

PROGRAM = str(Path(training_toy.__file__))

# train.py that writes down which cuts each process got.
SPYING_TRAIN_PY = """
import sys
from summarymix.data.training_data import TrainData
from summarymix.training.cli import main

epoch_of = TrainData.epoch

def epoch(self, epoch, rank=0, *rest):
    for batch in epoch_of(self, epoch, rank, *rest):
        with open(f"cuts-{epoch}-{rank}", "a") as file:
            print(*batch.cut_ids, sep="\\n", file=file)
        yield batch

TrainData.epoch = epoch
main("toy", sys.argv[1:])
"""


class Torchrun:
    """Starts a program with its arguments on one machine in two processes, or on two "machines" in one process each."""

    def __init__(self, fast_python: dict[str, str]) -> None:
        # No GPU: this tests gloo.
        self.environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self.environment["PYTHON_EXEC"] = shutil.which("python", path=fast_python["PATH"])  # of the processes

    def __call__(self, *nodes: list[str], max_restarts: int = 0) -> tuple[bool, str]:
        """Run it.

        Returns:
            Whether all went well, and what they said.
        """
        if len(nodes) == 1:
            options = ["--standalone", "--nproc-per-node=2"]
        else:
            # The store is here, because a torchrun that had it could end before the other one reports.
            store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-conf=is_host=0"]
            options.append(f"--rdzv-endpoint=localhost:{store.port}")
        command = [Path(sys.executable).with_name("torchrun"), f"--max-restarts={max_restarts}", *options]
        agents = [Program([*command, *node], self.environment) for node in nodes]
        done = [agent.wait() for agent in agents]
        return all(one.returncode == 0 for one in done), "".join(one.stderr for one in done)


@pytest.fixture
def torchrun(fast_python: dict[str, str]) -> Torchrun:
    return Torchrun(fast_python)


def check_equals_one_process(exp_dir: Path) -> None:
    """Compare the toy training in ``exp_dir`` with that of one process."""
    run(toy_config(exp_dir / "one", accumulate=2))
    a, b = (read_checkpoint(folder / "epoch-2.pt") for folder in (exp_dir / "one", exp_dir))
    assert a["progress"]["step"] == b["progress"]["step"] == 8
    for name, value in a["model"].items():
        torch.testing.assert_close(value, b["model"][name], rtol=1e-6, atol=1e-6)
    for one, other in zip(a["history"], b["history"], strict=True):
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-4)
        for setting in one["valid"]:
            assert one["valid"][setting] == pytest.approx(other["valid"][setting], rel=1e-4)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    went_well, said = run_in_parallel(*[[PROGRAM, tmp_path]] * 2)
    assert went_well, said
    assert "Grad strides" not in said
    check_equals_one_process(tmp_path)


def test_restarts_after_a_kill_end_as_undisturbed(torchrun: Torchrun, tmp_path: Path) -> None:
    """The second process is killed in step 6; after the restart there are fewer steps, so it is not killed again."""
    kill = [f"--send={int(signal.SIGKILL)}", "--send-in-step=6", "--save_every_steps=5"]
    went_well, said = torchrun(*[[PROGRAM, str(tmp_path), *kill]] * 2, max_restarts=1)
    assert went_well, said
    assert said.count("exitcode: -9") == 1
    assert f"Resuming from {tmp_path}/checkpoint-5.pt: epoch 2, step 5" in said
    check_equals_one_process(tmp_path)


def test_two_processes_share_a_corpus(recipe: Path) -> None:
    """No utterance twice, none lost; the main process alone writes."""
    (recipe / "train.py").write_text(SPYING_TRAIN_PY)
    command = ["train.py", "--exp-dir", "exp", "--num-epochs", "2", "--scan-memory", "true"]
    went_well, said = run_in_parallel(command, command)
    assert went_well, said
    for epoch in (1, 2):
        shares = [Path(f"cuts-{epoch}-{rank}").read_text().split() for rank in (0, 1)]
        assert all(shares)
        # Of twelve, one has no transcript and one cannot be read.
        expected = {f"train-{i}" for i in range(12)} - {"train-3", "train-5"}
        assert Counter(shares[0] + shares[1]) == Counter(expected)
    starts = [line for line in Path("exp/log.jsonl").read_text().splitlines() if '"start"' in line]
    assert len(starts) == 1
    assert said.count("Training has ended") == 1


def test_another_number_of_processes_continues_the_epoch(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[str] = []
    update = Run.update

    def spy(self: Run, step: Step) -> None:
        before.extend(cut_id for batch in step.group for cut_id in batch.cut_ids)
        update(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", spy)
        main("toy", ["--exp-dir", "exp", "--max-steps", "2"])
    assert 0 < len(before) < 10
    (recipe / "train.py").write_text(SPYING_TRAIN_PY)
    went_well, said = run_in_parallel(*[["train.py", "--exp-dir", "exp", "--num-epochs", "1"]] * 2)
    assert went_well, said
    assert "Epoch 1 continues with the cuts that are left, in new batches: processes was 1 and is 2" in said
    expected = {f"train-{i}" for i in range(12)} - {"train-3", "train-5"}
    after = " ".join(Path(f"cuts-1-{rank}").read_text() for rank in (0, 1)).split()
    assert Counter(before + after) == Counter(expected)


def test_process_that_does_not_see_the_checkpoint_is_told(tmp_path: Path) -> None:
    """Were it to begin anew, it would train on other batches than the rest."""
    run(toy_config(tmp_path / "here", num_epochs=1, accumulate=2))
    before = (tmp_path / "here" / "epoch-1.pt").read_bytes()
    went_well, said = run_in_parallel([PROGRAM, tmp_path / "here"], [PROGRAM, tmp_path / "elsewhere"])
    assert not went_well
    assert "do not agree on the step to resume from" in said
    assert "must be one folder that all processes share" in said
    assert (tmp_path / "here" / "epoch-1.pt").read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_two_processes_agree_on_bad_data_and_resume(tmp_path: Path) -> None:
    """One process meets NaN in an utterance, in a whole batch, and a batch of nothing; the other goes on."""
    went_well, said = run_in_parallel(*[[PROGRAM, tmp_path, "--num_epochs=1", "--spoil=1"]] * 2)
    assert went_well, said
    went_well, said = run_in_parallel(*[[PROGRAM, tmp_path, "--spoil=1"]] * 2)
    assert went_well, said
    assert "Resuming from" in said
    progress = read_checkpoint(tmp_path / "epoch-2.pt")["progress"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("start") == 2
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [(line["unreadable"], line["unreadable_noise"]) for line in epochs] == [(4, 1), (4, 1)]
    assert said.count("epoch 2: unreadable utterances: 4, unreadable pieces of noise: 1 (listed in ") == 1
    assert (progress["step"], progress["skipped"], progress["left_out"]) == (8, 0, 8)
    left_out = [cut_id for line in lines if line["kind"] == "left_out" for cut_id in line["cut_ids"]]
    assert len(left_out) == len(set(left_out)) == 8  # of both processes
    # The same from one process, which meets the same batches two by two.
    for num_epochs in (1, 2):
        config = toy_config(tmp_path / "one", accumulate=2, num_epochs=num_epochs)
        run(config, ToyData(spoil=True))
    a, b = (read_checkpoint(exp_dir / "epoch-2.pt")["model"] for exp_dir in (tmp_path, tmp_path / "one"))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


def test_processes_stop_together_if_one_is_told_to(torchrun: Torchrun, tmp_path: Path) -> None:
    program = [PROGRAM, str(tmp_path), f"--send={int(signal.SIGTERM)}"]
    for start, moment, step in ((torchrun, "--send-in-step=2", 2), (run_in_parallel, "--send-in-validation=1", 4)):
        went_well, said = start(*[[*program, moment]] * 2)
        assert not went_well
        assert said.count(f"Stopped by SIGTERM: epoch 1, step {step} is saved in {tmp_path}") == 1
        assert start is run_in_parallel or said.count("exitcode  : 143") == 2
        assert [path.name for path in tmp_path.glob("*.pt")] == [f"checkpoint-{step}.pt"]


def test_processes_with_other_options_are_refused(tmp_path: Path) -> None:
    """The places of data, and what only one machine needs, may differ."""
    went_well, said = run_in_parallel(*[[PROGRAM, tmp_path, f"--seed={seed}"] for seed in (1, 2)])
    assert not went_well
    assert "ValueError: The 2 processes do not agree on their options: start all of them with the same ones" in said
    assert not list(tmp_path.glob("*.pt"))


def test_failure_of_one_process_ends_the_other(torchrun: Torchrun, tmp_path: Path) -> None:
    went_well, said = torchrun([PROGRAM, str(tmp_path), "--fail-on-rank=1"])
    assert not went_well
    assert "this process fails" in said
