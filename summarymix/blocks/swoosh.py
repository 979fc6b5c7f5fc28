"""The Zipformer's activations (arXiv 2310.11230, section 3.4).

    SwooshL(x) = log(1 + exp(x - 4)) - 0.08·x - 0.035
    SwooshR(x) = log(1 + exp(x - 1)) - 0.08·x - 0.313261687

Like Swish, both are a soft hinge with a dip to its left. Unlike Swish, they have a slope of -0.08 far on the left, so
that a very negative unit still learns and can recover. SwooshR(0) = 0: it follows convolutions. SwooshL bends further
right, so that most inputs centred about zero are off: it follows the expansion of a feed-forward module.

Values are computed in float32 or wider, whatever the dtype. The backward pass keeps the input itself, which a
regulariser in front of the activation keeps as well and which takes half of float32's bytes under autocast. PyTorch's
operations would keep x - 4 in float32 and take 13 ms for both passes over 2 million float32 numbers on one core,
against 9 ms here; in bfloat16 both take 14 ms.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from summarymix import optional_k2
from summarymix.blocks.fusion import fused, rows

SLOPE = 0.08  # descent on the far left


def swoosh_l(x: Tensor) -> Tensor:
    """Apply SwooshL to each element, in the dtype of ``x``."""
    return optional_k2.load()[0].swoosh_l(x).to(x.dtype) if _suits_k2(x) else _swoosh(x, _left, _left_gradient)


def swoosh_r(x: Tensor) -> Tensor:
    """Apply SwooshR to each element, in the dtype of ``x``."""
    return optional_k2.load()[0].swoosh_r(x).to(x.dtype) if _suits_k2(x) else _swoosh(x, _right, _right_gradient)


def _suits_k2(x: Tensor) -> bool:
    """True if k2's kernels are used: k2 is installed, and x is on a GPU and requires a gradient.

    On a GPU, memory traffic dominates the cost of an activation. k2 makes one pass instead of one per operation, and
    keeps one byte per element: the derivative, rounded to n/255 up or down at random so that the mean is right. On a
    CPU the exact derivative costs no more. Inputs without gradients use PyTorch's operations, which can be exported;
    so do float64 inputs, because k2 computes in float32.
    """
    return x.is_cuda and x.requires_grad and x.dtype != torch.float64 and optional_k2.supports(x.device)


def _left(x: Tensor) -> Tensor:
    return _formula(x, 4.0, 0.035)


def _left_gradient(x: Tensor, grad: Tensor) -> Tensor:
    return _gradient(x, grad, 4.0)


def _right(x: Tensor) -> Tensor:
    return _formula(x, 1.0, 0.313261687)


def _right_gradient(x: Tensor, grad: Tensor) -> Tensor:
    return _gradient(x, grad, 1.0)


def _swoosh(x: Tensor, formula: Callable[[Tensor], Tensor], gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    # Tracing does not support custom autograd functions.
    is_learning = x.requires_grad and not torch.jit.is_tracing()
    return _Swoosh.apply(x, formula, gradient) if is_learning else formula(x)


def _formula(x: Tensor, bend: float, offset: float) -> Tensor:
    bent = _wide(x) - bend
    # Above its threshold, softplus(z) returns z: at 40 the difference is below the rounding of float64.
    # In place, in fewer passes: 3.3 ms for a million numbers on one core, against 5.3 ms as the formula is written.
    y = F.softplus(bent, threshold=40.0).add_(bent, alpha=-SLOPE).sub_(offset + SLOPE * bend)
    return y.to(x.dtype)


def _gradient(x: Tensor, grad: Tensor, bend: float) -> Tensor:
    return (torch.sigmoid(_wide(x) - bend).sub_(SLOPE) * grad).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _rows(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else rows(x)  # images, in channels-last layout, stay as they are


class _Swoosh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, formula: Callable[[Tensor], Tensor], gradient: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        return fused(formula)(_rows(x)).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return fused(ctx.gradient)(_rows(x), _rows(grad)).view(x.shape), None, None
