"""Runs that diverge are noticed, those that do not are left alone."""

import re
from pathlib import Path

import pytest
from training_toy import run, toy_config

from summarymix.runs import read_checkpoint
from summarymix.training import divergence
from summarymix.training.divergence import MEAN_STEPS, LossWatch
from summarymix.training.schedule import OptimConfig

PATIENCE = 500

# A run of the mini recipe: the mean of every 50 steps, weights of the losses as after warm-up.
HEALTHY = [
    4.04, 2.347, 1.927, 1.453, 1.179, 0.969, 0.796, 0.601, 0.625, 0.454, 0.547, 0.482, 0.387, 0.375, 0.337,
    0.307, 0.277, 0.243, 0.277, 0.205, 0.274, 0.246, 0.212, 0.192, 0.194, 0.172, 0.183, 0.147, 0.164, 0.124,
    0.173, 0.162, 0.139, 0.132, 0.14, 0.128, 0.13, 0.117, 0.124, 0.1, 0.138, 0.113, 0.116, 0.108, 0.103,
    0.103, 0.116, 0.104, 0.093, 0.088, 0.103, 0.101, 0.11, 0.092, 0.092, 0.091, 0.094, 0.088, 0.092, 0.082
]  # fmt: skip


def follow(losses: list[float]) -> LossWatch:
    watch = LossWatch()
    for step, loss in enumerate(losses, 1):
        watch.update(step, loss, 1.0)
    return watch


def with_noise(means: list[float], steps: int = 50) -> list[float]:
    """Losses of single steps with these means: every other one half as large again, the others half of it."""
    return [mean * (1.5 if i % 2 else 0.5) for mean in means for i in range(steps)]


def test_healthy_runs_are_left_alone() -> None:
    watch = LossWatch()
    for step, loss in enumerate(with_noise(HEALTHY), 1):
        watch.update(step, loss, 1.0)
        assert watch.mean < 0.7 * watch.limit or step == 1
    assert watch.high_steps == 0
    assert watch.count == 50 * len(HEALTHY)
    assert watch.start == 0.5 * HEALTHY[0]


def test_mean_is_of_all_steps_and_then_of_the_last_ones() -> None:
    losses = [float(3 + i % 7) for i in range(3 * MEAN_STEPS)]
    assert follow(losses[:60]).mean == pytest.approx(sum(losses[:60]) / 60)
    expected = sum(losses[:MEAN_STEPS]) / MEAN_STEPS
    for loss in losses[MEAN_STEPS:]:
        expected += (loss - expected) / MEAN_STEPS
    assert follow(losses).mean == pytest.approx(expected)


@pytest.mark.parametrize("end", [1.2, 7.0, 1e9], ids=["only priors left", "worse than untrained", "run away"])
def test_loss_that_stays_far_above_its_best(end: float) -> None:
    learnt = with_noise(HEALTHY)
    watch = follow(learnt + [end] * (PATIENCE + 2 * MEAN_STEPS))
    assert watch.high_steps >= PATIENCE
    assert watch.best_step <= len(learnt)
    # It recovers: not the steps above the limit in all, but those in a row.
    for step in range(3000):
        watch.update(step, HEALTHY[-1], 1.0)
    assert watch.high_steps == 0


def test_loss_that_has_never_fallen_and_rises() -> None:
    assert follow([4.0] * 20 + [1e4] * 1000).high_steps >= PATIENCE


def test_a_freak_batch_is_forgotten() -> None:
    watch = follow([*with_noise(HEALTHY), 1e30])
    assert watch.mean < watch.limit
    assert follow([4.0, *[1e30] * 10, *[4.0] * 990]).high_steps < PATIENCE


def test_negative_losses() -> None:
    """A delay penalty makes them."""
    learnt = [4.0 - 4.5 * min(i / 500, 1.0) for i in range(2000)]
    assert follow(learnt).high_steps == 0
    assert follow(learnt + [1.0] * 1000).high_steps >= PATIENCE


def scaled_adam(base_lr: float) -> OptimConfig:
    """Seven epochs of warm-up."""
    return OptimConfig("scaled_adam", base_lr=base_lr, ref_duration=3.0, warmup_batches=60, lr_batches=1e6)


@pytest.fixture
def short_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "MEAN_STEPS", 10)


@pytest.mark.usefixtures("short_mean")
def test_an_absurd_learning_rate_is_explained(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path, num_epochs=20, optim=scaled_adam(5.0), divergence_patience=10, keep_last_k=20, save_every_steps=1000
    )
    with pytest.raises(FloatingPointError) as caught:
        run(config)
    seen, rates, weights, remedy, off = str(caught.value).splitlines()
    last = max(read_checkpoint(path)["progress"]["step"] for path in tmp_path.glob("epoch-*.pt"))
    assert "has been above" in seen
    assert "for 10 steps. It was" in seen
    assert rates.startswith("The learning rate is ")
    assert "changed most since a sound checkpoint" in weights
    assert weights.count(" and ") == 1 + 3
    found = re.match(rf"Go back to {tmp_path}/epoch-(\d)\.pt \(step (\d+)\) by removing (.*); and", remedy)
    assert found is not None
    epoch = int(found[1])
    assert int(found[2]) == 8 * epoch
    later = range(epoch + 1, last // 8 + 1)
    assert found[3] == ", ".join(f"{tmp_path}/epoch-{later_epoch}.pt" for later_epoch in later)
    # What is gone back to is from before, what is to be removed is not.
    losses = [h["valid"]["offline"]["loss"] for h in read_checkpoint(tmp_path / f"epoch-{last // 8}.pt")["history"]]
    assert max(losses[:epoch]) < losses[0] * 1.5 < losses[-1]
    assert "--optim.base_lr below 5, --optim.warmup_batches above 60, --optim.clipping_scale below 2" in remedy
    assert "--divergence_patience null" in off


@pytest.mark.usefixtures("short_mean")
def test_without_a_sound_checkpoint_the_largest_weights_are_named(tmp_path: Path) -> None:
    optim = OptimConfig(lr=30.0, warmup_steps=60)
    config = toy_config(tmp_path, num_epochs=8, optim=optim, divergence_patience=10, save_every_steps=1000)
    with pytest.raises(FloatingPointError, match="The largest weights") as caught:
        run(config)
    assert "start again, with another --exp_dir" in str(caught.value)
    assert "--optim.lr below 30, --optim.warmup_steps above 60, --optim.clip_norm below 5." in str(caught.value)


@pytest.mark.usefixtures("short_mean")
@pytest.mark.parametrize("optim", [scaled_adam(0.05), OptimConfig(lr=1e-2, warmup_steps=10)], ids=["scaled", "muon"])
def test_sound_training_goes_on(tmp_path: Path, optim: OptimConfig) -> None:
    progress, _ = run(toy_config(tmp_path, num_epochs=4, optim=optim, divergence_patience=2))
    assert progress.step == progress.loss_watch["count"] == 32


@pytest.mark.usefixtures("short_mean")
def test_stopping_can_be_switched_off(tmp_path: Path) -> None:
    progress, _ = run(toy_config(tmp_path, num_epochs=6, optim=scaled_adam(5.0), divergence_patience=None))
    assert progress.step == 48
    assert progress.loss_watch["high_steps"] > 10
    with pytest.raises(ValueError, match="--divergence_patience 0 must be at least 1"):
        toy_config(tmp_path, divergence_patience=0)
