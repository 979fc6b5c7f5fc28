"""SummaryMixing: a mean of learnt summaries in place of self-attention (arXiv 2307.07421; streaming: 2409.07165).

    f_t = f(x_t),   s_t = s(x_t),   s̄_t = mean of s_u over the frames u that t sees,   h_t = c([f_t; s̄_t])

All frames of a chunk share the mean, so it costs O(T), and a stream carries one sum and one count.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.attention import RelativeAttention
from summarymix.blocks.pieces import in_pieces
from summarymix.blocks.seen_chunks import sum_seen
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


@dataclass
class MixingConfig:
    """Mixing of frames in an encoder layer."""

    mode: Literal["merged", "full", "lite", "local", "attention"] = "merged"
    """SummaryMixing (merged, full, lite), the control without a summary (local), or the baseline: self-attention with
    relative positions (attention)."""
    decay_seconds: float | None = None
    """SummaryMixing: decay time τ of the mean. A chunk that ends t seconds before the current chunk's end has weight
    exp(-t/τ), within the left context. With full context there is one chunk and no decay. null: equal weights."""

    def __post_init__(self) -> None:
        if self.decay_seconds is not None and self.decay_seconds <= 0:
            raise ValueError(f"mixing.decay_seconds {self.decay_seconds} must be above 0")
        if self.decay_seconds is not None and self.mode in ("local", "attention"):
            raise ValueError(
                f"mixing.decay_seconds {self.decay_seconds} does not apply to mixing.mode {self.mode}: set it to null"
            )


class GroupedLinear(nn.Module):
    """``groups`` independent linear maps on equal slices of the features: a block-diagonal weight."""

    def __init__(self, input_dim: int, output_dim: int, groups: int) -> None:
        super().__init__()
        if input_dim % groups or output_dim % groups:
            raise ValueError(f"{groups} groups do not divide both {input_dim} and {output_dim} features evenly")
        bound = (input_dim // groups) ** -0.5
        shape = (groups, input_dim // groups, output_dim // groups)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(output_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, input_dim) to (…, output_dim)."""
        groups, width, _ = self.weight.shape
        return torch.einsum("...gi,gio->...go", x.unflatten(-1, (groups, width)), self.weight).flatten(-2) + self.bias


class SeenMean(nn.Module):
    """Mean of the valid frames that each chunk sees. It has no parameters.

    With ``decay_seconds`` τ, the frames of chunk j have weight exp(-(k-j)·d/τ) in the mean of chunk k, where d is the
    duration of a chunk. Sums and divisions are in float32 or wider, even under autocast. After an hour the running sum
    of a stream has a relative error of about 1e-6; its count is exact for 2^24 frames: a week at 25 Hz.

    Args:
        dim: P, features.
        decay_seconds: τ; None: equal weights.
    """

    def __init__(self, dim: int, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.decay_seconds = decay_seconds

    def init_state(self, batch_size: int, chunk: ChunkConfig, like: Tensor) -> State:
        """Running sum (N, P) and count (N, 1); with limited left context, one per chunk: (N, L, P) and (N, L, 1).

        All are zeros, on the device of ``like``, in float32 or its wider dtype.
        """
        ring = () if chunk.left_chunks < 0 else (chunk.left_chunks,)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            name: torch.zeros(batch_size, *ring, width, dtype=dtype, device=like.device)
            for name, width in (("sum", self.dim), ("count", 1))
        }

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, P) to the means of its K chunks (N, K, P); also return the next state.

        A chunk without a valid frame gets an arbitrary finite value.
        """
        # Full context has one chunk, which does not decay; in an exported graph its duration is unknown.
        is_decaying = self.decay_seconds is not None and grid.config.chunk_size is not None
        decay = math.exp(-grid.chunk_seconds / self.decay_seconds) if is_decaying else 1.0  # type: ignore[operator]
        own, ahead = grid.chunk_sums(x)  # (N, K, P)
        left = grid.config.left_chunks
        sums, next_sum = sum_seen(state["sum"], own, left, decay)  # (N, K, P)
        counts, next_count = sum_seen(state["count"], grid.counts.to(sums.dtype), left, decay)  # (N, K, 1)
        if ahead is not None and grid.ahead_counts is not None:  # its chunk alone sees it
            sums, counts = sums + ahead, counts + grid.ahead_counts
        return sums / counts.clamp(min=1), {"sum": next_sum, "count": next_count}


class Combiner(nn.Linear):
    """gelu(W [f_t; s̄_k]), computed as W_f f_t + W_s s̄_k: the second product once per chunk, not once per frame.

    Args:
        local_dim: P, features of f and of s̄.
        dim: D, features out.
    """

    def __init__(self, local_dim: int, dim: int) -> None:
        super().__init__(2 * local_dim, dim)

    def forward(self, local: Tensor, summary: Tensor) -> Tensor:  # type: ignore[override]
        """Combine frames (N, K·C, P) with the summaries of their chunks (N, K, P) to (N, K·C, D)."""
        local_weight, summary_weight = self.weight.chunk(2, dim=1)
        shift = F.linear(summary.to(local.dtype), summary_weight)[:, :, None]  # (N, K, 1, D)
        # Flattened to N·T rows, so that the product reads its half of the merged projection without a copy.
        out = F.linear(local.flatten(0, 1), local_weight, self.bias)  # (N·T, D)
        return F.gelu(out.view(*shift.shape[:2], -1, shift.size(-1)) + shift).flatten(1, 2)


class CombinedMixing(nn.Module):
    """Base class of SummaryMixing with a combiner: h_t = c([f_t; s̄_t])."""

    mean: SeenMean
    combine: Combiner

    @property
    def out(self) -> nn.Linear:
        """The linear layer that produces the output."""
        return self.combine

    def local_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute f and s, (N, T, P) each, of the frames x (N, T, D)."""
        raise NotImplementedError

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Initial state of the mean."""
        return self.mean.init_state(batch_size, chunk, self.combine.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        local, values = self.local_and_values(x)  # (N, T, P) each
        summary, state = self.mean(values, grid, state)  # (N, K, P)
        return self.combine(local, summary), state


class MergedMixing(CombinedMixing):
    """SummaryMixing with f and s as halves of one projection: the streaming models of arXiv 2409.07165.

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f and of s.
        decay_seconds: see :class:`SeenMean`.
    """

    def __init__(self, dim: int, summary_dim: int, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.merged = nn.Linear(dim, 2 * summary_dim)
        self.mean = SeenMean(summary_dim, decay_seconds)
        self.combine = Combiner(summary_dim, dim)

    def local_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        local, values = in_pieces(lambda x: F.gelu(self.merged(x)), x).chunk(2, dim=-1)
        return local, values


class FullMixing(CombinedMixing):
    """SummaryMixing with f and s as networks of two grouped layers each (arXiv 2307.07421).

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f and of s.
        groups: number of block-diagonal groups in each layer.
        decay_seconds: see :class:`SeenMean`.
    """

    def __init__(self, dim: int, summary_dim: int, groups: int = 4, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.local, self.summary = (
            nn.Sequential(
                GroupedLinear(dim, dim, groups), nn.GELU(), GroupedLinear(dim, summary_dim, groups), nn.GELU()
            )
            for _ in range(2)
        )
        self.mean = SeenMean(summary_dim, decay_seconds)
        self.combine = Combiner(summary_dim, dim)

    def local_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return in_pieces(self.local, x), in_pieces(self.summary, x)


class LiteMixing(nn.Module):
    """SummaryMixing-lite (arXiv 2307.07421): the mean alone, h_t = s̄_t, without f and combiner.

    Args:
        dim: D, features in and out.
        decay_seconds: see :class:`SeenMean`.
    """

    def __init__(self, dim: int, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.summary = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.mean = SeenMean(dim, decay_seconds)

    @property
    def out(self) -> nn.Linear:
        """The linear layer that produces the output."""
        linear = self.summary[0]
        assert isinstance(linear, nn.Linear)
        return linear

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Initial state of the mean."""
        return self.mean.init_state(batch_size, chunk, self.out.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        mean, state = self.mean(in_pieces(self.summary, x), grid, state)  # (N, K, D)
        return mean[:, :, None].expand(-1, -1, grid.chunk_size, -1).flatten(1, 2).to(x.dtype), state


class LocalOnly(nn.Module):
    """SummaryMixing without its summary, gelu(W f_t): the control that measures the summary's contribution.

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f.
    """

    def __init__(self, dim: int, summary_dim: int) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Linear(dim, summary_dim), nn.GELU())
        self.combine = nn.Linear(summary_dim, dim)

    @property
    def out(self) -> nn.Linear:
        """The linear layer that produces the output."""
        return self.combine

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Empty state: a frame sees itself only."""
        return {}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the empty state."""
        return in_pieces(lambda x: F.gelu(self.combine(self.local(x))), x), state


SummaryMixing = MergedMixing | FullMixing | LiteMixing | LocalOnly


def make_mixer(
    config: MixingConfig, dim: int, summary_dim: int, num_heads: int, dropout: float
) -> SummaryMixing | RelativeAttention:
    """Make the mixing module of a layer of width ``dim``.

    Args:
        config: mode and decay.
        dim: D, features in and out.
        summary_dim: width of the local and of the summary branch of SummaryMixing.
        num_heads: attention heads.
        dropout: rate on the attention weights.
    """
    if config.mode == "attention":
        return RelativeAttention(dim, num_heads, dropout)
    return make_summary_mixing(config, dim, summary_dim)


def make_summary_mixing(config: MixingConfig, dim: int, summary_dim: int) -> SummaryMixing:
    """Make the SummaryMixing module, or its control, for ``config``; see :func:`make_mixer`.

    Raises:
        ValueError: another mode, or lite mixing with ``summary_dim`` different from ``dim``.
    """
    match config.mode:
        case "merged":
            return MergedMixing(dim, summary_dim, config.decay_seconds)
        case "full":
            return FullMixing(dim, summary_dim, decay_seconds=config.decay_seconds)
        case "lite":
            if summary_dim != dim:
                raise ValueError(f"summary_dim {summary_dim} must be dim {dim} in lite mixing: it outputs the summary")
            return LiteMixing(dim, config.decay_seconds)
        case "local":
            return LocalOnly(dim, summary_dim)
    raise ValueError(f"mixing.mode {config.mode!r} is unknown: choose merged, full, lite, local or attention")
