"""Regularisers that act on gradients only, to keep activations and parameters in a healthy range.

Each is the identity in the forward pass. In the backward pass it adds the gradient of a penalty, which is never part of
the loss. They come from the Zipformer (arXiv 2310.11230); the penalties follow icefall's scaling.py, with gradients in
closed form. They store nothing in checkpoints.

    - :func:`limit_value` keeps parameters between bounds.
    - :class:`Balancer` keeps each channel's share of positive values and its magnitude within ranges. It prevents units
      that are always or never off, and values so large that they saturate the next softmax or sigmoid.
    - :class:`Whiten` prevents a few directions from carrying all the variance.

To save time they act on a random part of the batches, drawn from PyTorch's global generator on the CPU. In eval mode
they return their input tensor itself. Frames outside ``valid`` (N, T), where given, are left out of the statistics and
keep their gradients. Statistics are in float32, or in float64 for float64 input. Where the regularisers act, they keep
their input for the backward pass.

Cost for both passes on one core, for (4, 500, 256) float32: 1 ms for a Balancer, 3 ms for a Whiten within its limit and
6 ms beyond, in batches where they act; 5 µs in the others; 1 µs in eval mode. A linear layer takes 8 ms.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from summarymix.blocks.fusion import fused, numbers, rows
from summarymix.blocks.scheduled import Schedulable, Scheduled

TINY = 1e-20  # floor of divisors


class _ChangeGradient(torch.autograd.Function):
    """Identity whose gradient for x is change(x, gradient of the output)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.change = change
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return ctx.change(x.to(dtype), grad.to(dtype)).to(grad.dtype), None


def _drawn(prob: Schedulable) -> bool:
    return torch.rand((), device="cpu").item() < float(prob)


def limit_value(x: Tensor, low: float, high: float, training: bool = True, prob: float = 0.6) -> Tensor:
    """Keep parameters between bounds: negate a gradient that leads a value further beyond its bound.

    Clamping would leave elements without gradient, and a penalty would have a strength to tune. A value that the loss
    drives beyond a bound oscillates around it.

    Args:
        x: a parameter, or a function of one.
        low, high: the bounds.
        training: False returns ``x``.
        prob: probability of acting, per call; above a half, so that inward steps prevail.
    """
    if not (training and x.requires_grad and _drawn(prob)):
        return x

    def change(x: Tensor, grad: Tensor) -> Tensor:
        way_back = x.clamp(low, high) - x
        return torch.where(way_back * grad > 0, -grad, grad)  # descent goes against the gradient

    return _ChangeGradient.apply(x, change)


class Balancer(nn.Module):
    """Keeps the share of positive values and the mean absolute value of each channel within ranges.

    Neither statistic has a useful derivative or combines easily with the other. Both are therefore modelled by a normal
    distribution with the channel's mean μ and standard deviation σ: its share of positive values is Φ(μ/σ), and its
    mean absolute value, as if its mean were zero, √(2/π)·r with r² = μ² + σ². The penalty of a channel is

        | μ/σ - clamp(μ/σ) |  +  | log r - log clamp(r) |

    with clamps to Φ⁻¹(min_positive)…Φ⁻¹(max_positive) and √(π/2)·min_abs…√(π/2)·max_abs. Its derivative with respect to
    the channel's values is scaled to a root mean square of ``grad_scale`` over the frames, so that only its direction
    matters. Each element is then multiplied by the magnitude of the existing gradient and added to it.

    icefall approximates Φ⁻¹ by 0.81·artanh(2p - 1), which is nearer to zero, so its ranges are narrower than stated.
    Its limits 0.025, 0.05, 0.1, 0.25, 0.3, 0.4 and 0.45 correspond to 0.068, 0.115, 0.186, 0.327, 0.365, 0.435 and
    0.467 here, and symmetrically above a half.

    Args:
        dim: D, channels.
        min_positive, max_positive: range of the share of positive values; 0 and 1 mean no limit.
        min_abs, max_abs: range of the mean absolute value.
        grad_scale: size of the added term, relative to the gradient.
        prob: probability of acting, per batch.
    """

    def __init__(
        self,
        dim: int,
        min_positive: Schedulable = 0.05,
        max_positive: Schedulable = 0.95,
        min_abs: Schedulable = 0.2,
        max_abs: Schedulable = 100.0,
        grad_scale: Schedulable = 0.04,
        prob: Schedulable = Scheduled((0, 0.5), (8000, 0.125)),  # noqa: B008 - it never changes
    ) -> None:
        super().__init__()
        self.dim = dim
        self.min_positive = min_positive
        self.max_positive = max_positive
        self.min_abs = min_abs
        self.max_abs = max_abs
        self.grad_scale = grad_scale
        self.prob = prob

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return x (N, T, D), with an optional mask ``valid`` (N, T) bool, or x (…, D) without a mask, unchanged."""
        if not (self.training and x.requires_grad and _drawn(self.prob)):
            return x
        if x.size(-1) != self.dim:
            raise ValueError(f"a Balancer of {self.dim} channels cannot take input of shape {tuple(x.shape)}")
        ratios = _ratio(float(self.min_positive)), _ratio(float(self.max_positive))
        to_rms = math.sqrt(math.pi / 2)
        sizes = to_rms * float(self.min_abs), to_rms * float(self.max_abs)
        limits = numbers([*ratios, *sizes, float(self.grad_scale)], x.device)
        frames = None if valid is None else valid.flatten()

        def change(x: Tensor, grad: Tensor) -> Tensor:
            return fused(_balance)(rows(x), rows(grad), frames, limits).view(x.shape)

        return _ChangeGradient.apply(x, change)


def _balance(x: Tensor, grad: Tensor, valid: Tensor | None, limits: Sequence[float] | Tensor) -> Tensor:
    """Add the term of a :class:`Balancer` to the gradient.

    Args:
        x: input of the balancer, (M, D).
        grad: gradient of its output, (M, D).
        valid: mask of the frames, (M,), or None.
        limits: lowest and highest μ/σ, lowest and highest r, size of the term: 5 numbers.
    """
    min_ratio, max_ratio, min_rms, max_rms, grad_scale = limits
    mean, centred, count = _centred(x, valid)  # (D,), like x
    variance = centred.square().flatten(0, -2).sum(0) / count  # (D,)
    square = variance + mean.square()
    rms = square.clamp(min=TINY).sqrt()
    # The floor keeps the rounding noise of a constant channel from being amplified.
    sigma = variance.clamp(min=TINY).maximum(1e-6 * square).sqrt()
    ratio = mean / sigma
    # 1 where a value is above its range, -1 where it is below.
    ratio_sign = (ratio - ratio.clamp(min_ratio, max_ratio)).sign()
    size_sign = (rms - rms.clamp(min_rms, max_rms)).sign()
    # The derivative with respect to x, times σ·frames, is level + slope·(x - μ)/σ.
    relative = size_sign * sigma / rms.square()
    level = ratio_sign + relative * mean
    slope = relative * sigma - ratio_sign * ratio
    size = (level.square() + slope.square() * (variance / sigma.square())).clamp(min=TINY).sqrt()
    direction = torch.addcmul(grad_scale * level / size, centred, grad_scale * slope / (size * sigma))
    return torch.addcmul(grad, _zero_others(grad.abs(), valid), direction)


def _ratio(share: float) -> float:
    """Return Φ⁻¹(share): μ/σ of a normal distribution with this share of positive values."""
    return NormalDist().inv_cdf(share) if 0 < share < 1 else math.copysign(math.inf, share - 0.5)


def _centred(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, int | Tensor]:
    """Return channel means (D,), x minus the means with invalid frames zeroed, and the number of valid frames."""
    count = max(x.numel() // x.size(-1), 1) if valid is None else valid.sum().clamp(min=1)
    mean = _zero_others(x, valid).flatten(0, -2).sum(0) / count
    return mean, _zero_others(x - mean, valid), count


def _zero_others(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x.masked_fill(~valid[..., None], 0.0)


class Whiten(nn.Module):
    """Keeps the covariance of the channels near a multiple of the identity.

    With the covariance C and its eigenvalues λ, the distance is measured by

        m = E[λ²] / E[λ]² = D·‖C‖² / (tr C)²,

    which is 1 if all eigenvalues are equal and D if one direction has all the variance; the right-hand side needs no
    eigenvalues. Where m is above its limit, its derivative with respect to the frames X,
    4·D/(tr C)²·X·(C - ‖C‖²/tr C)/frames, is added to the gradient, scaled to ``grad_scale`` times the gradient's norm.
    The means are subtracted first and stay unchanged.

    icefall checks few batches while the limit is kept, and ten times as many if the last check exceeded it. A resumed
    run would have to restore this state in each process; here each check is drawn independently. A check costs one
    product of D·D per frame, as much as the forward pass of a linear layer, and as much again beyond the limit.

    Args:
        whitening_limit: limit of m, at least 1.
        prob: probability of a check, per batch.
        grad_scale: size of the added term, relative to the gradient.
    """

    def __init__(
        self,
        whitening_limit: Schedulable,
        prob: Schedulable = 0.25,
        grad_scale: Schedulable = 0.01,
    ) -> None:
        super().__init__()
        if float(whitening_limit) < 1:
            raise ValueError(f"whitening_limit {float(whitening_limit)} must be at least 1, the value of white input")
        self.whitening_limit = whitening_limit
        self.prob = prob
        self.grad_scale = grad_scale

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return x (N, T, D), with an optional mask ``valid`` (N, T) bool, or x (…, D) without a mask, unchanged."""
        if not (self.training and x.requires_grad and _drawn(self.prob)):
            return x
        limit, grad_scale = float(self.whitening_limit), float(self.grad_scale)

        def change(x: Tensor, grad: Tensor) -> Tensor:
            _, centred, count = _centred(x, valid)
            frames = centred.flatten(0, -2)  # (frames, D)
            covariance = frames.T @ frames / count  # (D, D)
            trace = covariance.trace()
            square = covariance.square().sum()
            exceeds = x.size(-1) * square > limit * trace.square()  # false for NaN
            on_cpu = x.device.type == "cpu"  # a GPU computes both cases, for the host would have to wait for the answer
            if on_cpu and not exceeds:
                return grad
            covariance.diagonal().sub_(square / trace)
            penalty = (frames @ covariance).reshape(x.shape)
            scale = grad_scale * torch.linalg.vector_norm(grad) / torch.linalg.vector_norm(penalty).clamp(min=TINY)
            changed = torch.addcmul(grad, penalty, scale)
            return changed if on_cpu else torch.where(exceeds, changed, grad)

        return _ChangeGradient.apply(x, change)
