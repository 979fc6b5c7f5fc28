"""Learning rate and loss weights."""

from itertools import pairwise

import pytest

from summarymix.training.schedule import LossScales, OptimConfig, learning_rate, loss_scales

CONFIG = OptimConfig(lr=0.1, warmup_steps=10, final_lr_factor=0.02)


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


def test_loss_scales_move_linearly_to_their_values() -> None:
    scales = LossScales(simple=0.5, pruned=1.0, ctc=0.2, warmup_steps=2000)
    assert loss_scales(0, scales) == pytest.approx((1.0, 0.1, 0.2))
    assert loss_scales(1000, scales) == pytest.approx((0.75, 0.55, 0.2))
    assert loss_scales(2000, scales) == pytest.approx((0.5, 1.0, 0.2))
    assert loss_scales(10**6, scales) == pytest.approx((0.5, 1.0, 0.2))
