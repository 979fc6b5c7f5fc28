"""Transducer losses computed by k2 (https://github.com/k2-fsa/k2), with the interface of ``summarymix.loss.native``.

``fastemit`` is always 0: `summarymix.loss.loss_backend` does not choose k2 for other values.
"""

import torch
from torch import Tensor

from summarymix import optional_k2


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
    k2, _ = optional_k2.load()
    options = (boundary, rnnt_type, delay_penalty, "none", return_grad)
    if lm_only_scale or am_only_scale:
        result = k2.rnnt_loss_smoothed(lm, am, symbols, blank, lm_only_scale, am_only_scale, *options)
    else:
        result = k2.rnnt_loss_simple(lm, am, symbols, blank, *options)
    if not return_grad:
        return result, None, None
    loss, (px_grad, py_grad) = result
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
    k2, _ = optional_k2.load()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    options = (blank, boundary, rnnt_type, delay_penalty, "none")
    if ranges is None:
        return k2.rnnt_loss(logits, symbols, *options)
    return k2.rnnt_loss_pruned(logits, symbols, ranges, *options, hat)
