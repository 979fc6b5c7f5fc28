"""SwooshL and SwooshR against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from summarymix import optional_k2
from summarymix.blocks.swoosh import swoosh_l, swoosh_r

BOTH = [(swoosh_l, 4.0, 0.035), (swoosh_r, 1.0, 0.313261687)]
POINTS = [-1e4, -800.0, -90.0, -20.0, -3.0, -1e-3, 0.0, 0.5, 1.0, 4.0, 17.0, 24.5, 43.9, 90.0, 800.0, 1e4]
# Half-precision inputs are exact in these.
DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-7), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]


def value(x: float, bend: float, offset: float) -> float:
    z = x - bend
    return max(z, 0.0) + math.log1p(math.exp(-abs(z))) - 0.08 * x - offset


def slope(x: float, bend: float) -> float:
    z = x - bend
    return (1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))) - 0.08


@pytest.mark.parametrize(("function", "bend", "offset"), BOTH)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_values_and_slopes_are_those_of_the_formula_up_to_extremes(
    function, bend, offset, dtype, tolerance, requires_grad
):
    x = torch.tensor(POINTS, dtype=dtype, requires_grad=requires_grad)
    y = function(x)
    assert y.dtype == dtype
    expected = torch.tensor([value(float(point), bend, offset) for point in x.detach()], dtype=torch.float64)
    torch.testing.assert_close(y.detach().double(), expected, rtol=tolerance, atol=tolerance)
    if requires_grad:
        y.backward(torch.full_like(y, 3.0))
        assert x.grad is not None
        assert x.grad.dtype == dtype
        expected = 3 * torch.tensor([slope(float(point), bend) for point in x.detach()], dtype=torch.float64)
        torch.testing.assert_close(x.grad.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("function", "bend", "offset"), BOTH)
def test_gradients_are_derivatives(function, bend, offset):
    x = (bend + 3 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradcheck(lambda x: function(x.transpose(0, 1)), x), "strides of another order"


def test_autocast_changes_neither_dtype_nor_digits():
    x = torch.randn(100, requires_grad=True)
    narrow = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, z = swoosh_l(x), swoosh_l(narrow)
    assert (y.dtype, z.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(y, swoosh_l(x), rtol=0, atol=0)
    # Once rounded, not several times.
    torch.testing.assert_close(z, swoosh_l(narrow.float()).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_but_the_input_is_kept(dtype):
    kept: list[Tensor] = []
    x = torch.randn(50, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        swoosh_r(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


def test_can_be_exported():
    """Of a model whose weights require gradients too."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return swoosh_l(swoosh_r(self.linear(x)))

    x, model = 5 * torch.randn(3, 4), Both().eval()
    for exported in (torch.export.export(model, (x,)).module(), torch.jit.trace(model, x)):
        torch.testing.assert_close(exported(x), model(x))


def test_equals_k2s():
    module, reason = optional_k2.load()
    if module is None:
        pytest.skip(f"k2: {reason}")
    x = torch.linspace(-100, 100, 4001, requires_grad=True)
    torch.testing.assert_close(swoosh_l(x), module.swoosh_l(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(swoosh_r(x), module.swoosh_r(x), rtol=1e-6, atol=1e-6)
