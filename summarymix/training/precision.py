"""Mixed precision."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of the model; losses are always computed in float32.

    Raises:
        ValueError: fp16 on a CPU, which has no arithmetic for it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
