"""SummaryMixing: a mean of learnt summaries in place of self-attention (arXiv 2307.07421; streaming: 2409.07165)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State

MixingMode = Literal["merged", "full", "lite", "local"]


class GroupedLinear(nn.Module):
    """``groups`` independent linear maps on equal slices of the features: a block-diagonal weight."""

    def __init__(self, input_dim: int, output_dim: int, groups: int) -> None:
        super().__init__()
        if input_dim % groups or output_dim % groups:
            raise ValueError(f"{groups} groups divide neither {input_dim} nor {output_dim} evenly")
        bound = (input_dim // groups) ** -0.5
        shape = (groups, input_dim // groups, output_dim // groups)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(output_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(…, input_dim) to (…, output_dim)."""
        groups, width, _ = self.weight.shape
        return torch.einsum("...gi,gio->...go", x.unflatten(-1, (groups, width)), self.weight).flatten(-2) + self.bias


class SummaryMixing(nn.Module):
    """h_t = c([f(x_t); s̄_t]), where s̄_t is the mean of s(x_u) over the frames u that t sees.

    Modes:
        merged: f and s are the two halves of one projection: the streaming models of 2409.07165, the default.
        full: f and s are two-layer networks of ``groups`` block-diagonal projections each (2307.07421).
        lite: no f and no c: h_t = s̄_t, so the output has ``summary_dim`` = ``dim`` features.
        local: s̄ = 0, the control that shows what the summary is worth. Nothing crosses frames.

    The combiner's matrix is applied in two halves, W [f_t; s̄_k] = W_f f_t + W_s s̄_k: s̄ is the same for all frames of
    chunk k, so its half is computed once a chunk, and neither s̄ nor the concatenation is ever spread over frames.

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f and of s.
        mode: see above.
        groups: block-diagonal groups of the full mode; other modes have none.
    """

    def __init__(self, dim: int, summary_dim: int, mode: MixingMode = "merged", groups: int = 4) -> None:
        super().__init__()
        self.mode = mode
        self.summary_dim = summary_dim
        self.local: nn.Module | None = None
        self.summary: nn.Module | None = None
        self.combine: nn.Linear | None = None
        if mode == "merged":
            self.merged = nn.Linear(dim, 2 * summary_dim)
        elif mode == "full":
            self.local, self.summary = (
                nn.Sequential(
                    GroupedLinear(dim, dim, groups),
                    nn.GELU(),
                    GroupedLinear(dim, summary_dim, groups),
                    nn.GELU(),
                )
                for _ in range(2)
            )
        elif mode == "lite":
            if summary_dim != dim:
                raise ValueError(f"lite mode hands the summary on: summary_dim {summary_dim} must be dim {dim}")
            self.summary = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        elif mode == "local":
            self.local = nn.Sequential(nn.Linear(dim, summary_dim), nn.GELU())
        else:
            raise ValueError(f"unknown mixing mode {mode!r}: merged, full, lite or local")
        if mode != "lite":
            self.combine = nn.Linear(summary_dim if mode == "local" else 2 * summary_dim, dim)

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances: x (N, T, D) to (N, T, D). Padded frames are not counted; their output means nothing."""
        local, values = self.project(x)
        if values is None:
            return self.merge(local, None, grid)
        summary = grid.sum_seen(chunk_sums(values, grid)) / grid.seen.clamp(min=1)  # (N, K, P)
        return self.merge(local, summary, grid)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Zeros: a running sum (N, P) and count (N, 1); with limited context, those of the last L chunks apart."""
        if self.mode == "local":
            return {}
        ring = () if chunk.left_chunks < 0 else (chunk.left_chunks,)
        parameter = next(self.parameters())
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        return {
            "sum": torch.zeros(batch_size, *ring, self.summary_dim, dtype=dtype, device=parameter.device),
            "count": torch.zeros(batch_size, *ring, 1, dtype=dtype, device=parameter.device),
        }

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) on a grid of one chunk to (N, C, D), and the state that follows."""
        local, values = self.project(x)
        if values is None:
            return self.merge(local, None, grid), {}
        total_sum, new_sum = push(state["sum"], chunk_sums(values, grid))
        total_count, new_count = push(state["count"], grid.seen)
        summary = total_sum / total_count.clamp(min=1)  # (N, 1, P)
        return self.merge(local, summary, grid), {"sum": new_sum, "count": new_count}

    def project(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """f(x) and s(x), both (N, T, P); None where the mode has none."""
        if self.mode == "merged":
            local, values = F.gelu(self.merged(x)).split(self.summary_dim, dim=-1)
            return local, values
        return (self.local(x) if self.local else None, self.summary(x) if self.summary else None)

    def merge(self, local: Tensor | None, summary: Tensor | None, grid: ChunkGrid) -> Tensor:
        """The combiner: f (N, T, P) and s̄ (N, K, P) to (N, T, D)."""
        if self.combine is None:
            assert summary is not None
            return summary[:, :, None].expand(-1, -1, grid.chunk_size, -1).flatten(1, 2)
        assert local is not None
        if summary is None:
            return F.gelu(self.combine(local))
        weight_local, weight_summary = self.combine.weight.split(self.summary_dim, dim=1)
        # As a matrix of N·T rows, so that the product takes the strided half of the merged projection as it is.
        out = F.linear(local.flatten(0, 1), weight_local, self.combine.bias)  # (N·T, D)
        shift = F.linear(summary.to(local.dtype), weight_summary)  # (N, K, D)
        return F.gelu(out.view(*shift.shape[:2], grid.chunk_size, -1) + shift[:, :, None]).flatten(1, 2)


def chunk_sums(values: Tensor, grid: ChunkGrid) -> Tensor:
    """Sums of the valid frames of each chunk, in float32 or wider whatever autocast says: (N, T, P) to (N, K, P)."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return grid.chunked(grid.zero_padding(values)).sum(2, dtype=dtype)


def push(past: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """The total with ``new`` (N, 1, P) added to what the state ``past`` holds, and the state that follows.

    ``past`` is a running sum (N, P), or a ring (N, L, P) of the last L chunks, oldest first.
    """
    if past.dim() == 2:
        total = past[:, None] + new  # (N, 1, P)
        return total, total[:, 0]
    ring = torch.cat([past, new], dim=1)  # (N, L+1, P)
    return ring.sum(1, keepdim=True), ring[:, 1:]
