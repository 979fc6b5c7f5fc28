"""Dropout in a fifth of the usual time on CPU."""

import torch
from torch import Tensor, nn

LEVELS = 256  # values of a byte


class Dropout(nn.Dropout):
    """``nn.Dropout`` with one random byte per element on CPU instead of two 32-bit random numbers.

    Drawing the 32-bit numbers took a quarter of a Conformer's training step. The probability is rounded to n/256.
    """

    def forward(self, x: Tensor) -> Tensor:
        """In training, zero random elements of x (…) and scale the others up to keep the mean."""
        kept = round(LEVELS * (1 - self.p))
        if not self.training or kept == LEVELS:
            return x
        if x.device.type != "cpu" or kept == 0:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (levels < kept).to(x.dtype).mul_(LEVELS / kept)
