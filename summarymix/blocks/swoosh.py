"""The Zipformer's activations (arXiv 2310.11230, section 3.4).

    SwooshL(x) = log(1 + exp(x - 4)) - 0.08·x - 0.035
    SwooshR(x) = log(1 + exp(x - 1)) - 0.08·x - 0.313261687

Like Swish they are a soft hinge with a dip to its left. Unlike Swish's, their slope does not vanish far on the left,
where it is -0.08, so that a unit which has become very negative still learns and can come back. SwooshR(0) = 0: it
follows convolutions. SwooshL has its bend further right, so most of what comes in centred about zero is off: it follows
the expansion of a feed-forward module.

Values are computed in float32 or wider whatever the dtype. For the backward pass the input is kept as it is, which a
regulariser in front of the activation keeps as well, and which takes half of float32's bytes under autocast. Through
PyTorch's operations it would be x - 4 in float32, and the two passes would take 13 ms for 2 million float32 numbers on
one core, for 9 ms here; in bfloat16 there is no difference (14 ms).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from summarymix import optional_k2

SLOPE = 0.08  # by which the left falls


def swoosh_l(x: Tensor) -> Tensor:
    """SwooshL of each element, in the dtype of ``x``."""
    return optional_k2.load()[0].swoosh_l(x).to(x.dtype) if _suits_k2(x) else _swoosh(x, 4.0, 0.035)


def swoosh_r(x: Tensor) -> Tensor:
    """SwooshR of each element, in the dtype of ``x``."""
    return optional_k2.load()[0].swoosh_r(x).to(x.dtype) if _suits_k2(x) else _swoosh(x, 1.0, 0.313261687)


def _suits_k2(x: Tensor) -> bool:
    """Whether k2's kernels are to be used, where k2 is installed.

    For training on GPUs, where an activation costs as much as it moves memory: k2 makes one pass over it instead of
    one for each operation, and keeps one byte of an element, its derivative rounded to a 255th, up or down at random so
    that the mean is right. On a CPU the exact derivative costs no more. What takes no gradients keeps to PyTorch's
    operations, which can be exported; k2 computes in float32, so float64 does too.
    """
    return x.is_cuda and x.requires_grad and x.dtype != torch.float64 and optional_k2.supports(x.device)


def _swoosh(x: Tensor, bend: float, offset: float) -> Tensor:
    # Tracing takes no functions with backward passes of their own.
    is_learning = x.requires_grad and not torch.jit.is_tracing()
    return _Swoosh.apply(x, bend, offset) if is_learning else _formula(x, bend, offset)


def _formula(x: Tensor, bend: float, offset: float) -> Tensor:
    wide = _wide(x)
    # Beyond its threshold, softplus(z) is z: at 40 the difference is below the rounding of float64.
    y = F.softplus(wide - bend, threshold=40.0) - SLOPE * wide - offset
    return y.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """In float32, or float64 for such input."""
    return x if x.dtype == torch.float64 else x.float()


class _Swoosh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bend: float, offset: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bend = bend
        return _formula(x, bend, offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return (torch.sigmoid(_wide(x) - ctx.bend).sub_(SLOPE) * grad).to(x.dtype), None, None
