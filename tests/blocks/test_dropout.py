"""Dropout against torch's, by what it is for: how much is dropped, and that the mean stays."""

import pytest
import torch
from torch import nn

from summarymix.blocks.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_zeros_and_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(3, 101, 999, dtype=torch.float64)
    y = Dropout(p)(x)
    dropped = y == 0
    assert float(dropped.double().mean()) == pytest.approx(p, abs=0.005)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)
    assert y.unique().numel() == 2
    # Neighbours, which are bytes of one number, are independent.
    assert float((dropped[..., 1:] & dropped[..., :-1]).double().mean()) == pytest.approx(p * p, abs=0.005)


def test_gradient_goes_through_what_is_kept() -> None:
    x = torch.randn(7, 13, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_nothing_happens_in_evaluation_or_without_probability() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not Dropout(1.0)(x).any()
    assert Dropout(0.5)(torch.randn(0, 3)).shape == (0, 3)


def test_masks_are_a_function_of_the_seed() -> None:
    x, dropout = torch.randn(9, 50), Dropout(0.5)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(dropout(x))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_half_precision_keeps_its_type() -> None:
    assert Dropout(0.2)(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(Dropout(0.2), nn.Dropout)
