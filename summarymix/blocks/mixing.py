"""SummaryMixing: a mean of learnt summaries in place of self-attention (arXiv 2307.07421; streaming: 2409.07165)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.pieces import as_it_is, in_blocks, the_result
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State

MixingMode = Literal["merged", "full", "lite", "local"]


@dataclass
class MixingOptions:
    """Variants of SummaryMixing, for ablations; the defaults are the models of 2409.07165.

    Args:
        summary_norm: LayerNorm of the summary before the combiner.
        combiner_activation: after the combiner: gelu or none.
        fusion: how the combiner takes the summary. concat: W [f_t; s̄_k]. gated: W (f_t + σ(g_t) ⊙ s̄_k), where the
            gate g_t comes from the merged projection; only for mixing merged.
        decay_seconds: τ of a mean in which a chunk that ended t seconds before the end of the frame's own counts
            exp(-t/τ), within the left context that there is. With full context all is one chunk and nothing decays.
            null: all count the same.
    """

    summary_norm: bool = False
    combiner_activation: Literal["gelu", "none"] = "gelu"
    fusion: Literal["concat", "gated"] = "concat"
    decay_seconds: float | None = None

    def check(self, mixing: str) -> None:
        """Refuse what a kind of mixing does not have.

        Raises:
            ValueError: names the option.
        """
        having = {
            "summary_norm": ("merged", "full", "lite"),
            "combiner_activation": ("merged", "full", "local"),
            "fusion": ("merged",),
            "decay_seconds": ("merged", "full", "lite"),
        }
        for name, modes in having.items():
            value = getattr(self, name)
            if value != getattr(MixingOptions, name) and mixing not in modes:
                raise ValueError(f"{name} {value} is for mixing {', '.join(modes)}, not for {mixing}")
        if self.decay_seconds is not None and self.decay_seconds <= 0:
            raise ValueError(f"decay_seconds {self.decay_seconds} must be above 0")


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


class SeenMean(nn.Module):
    """The mean of the valid frames that each chunk sees. It has no weights.

    With ``decay_seconds`` τ the frames of chunk j count in chunk k with weight exp(-(k-j)·d/τ), d being the duration of
    a chunk. Sums and divisions are in float32 or wider, whatever autocast says. After an hour the running sum of a
    stream is off by some 1e-6 of itself; its count is exact for a week (2^24 frames).

    Args:
        dim: P, features.
        decay_seconds: τ; None: all count alike.
    """

    def __init__(self, dim: int, decay_seconds: float | None) -> None:
        super().__init__()
        self.dim = dim
        self.decay_seconds = decay_seconds

    def forward(self, sums: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances: sums of the valid frames of each chunk, (N, K, P), to (N, K, P). A chunk with a valid frame
        sees one or more; others give anything finite."""
        # One chunk alone has nothing to decay, and in a graph that is exported it is of any duration.
        decay = self.decay(grid) if grid.num_chunks > 1 else 1.0
        total = grid.sum_seen(sums, decay)  # (N, K, P)
        return total / grid.seen(decay, total.dtype).clamp(min=1)

    def init_state(self, batch_size: int, chunk: ChunkConfig, like: Tensor) -> State:
        """Zeros: a running sum (N, P) and count (N, 1); with limited context, those of the last L chunks apart. On the
        device of ``like``, in float32 or its wider type."""
        ring = () if chunk.left_chunks < 0 else (chunk.left_chunks,)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            name: torch.zeros(batch_size, *ring, width, dtype=dtype, device=like.device)
            for name, width in (("sum", self.dim), ("count", 1))
        }

    def step(self, sums: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: sums (N, 1, P) on a grid of one chunk to (N, 1, P), and the state that follows."""
        decay = self.decay(grid)
        total_sum, new_sum = push(state["sum"], sums, decay)
        total_count, new_count = push(state["count"], grid.counts, decay)
        return total_sum / total_count.clamp(min=1), {"sum": new_sum, "count": new_count}

    def decay(self, grid: ChunkGrid) -> float:
        """The weight of a chunk relative to the one after it."""
        return 1.0 if self.decay_seconds is None else math.exp(-grid.chunk_seconds / self.decay_seconds)


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
        options: variants.
    """

    def __init__(
        self,
        dim: int,
        summary_dim: int,
        mode: MixingMode = "merged",
        groups: int = 4,
        options: MixingOptions | None = None,
    ) -> None:
        super().__init__()
        options = options or MixingOptions()
        options.check(mode)
        self.is_gated = options.fusion == "gated"
        self.mode = mode
        self.summary_dim = summary_dim
        self.mean = SeenMean(summary_dim, options.decay_seconds)
        self.local: nn.Module | None = None
        self.summary: nn.Module | None = None
        self.combine: nn.Linear | None = None
        if mode == "merged":
            self.merged = nn.Linear(dim, (3 if self.is_gated else 2) * summary_dim)
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
            self.combine = nn.Linear(summary_dim if mode == "local" or self.is_gated else 2 * summary_dim, dim)
        self.summary_norm = nn.LayerNorm(summary_dim) if options.summary_norm else None
        self.activation = nn.GELU() if options.combiner_activation == "gelu" else nn.Identity()

    def forward(
        self,
        x: Tensor,
        grid: ChunkGrid,
        before: Callable[[Tensor], Tensor] = as_it_is,
        after: Callable[[Tensor, Tensor], Tensor] = the_result,
    ) -> Tensor:
        """Whole utterances: x (N, T, D) to (N, T, D). Padded frames are not counted; their output means nothing.

        Args:
            x: the input.
            grid: which frame sees which.
            before: makes of frames of x what is mixed.
            after: makes of frames of x, and of what mixing has made of them, the output.
        """
        kept, sums = self.project(x, grid, before)
        return self.merge(x, kept, None if sums is None else self.mean(sums, grid), grid, after)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """That of the mean."""
        return {} if self.mode == "local" else self.mean.init_state(batch_size, chunk, next(self.parameters()))

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) on a grid of one chunk to (N, C, D), and the state that follows."""
        kept, sums = self.project(x, grid, as_it_is)
        summary = None
        if sums is not None:
            summary, state = self.mean.step(sums, grid, state)  # (N, 1, P)
        return self.merge(x, kept, summary, grid, the_result), state

    @property
    def last(self) -> nn.Linear:
        """The map that the output comes from."""
        last = self.summary[0] if self.combine is None else self.combine  # type: ignore[index]
        assert isinstance(last, nn.Linear)
        return last

    def project(self, x: Tensor, grid: ChunkGrid, before: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """What the combiner takes of each frame of x, (N, T, F), and the sums of s(x) of each chunk, (N, K, P), if any.

        F is P, for f; 2·P, for f and the gate; or 0.
        """
        if self.mode == "local":
            assert self.local is not None
            return in_blocks(lambda x: self.local(before(x)), x), None  # type: ignore[misc]
        return sum_chunks(lambda x: self.branches(before(x)), x, grid)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the combiner takes of each frame, (N, T, F), and s(x), (N, T, P)."""
        if self.mode == "merged":
            projected, *gate = self.merged(x).split(2 * self.summary_dim, dim=-1)
            local, values = F.gelu(projected).split(self.summary_dim, dim=-1)
            return torch.cat([local, *gate], dim=-1) if gate else local, values
        assert self.summary is not None
        return self.local(x) if self.local else x[..., :0], self.summary(x)

    def merge(
        self,
        x: Tensor,
        kept: Tensor,
        summary: Tensor | None,
        grid: ChunkGrid,
        after: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The combiner, and what comes after: x (N, T, D), what is kept of it (N, T, F), s̄ (N, K, P) to (N, T, D)."""
        if summary is None:
            assert self.combine is not None
            return in_blocks(lambda x, local: after(x, self.activation(self.combine(local))), x, kept)  # type: ignore[misc]
        if self.summary_norm is not None:
            summary = self.summary_norm(summary)
        if self.combine is not None and not self.is_gated:
            summary = F.linear(summary.to(kept.dtype), self.combine.weight[:, self.summary_dim :])  # (N, K, D)
        return by_chunk(lambda x, kept, summary: after(x, self.fuse(kept, summary)), grid, (x, kept), (summary,))

    def fuse(self, kept: Tensor, summary: Tensor) -> Tensor:
        """What is kept of frames (N, T, F), and the summaries of their chunks (N, K, …), to (N, T, D)."""
        shape = *summary.shape[:2], -1, summary.size(2)  # N, K, C, …
        if self.combine is None:
            return summary[:, :, None].expand(-1, -1, kept.size(1) // summary.size(1), -1).flatten(1, 2)
        if self.is_gated:
            local, gate = kept.chunk(2, dim=-1)
            gated = gate.sigmoid().view(shape) * summary.to(gate.dtype)[:, :, None]  # (N, K, C, P)
            return self.activation(self.combine(local + gated.flatten(1, 2)))
        # As a matrix of N·T rows, so that the product takes the strided half of the merged projection as it is.
        weight = self.combine.weight[:, : self.summary_dim]
        out = F.linear(kept.flatten(0, 1), weight, self.combine.bias).view(shape)  # (N, K, C, D)
        return self.activation(out + summary[:, :, None]).flatten(1, 2)


def by_chunk(
    function: Callable[..., Tensor], grid: ChunkGrid, frames: Sequence[Tensor], chunks: Sequence[Tensor] = ()
) -> Tensor:
    """What a function makes of frames, (N, T, …) each, and of what their chunks have, (N, K, …) each, in blocks.

    It is given frames of n chunks and what these have, or, where there is one chunk, n frames and that n times.
    """
    if grid.num_chunks > 1:
        return in_blocks(function, *frames, *chunks, stride=grid.chunk_size)
    return in_blocks(function, *frames, *(x.expand(-1, frames[0].size(1), -1) for x in chunks))


def sum_chunks(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, grid: ChunkGrid
) -> tuple[Tensor, Tensor]:
    """What a function makes of frames of x (N, T, D), in blocks: something that is kept, (N, T, F), and values, of
    which only the sums over the valid frames of each chunk are, (N, K, P), in float32 or wider whatever autocast says.
    """
    sums = []

    def run(x: Tensor, valid: Tensor) -> Tensor:
        kept, values = function(x)
        if not grid.all_valid:
            values = values.masked_fill(~valid[..., None], 0.0)
        chunks = values.unflatten(1, (-1, grid.chunk_size)) if grid.num_chunks > 1 else values[:, None]  # (N, K, C, P)
        sums.append(chunks.sum(2, dtype=torch.promote_types(values.dtype, torch.float32)))
        return kept

    kept = by_chunk(run, grid, (x, grid.valid))
    if len(sums) == 1:
        return kept, sums[0]
    parts = torch.cat(sums, dim=1)  # of the chunks, or of the blocks of the one that there is
    return kept, parts if grid.num_chunks > 1 else parts.sum(1, keepdim=True)


def push(past: Tensor, new: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The total with ``new`` (N, 1, P) added to what the state ``past`` holds, and the state that follows.

    ``past`` is a running sum (N, P), or a ring (N, L, P) of the last L chunks, oldest first; all of it decays.
    """
    past = past * decay
    if past.dim() == 2:
        total = past[:, None] + new  # (N, 1, P)
        return total, total[:, 0]
    ring = torch.cat([past, new], dim=1)  # (N, L+1, P)
    return ring.sum(1, keepdim=True), ring[:, 1:]
