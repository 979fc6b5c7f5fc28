"""Precision of the computations."""

from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
HALF: tuple[Precision, ...] = ("bf16", "fp16")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of the model; losses are always computed in float32.

    Raises:
        ValueError: tf32 or fp16 on a CPU, which has no arithmetic for it.
    """
    if precision in ("tf32", "fp16") and device.type == "cpu":
        raise ValueError(f"--precision {precision} needs a GPU; on a CPU use fp32 or bf16")
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision in HALF)


def set_tf32(precision: Precision) -> None:
    """Let GPUs compute float32 products and convolutions in TensorFloat-32 with tf32, and in full float32 otherwise.

    PyTorch's own default is TensorFloat-32 for convolutions only.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
