"""Between the frame rates of a multi-rate encoder: learnt down- and up-sampling that never cross a chunk."""

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkGrid


class Downsample(nn.Module):
    """Each ``factor`` frames become one, their mean under learnt weights (arXiv 2310.11230, section 3.2).

    Chunks have whole groups of frames, so a group never crosses a chunk. Of a group that the end of the utterance cuts
    only the valid frames count, with their weights scaled to a sum of one: neither padding nor invented frames enter.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.logits = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """x (N, T, D) on its grid to (N, T/factor, D)."""
        weights = self.logits.softmax(0)[None, None]  # (1, 1, factor)
        if not grid.all_valid:
            weights = weights * grid.valid.unflatten(1, (-1, self.factor))  # (N, T', factor)
            # Groups of padding only have no weight at all.
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return (x.unflatten(1, (-1, self.factor)) * weights[..., None].to(x.dtype)).sum(2)


class Upsample(nn.Module):
    """Each frame becomes ``factor``, itself plus a learnt vector for each of these places."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.shifts = nn.Parameter(torch.zeros(factor, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) to (N, factor·T, D)."""
        return (x[:, :, None] + self.shifts).flatten(1, 2)
