"""Optional import of k2 (https://github.com/k2-fsa/k2).

PyPI has no k2 wheels for a current torch, so k2 is imported only here, and only when it is needed.
"""

import functools
import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch


@functools.cache
def load() -> tuple[Any, str]:
    """The k2 module and "", or None and the reason why it cannot be used."""
    if find_spec("k2") is None:
        return None, "it is not installed"
    try:
        return import_module("k2"), ""
    except ImportError as error:  # a build for another torch, CUDA or Python
        reason = f"importing it failed: {error}"
        logging.getLogger(__name__).warning("k2 is installed but cannot be used; %s", reason)
        return None, reason


def require(what: str) -> Any:
    """The k2 module, which ``what`` needs.

    Raises:
        ImportError: k2 cannot be used.
    """
    k2, reason = load()
    if k2 is None:
        raise ImportError(f"{what} needs k2, and {reason}: install it with tools/install_k2.sh")
    return k2


def supports(device: torch.device) -> bool:
    """True if k2 can be imported and was built for this kind of device."""
    k2, _ = load()
    return k2 is not None and (device.type == "cpu" or (device.type == "cuda" and k2.with_cuda))
