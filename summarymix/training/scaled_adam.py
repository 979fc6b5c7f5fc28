"""ScaledAdam: Adam with steps relative to the size of each parameter, and separate steps of that size.

The optimiser of the Zipformer (arXiv 2310.11230, section 3.5 and appendix), written from the formulas. For a parameter
tensor θ with gradient g, root mean square r as last measured, learning rate α and momentum β1, at step t = 1, 2, …

    v ← β2·v + (1 - β2)·g²
    Δ ← β1·Δ - (1 - β1)·α·max(r, r_min)·g / (√(v / (1 - β2^t)) + ε)
    θ ← θ + Δ

so α is a relative change per step, and scaling the loss does not change training. Every P steps r is measured again,
and the size of θ takes its own step: Adam with learning rate η·α on h = Σ θ·g, the derivative with respect to a scale
of θ. With mean and sum over the P steps, and k = t / P,

    w ← β2^P·w + (1 - β2^P)·mean(h²)
    s = -η·α·Σh / (√(w / (1 - β2^(P·k))) + ε), then -0.1 ≤ s ≤ 0.1; s ≥ 0 where r < r_min; r·(1 + s) ≤ r_max
    Δ ← Δ + (1 - β1)·s·θ, before g enters it

A parameter of one element takes Adam steps with learning rate η·α, not relative to its size, and stays within
±MAX_SCALAR.

Gradients are clipped first: N, where N² = Σ r²·|g|² over all parameters (η instead of r for one element), is limited to
c times the median of N in earlier steps. The gradient's size does not affect the size of a step; clipping limits the
effect of a freak gradient on v.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

logger = logging.getLogger(__name__)

SCALAR_LR_SCALE = 0.1  # η
MIN_RMS = 1e-5  # r_min, the least size that steps are relative to; size steps do not shrink smaller tensors
MAX_RMS = 3.0  # r_max; size steps shrink larger tensors to it
MAX_SCALAR = 10.0  # bound of parameters of one element
MAX_SIZE_STEP = 0.1
SIZE_PERIOD = 4  # P
# Norms fall fast at first: until a period is complete, the median is taken after these steps, with twice the tolerance.
EARLY_STEPS = (10, 20, 40)


class ScaledAdam(Optimizer):
    """The ScaledAdam optimiser; the module's docstring defines the symbols.

    Numbers per tensor are kept in the group, as one vector on the CPU in float64. So a step is a few operations over
    lists of tensors, and reads from the device once.

    Args:
        params: parameters or parameter groups; each group is clipped separately.
        lr: α.
        betas: β1 and β2.
        eps: ε. Smaller than Adam's, because gradients may be means over the thousands of frames of a batch.
        clipping_scale: c; infinity disables clipping.
        clipping_update_period: number of steps that a median of N covers, and then holds for.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.045,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-12,
        clipping_scale: float = 2.0,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "clipping_scale": clipping_scale,
            "clipping_update_period": clipping_update_period,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step. Gradients must be finite; a missing gradient counts as zeros."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "step" not in group:
                self._start(group)
            self._step_group(group)
            group["step"] += 1
        return loss

    def _start(self, group: dict[str, Any]) -> None:
        """Make the state. The first step does it, because parameters may change until then."""
        group["step"] = 0
        params = group["params"]
        for p in params:
            self.state[p] = {"delta": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        zeros = torch.zeros(len(params), dtype=torch.float64)
        group["rms"] = _read(torch._foreach_norm(params)) / _roots(params)  # (tensors,), root mean squares
        group["size_exp_avg_sq"] = zeros
        group["size_grads"] = zeros.repeat(SIZE_PERIOD, 1)
        group["norms"] = torch.zeros(group["clipping_update_period"], dtype=torch.float64)
        group["clipping_threshold"] = math.inf

    def _step_group(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = group["params"]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        deltas = [self.state[p]["delta"] for p in params]
        squares = [self.state[p]["exp_avg_sq"] for p in params]
        is_scalar = torch.tensor([p.numel() == 1 for p in params])
        (beta1, beta2), step = group["betas"], group["step"]
        is_due = (step + 1) % SIZE_PERIOD == 0

        # One read a step, because it waits for the device.
        products = [torch.dot(p.reshape(-1), g.reshape(-1)) for p, g in zip(params, grads, strict=True)]
        numbers = [*torch._foreach_norm(grads), *products, *(torch._foreach_norm(params) if is_due else [])]
        norms, h, *sizes = _read(numbers).split(len(params))  # (tensors,) each
        size = torch.where(is_scalar, SCALAR_LR_SCALE, group["rms"])
        clip = _clip_factor(group, float((norms * size).norm()))

        torch._foreach_mul_(deltas, beta1)
        group["size_grads"][step % SIZE_PERIOD] = h * clip
        if is_due:
            group["rms"] = sizes[0] / _roots(params)
            change = (1 - beta1) * torch.where(is_scalar, 0.0, _size_steps(group))
            torch._foreach_add_(deltas, torch._foreach_mul(params, change.tolist()))

        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=(1 - beta2) * clip**2)
        # The bias correction goes into the factors, which are numbers.
        correction = math.sqrt(1 - beta2 ** (step + 1))
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"] * correction)
        size = torch.where(is_scalar, SCALAR_LR_SCALE, group["rms"].clamp(min=MIN_RMS))
        factors = (beta1 - 1) * group["lr"] * clip * correction * size
        torch._foreach_addcdiv_(deltas, grads, denominators, factors.tolist())
        torch._foreach_add_(params, deltas)
        for p in params:
            if p.numel() == 1:
                p.clamp_(-MAX_SCALAR, MAX_SCALAR)


def _read(numbers: Sequence[Tensor]) -> Tensor:
    """One-element tensors as a vector on the CPU in float64."""
    return torch.stack(list(numbers)).double().cpu()


def _roots(tensors: list[Tensor]) -> Tensor:
    """Square roots of the numbers of elements, (tensors,)."""
    return torch.tensor([float(t.numel()) for t in tensors]).double().sqrt()


def _size_steps(group: dict[str, Any]) -> Tensor:
    """The relative change s of each tensor's size, (tensors,)."""
    beta = group["betas"][1] ** SIZE_PERIOD
    count = (group["step"] + 1) // SIZE_PERIOD
    h, w, rms = group["size_grads"], group["size_exp_avg_sq"], group["rms"]
    w.lerp_(h.square().mean(dim=0), 1 - beta)
    rate = group["lr"] * SCALAR_LR_SCALE
    s = -rate * h.sum(dim=0) / ((w / (1 - beta**count)).sqrt() + group["eps"])
    s = s.clamp(-MAX_SIZE_STEP, MAX_SIZE_STEP)
    s = torch.where(rms < MIN_RMS, s.clamp(min=0.0), s)
    return torch.minimum(s, MAX_RMS / rms - 1)


def _clip_factor(group: dict[str, Any], norm: float) -> float:
    """The factor that clips gradients of norm N; records the norm."""
    norms, period, steps = group["norms"], group["clipping_update_period"], group["step"] + 1
    factor = min(1.0, group["clipping_threshold"] / norm) if norm else 1.0
    norms[group["step"] % period] = norm
    if steps % period == 0:
        _warn_if_mostly_clipped(group)
        group["clipping_threshold"] = group["clipping_scale"] * float(norms.median())
    elif steps in EARLY_STEPS and steps < period:
        group["clipping_threshold"] = 2 * group["clipping_scale"] * float(norms[:steps].median())
    return factor


def _warn_if_mostly_clipped(group: dict[str, Any]) -> None:
    norms = group["norms"]
    clipped = int((norms > group["clipping_threshold"]).sum())
    if clipped > len(norms) // 2:
        logger.warning(
            "%d of the last %d gradients were clipped because they grow (median norm %.3g, threshold %.3g): training "
            "may be about to diverge. If the loss rises, go back to an earlier checkpoint and lower the learning rate "
            "or lengthen its warm-up",
            clipped,
            len(norms),
            float(norms.median()),
            group["clipping_threshold"],
        )
