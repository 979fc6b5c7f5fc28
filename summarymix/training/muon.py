"""Muon: orthogonal steps for an encoder's linear maps, AdamW's steps for all other parameters.

An encoder's gradients are nearly of low rank. At first a few strong directions carry the token frequencies, and Adam,
which scales each weight separately, follows them. The many weak directions distinguish the sounds. Muon (K. Jordan et
al. 2024, https://kellerjordan.github.io/posts/muon) moves along all directions at the same rate: the step of a matrix
W (m, n) with gradient G is the orthogonal matrix nearest to its momentum,

    B ← μ·B + (1 - μ)·G
    W ← W - α·λ·W - 0.2·√max(m, n)·α·orthogonal((1 - μ)·G + μ·B)

where 0.2·√max(m, n) gives the step the root mean square of AdamW's steps (arXiv 2502.16982), so that both kinds of
parameters share the learning rate α and the weight decay λ.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Five rounds of the polynomial x ↦ a·x + b·x³ + c·x⁵ take singular values from near 0 to 0.7 … 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
EPS = 1e-8  # AdamW's ε
RMS = 0.2  # root mean square of AdamW's steps, measured in arXiv 2502.16982


class Muon(Optimizer):
    """The Muon optimiser; the module's docstring defines the symbols.

    Args:
        matrices: parameters (…, m, n), each with one or several linear maps.
        others: parameters that take AdamW's steps.
        lr: α.
        betas: AdamW: decay of the averages of gradients and squared gradients.
        weight_decay: λ, for all parameters of two or more dimensions.
        momentum: μ.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        others = list(others)
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "orthogonal": True},
            {"params": [p for p in others if p.ndim >= 2], "orthogonal": False},
            {"params": [p for p in others if p.ndim < 2], "orthogonal": False, "weight_decay": 0.0},
        ]
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; parameters without a gradient do not change."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                (self._orthogonal_step if group["orthogonal"] else self._adam_step)(params, group)
        return loss

    def _orthogonal_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in params:
            by_shape[p.shape].append(p)
        for shape, alike in by_shape.items():
            averages = [self._state(p, "average") for p in alike]
            grads = [p.grad for p in alike if p.grad is not None]
            torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
            steps = orthogonal(torch.stack(torch._foreach_lerp(grads, averages, group["momentum"])))
            torch._foreach_add_(alike, steps.unbind(), alpha=-group["lr"] * RMS * max(shape[-2:]) ** 0.5)

    def _adam_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        step = group["step"] = group.get("step", 0) + 1
        averages = [self._state(p, "average") for p in params]
        squares = [self._state(p, "square") for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(averages, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(denominators, EPS)
        torch._foreach_addcdiv_(params, averages, denominators, value=-group["lr"] / (1 - beta1**step))

    def _state(self, p: Tensor, name: str) -> Tensor:
        if name not in self.state[p]:
            self.state[p][name] = torch.zeros_like(p)
        value: Tensor = self.state[p][name]
        return value


def orthogonal(x: Tensor) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrix of each matrix of x (…, m, n), by Newton-Schulz iteration.

    U S Vᵀ becomes U S' Vᵀ, where S' is about 0.7 … 1.2 for singular values above a thousandth of the norm of x. CUDA
    computes in bfloat16, as torch.optim.Muon does on every device. A matrix of zeros stays zero.
    """
    is_tall = x.size(-2) > x.size(-1)
    wide = x.mT if is_tall else x
    y = wide.reshape(-1, *wide.shape[-2:])  # (B, m, n), m ≤ n
    y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    if x.device.type == "cuda":
        y = y.bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = y @ y.mT  # (B, m, m)
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    y = y.to(x.dtype).view(wide.shape)
    return y.mT if is_tall else y
