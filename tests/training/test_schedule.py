"""Learning rate and loss weights."""

from dataclasses import fields
from itertools import pairwise

import pytest

from summarymix.model import LossConfig
from summarymix.training.schedule import OPTIONS_OF, LossScales, OptimConfig, eden_factor, loss_options, loss_scales
from summarymix.training.schedule import learning_rate as learning_rate_of

CONFIG = OptimConfig(lr=0.1, warmup_steps=10, final_lr_factor=0.02)


def learning_rate(step: int, progress: float, config: OptimConfig) -> float:
    return learning_rate_of(step, 0.0, 0.0, progress, config)


def test_warm_up_is_linear_in_steps_and_starts_above_zero() -> None:
    assert [learning_rate(step, 0.0, CONFIG) for step in (0, 4, 9, 10, 1000)] == pytest.approx(
        [0.01, 0.05, 0.1, 0.1, 0.1]
    )


def test_decay_is_a_function_of_progress_alone_and_complete_at_the_end() -> None:
    rates = [learning_rate(100, progress / 100, CONFIG) for progress in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5))
    assert rates[100] == pytest.approx(0.002)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert learning_rate(10**6, 0.3, CONFIG) == learning_rate(100, 0.3, CONFIG)
    assert learning_rate(100, 1.2, CONFIG) == pytest.approx(0.002)


def test_no_warm_up() -> None:
    assert learning_rate(0, 0.0, OptimConfig(lr=0.1, warmup_steps=0)) == pytest.approx(0.1)


def test_eden_is_its_formula() -> None:
    config = OptimConfig(ref_duration=1000.0, lr_batches=200.0, lr_epochs=3.5, warmup_batches=50.0)
    for seconds, epochs in [(0.0, 0.0), (25e3, 0.1), (50e3, 0.5), (300e3, 3.0), (1e8, 40.0)]:
        b, e = seconds / 1000.0, epochs
        expected = ((b**2 + 200**2) / 200**2) ** -0.25 * ((e**2 + 3.5**2) / 3.5**2) ** -0.25
        expected *= min(1.0, 0.1 + 0.9 * b / 50)
        assert eden_factor(seconds, epochs, config) == pytest.approx(expected)


def test_eden_depends_on_the_audio_and_not_on_the_number_of_steps() -> None:
    """A hundred hours in small steps or in large ones; and the size of a batch is ref_duration alone."""
    config = OptimConfig(name="scaled_adam")
    rates = {learning_rate_of(step, 360e3, 1.0, 0.2, config) for step in (100, 10_000)}
    assert len(rates) == 1
    twice = OptimConfig(name="scaled_adam", ref_duration=1200.0)
    assert learning_rate_of(0, 720e3, 1.0, 0.2, twice) in rates


def test_optimiser_brings_its_schedule_and_peak_along() -> None:
    adamw, scaled = OptimConfig(lr=0.1), OptimConfig(name="scaled_adam", base_lr=0.05)
    assert learning_rate_of(10**6, 1e6, 1.0, 1.0, adamw) == pytest.approx(0.1 * adamw.final_lr_factor)
    assert learning_rate_of(10**6, 1e6, 1.0, 1.0, scaled) == pytest.approx(0.05 * eden_factor(1e6, 1.0, scaled))
    # And either can be had with the other.
    mixed = OptimConfig(name="scaled_adam", schedule="cosine", base_lr=0.05)
    assert learning_rate_of(10**6, 1e6, 1.0, 1.0, mixed) == pytest.approx(0.05 * mixed.final_lr_factor)
    mixed = OptimConfig(name="adamw", schedule="eden", lr=0.1)
    assert learning_rate_of(10**6, 1e6, 1.0, 1.0, mixed) == pytest.approx(0.1 * eden_factor(1e6, 1.0, mixed))


def test_lengths_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--optim\.lr_batches 0 must be above 0"):
        OptimConfig(lr_batches=0)


def test_loss_scales_move_linearly_to_their_values() -> None:
    scales = LossScales(simple=0.5, pruned=1.0, ctc=0.2, consistency=0.1, warmup_steps=2000)
    assert loss_scales(0, scales) == pytest.approx((1.0, 0.1, 0.2, 0.1))
    assert loss_scales(1000, scales) == pytest.approx((0.75, 0.55, 0.2, 0.1))
    assert loss_scales(2000, scales) == pytest.approx((0.5, 1.0, 0.2, 0.1))
    assert loss_scales(10**6, scales) == pytest.approx((0.5, 1.0, 0.2, 0.1))


def test_delay_penalty_begins_after_twice_the_warm_up() -> None:
    options, scales = LossConfig(delay_penalty=0.01, fastemit=0.02), LossScales(warmup_steps=300)
    assert loss_options(599, options, scales) == LossConfig(fastemit=0.02)
    assert loss_options(600, options, scales) == options


def test_options_of_another_optimiser_or_schedule_are_told() -> None:
    """Every option belongs to one of them, or to all."""
    own = {option for options in OPTIONS_OF.values() for option in options}
    assert own | {"name", "schedule", "betas"} == {field.name for field in fields(OptimConfig)}
    changed = {"lr": 0.1, "betas": (0.9, 0.95), "base_lr": 0.02, "warmup_steps": 10, "lr_epochs": 2.0}
    adamw, scaled = ["--optim.lr 0.1", "--optim.warmup_steps 10"], ["--optim.base_lr 0.02", "--optim.lr_epochs 2.0"]
    assert OptimConfig(name="scaled_adam", **changed).without_effect() == adamw
    assert OptimConfig(name="adamw", **changed).without_effect() == scaled
    mixed = OptimConfig(name="scaled_adam", schedule="cosine", **changed)
    assert mixed.without_effect() == ["--optim.lr 0.1", "--optim.lr_epochs 2.0"]
    assert OptimConfig(name="adamw").without_effect() == OptimConfig(name="scaled_adam").without_effect() == []


def test_views_begin_with_the_step_of_the_option() -> None:
    scales = LossScales(consistency=0.1, consistency_after=10)
    assert [scales.num_views(step) for step in (9, 10)] == [1, 2]
