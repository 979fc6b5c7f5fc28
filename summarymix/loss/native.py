"""Transducer losses in plain PyTorch, with the arguments of `summarymix.loss`, already checked."""

import torch
from torch import Tensor

from summarymix.loss.logprobs import additive_log_probs, joint_log_probs
from summarymix.loss.recursion import sum_over_paths


def smoothed_loss(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    blank: int,
    lm_only_scale: float,
    am_only_scale: float,
    boundary: Tensor,
    rnnt_type: str,
    delay_penalty: float,
    fastemit: float,
    return_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the loss ``(B,)`` and, with ``return_grad``, the occupations of px and py."""
    px, py = additive_log_probs(lm, am, symbols, blank, lm_only_scale, am_only_scale)
    loss, px_grad, py_grad = _loss(px, py, boundary, rnnt_type, delay_penalty, fastemit, return_grad)
    if px_grad is not None and rnnt_type == "regular":
        # k2's px has a column for symbols after the last frame, which are never emitted.
        px_grad = torch.nn.functional.pad(px_grad, (0, 1))  # (B, S, T+1)
    return loss, px_grad, py_grad


def joint_loss(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor | None,
    blank: int,
    boundary: Tensor,
    rnnt_type: str,
    delay_penalty: float,
    fastemit: float,
    hat: bool,
) -> Tensor:
    """Compute the loss ``(B,)`` of a joiner's output for all contexts or for the contexts in ``ranges``."""
    px, py = joint_log_probs(logits, symbols, ranges, blank, hat)
    return _loss(px, py, boundary, rnnt_type, delay_penalty, fastemit, return_grad=False)[0]


def _loss(
    px: Tensor,
    py: Tensor,
    boundary: Tensor,
    rnnt_type: str,
    delay_penalty: float,
    fastemit: float,
    return_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if fastemit and px.requires_grad:
        px.register_hook(lambda grad: (1.0 + fastemit) * grad)
    if rnnt_type == "constrained":
        px = px + py[:, 1:]  # a symbol's frame is consumed by blank in the next context
    if delay_penalty:
        # In float32 whatever the dtype of px, as in k2: in float64 both must agree to the last digits.
        frames = torch.arange(px.shape[2], device=px.device)  # (T,)
        penalty = delay_penalty * ((boundary[:, 3:] - 1) / 2 - frames)  # (B, T) float32
        px = px + penalty[:, None].to(px.dtype)
    total, px_grad, py_grad = sum_over_paths(px, py, boundary, rnnt_type == "regular", return_grad)
    return -total, px_grad, py_grad
