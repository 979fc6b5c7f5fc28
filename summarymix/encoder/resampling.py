"""Learnt down- and upsampling between the frame rates of a multi-rate encoder, never across chunks."""

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkGrid


class Downsample(nn.Module):
    """Downsampling: the mean of each ``factor`` frames with learnt weights (arXiv 2310.11230, section 3.2).

    Chunks have whole groups of frames, so a group never crosses a chunk. In a group cut by the utterance's end only the
    valid frames count, with weights rescaled to a sum of one.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.logits = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Map x (N, T, D) on its grid to (N, T/factor, D)."""
        weights = self.logits.softmax(0)[None, None]  # (1, 1, factor)
        if not grid.all_valid:
            weights = weights * grid.valid.unflatten(1, (-1, self.factor))  # (N, T', factor)
            # The weights of a group of padding sum to 0.
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
            x = grid.zero_padding(x)  # a weight of 0 would let NaN and infinity through
        return (x.unflatten(1, (-1, self.factor)) * weights[..., None].to(x.dtype)).sum(2)


class Upsample(nn.Module):
    """Upsampling: each frame is repeated ``factor`` times, plus a learnt vector for each position."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.shifts = nn.Parameter(torch.zeros(factor, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, T, D) to (N, factor·T, D)."""
        return (x[:, :, None] + self.shifts).flatten(1, 2)
