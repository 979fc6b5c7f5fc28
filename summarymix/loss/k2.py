"""The transducer losses by k2 (https://github.com/k2-fsa/k2), where it is installed.

Same functions as `summarymix.loss.native`. k2 has no wheels on PyPI that fit a current torch, so nothing
here may be imported at the top: the module exists on every machine.
"""

import functools
import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


@functools.cache
def load() -> tuple[Any, str]:
    """The k2 module and "", or None and why it cannot be used."""
    if find_spec("k2") is None:
        return None, "it is not installed"
    try:
        return import_module("k2"), ""
    except ImportError as error:  # a build for another torch, CUDA or Python
        reason = f"importing it failed: {error}"
        logging.getLogger(__name__).warning("k2 is installed but cannot be used; %s", reason)
        return None, reason


def require(what: str) -> Any:
    """The k2 module, for ``what`` cannot do without.

    Raises:
        ValueError: it cannot be used.
    """
    k2, reason = load()
    if k2 is None:
        raise ValueError(f"{what} needs k2, and {reason}: install it as the README says, or do without")
    return k2


def supports(device: torch.device) -> bool:
    """Whether k2 can be imported and was built for this kind of device."""
    k2, _ = load()
    return k2 is not None and (device.type == "cpu" or (device.type == "cuda" and k2.with_cuda))


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
    return_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    k2, _ = load()
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
    hat: bool,
) -> Tensor:
    k2, _ = load()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    options = (blank, boundary, rnnt_type, delay_penalty, "none")
    if ranges is None:
        return k2.rnnt_loss(logits, symbols, *options)
    return k2.rnnt_loss_pruned(logits, symbols, ranges, *options, hat)
