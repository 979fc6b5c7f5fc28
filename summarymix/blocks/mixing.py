"""SummaryMixing: a mean of learnt summaries in place of self-attention (arXiv 2307.07421; streaming: 2409.07165).

    f_t = f(x_t),   s_t = s(x_t),   s̄_t = mean of s_u over the frames u that t sees,   h_t = c([f_t; s̄_t])

The mean is the same for all frames of a chunk, so it costs O(T), and a stream carries one sum and one count.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.attention import RelativeAttention
from summarymix.blocks.pieces import in_pieces
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


@dataclass
class MixingConfig:
    """How the frames of an encoder's layer see each other."""

    mode: Literal["merged", "full", "lite", "local", "attention"] = "merged"
    """SummaryMixing (merged, full, lite), the control without a summary (local), or the baseline: self-attention with
    relative positions (attention)."""
    decay_seconds: float | None = None
    """SummaryMixing: τ of a mean in which a chunk that ended t seconds before the end of the frame's own counts
    exp(-t/τ), within the left context. With full context all is one chunk and nothing decays. null: all count alike."""

    def __post_init__(self) -> None:
        if self.decay_seconds is not None and self.decay_seconds <= 0:
            raise ValueError(f"mixing.decay_seconds {self.decay_seconds} must be above 0")
        if self.decay_seconds is not None and self.mode in ("local", "attention"):
            raise ValueError(
                f"mixing.decay_seconds {self.decay_seconds} is for a mean: mixing.mode {self.mode} has none"
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

    def __init__(self, dim: int, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.decay_seconds = decay_seconds

    def init_state(self, batch_size: int, chunk: ChunkConfig, like: Tensor) -> State:
        """Zeros: a running sum (N, P) and count (N, 1); with limited left context those of the last L chunks, (N, L, P)
        and (N, L, 1). On the device of ``like``, in float32 or its wider type."""
        ring = () if chunk.left_chunks < 0 else (chunk.left_chunks,)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return {
            name: torch.zeros(batch_size, *ring, width, dtype=dtype, device=like.device)
            for name, width in (("sum", self.dim), ("count", 1))
        }

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, P) to the means of its K chunks (N, K, P), and the state that follows.

        A chunk with a valid frame sees one or more; others get anything finite.
        """
        # With full context there is one chunk, which has nothing to decay, and in an exported graph any duration.
        is_decaying = self.decay_seconds is not None and grid.config.chunk_size is not None
        decay = math.exp(-grid.chunk_seconds / self.decay_seconds) if is_decaying else 1.0  # type: ignore[operator]
        sums, next_sum = grid.sum_seen(state["sum"], grid.chunk_sums(x), decay)  # (N, K, P)
        counts, next_count = grid.sum_seen(state["count"], grid.counts.to(sums.dtype), decay)  # (N, K, 1)
        return sums / counts.clamp(min=1), {"sum": next_sum, "count": next_count}


class Combiner(nn.Linear):
    """gelu(W [f_t; s̄_k]), computed as W_f f_t + W_s s̄_k: the second product once per chunk, not once per frame.

    Args:
        local_dim: P, features of f and of s̄ each.
        dim: D, features out.
    """

    def __init__(self, local_dim: int, dim: int) -> None:
        super().__init__(2 * local_dim, dim)

    def forward(self, local: Tensor, summary: Tensor) -> Tensor:  # type: ignore[override]
        """Frames (N, K·C, P) and the summaries of their chunks (N, K, P) to (N, K·C, D)."""
        local_weight, summary_weight = self.weight.chunk(2, dim=1)
        shift = F.linear(summary.to(local.dtype), summary_weight)[:, :, None]  # (N, K, 1, D)
        # As a matrix of N·T rows, so that the product takes half of the merged projection as it is, without a copy.
        out = F.linear(local.flatten(0, 1), local_weight, self.bias)  # (N·T, D)
        return F.gelu(out.view(*shift.shape[:2], -1, shift.size(-1)) + shift).flatten(1, 2)


class CombinedMixing(nn.Module):
    """Base of the two below: h_t = c([f_t; s̄_t])."""

    mean: SeenMean
    combine: Combiner

    @property
    def out(self) -> nn.Linear:
        """The linear map that the output comes from."""
        return self.combine

    def local_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f and s of each frame: x (N, T, D) to (N, T, P) each."""
        raise NotImplementedError

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state of the mean before the first chunk."""
        return self.mean.init_state(batch_size, chunk, self.combine.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state that follows."""
        local, values = self.local_and_values(x)  # (N, T, P) each
        summary, state = self.mean(values, grid, state)  # (N, K, P)
        return self.combine(local, summary), state


class MergedMixing(CombinedMixing):
    """SummaryMixing in which f and s are the halves of one projection: the streaming models of 2409.07165.

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f and of s.
        decay_seconds: of the mean.
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
    """SummaryMixing in which f and s are networks of two grouped layers each (2307.07421).

    Args:
        dim: D, features in and out.
        summary_dim: P, features of f and of s.
        groups: block-diagonal groups of their layers.
        decay_seconds: of the mean.
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
    """The mean alone, h_t = s̄_t: no f, and no combiner (2307.07421).

    Args:
        dim: D, features in and out.
        decay_seconds: of the mean.
    """

    def __init__(self, dim: int, decay_seconds: float | None = None) -> None:
        super().__init__()
        self.summary = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.mean = SeenMean(dim, decay_seconds)

    @property
    def out(self) -> nn.Linear:
        """The linear map that the output comes from."""
        linear = self.summary[0]
        assert isinstance(linear, nn.Linear)
        return linear

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state of the mean before the first chunk."""
        return self.mean.init_state(batch_size, chunk, self.out.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state that follows."""
        mean, state = self.mean(in_pieces(self.summary, x), grid, state)  # (N, K, D)
        return mean[:, :, None].expand(-1, -1, grid.chunk_size, -1).flatten(1, 2).to(x.dtype), state


class LocalOnly(nn.Module):
    """SummaryMixing without its summary, gelu(W f_t): the control that shows what the summary is worth.

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
        """The linear map that the output comes from."""
        return self.combine

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Nothing: a frame sees itself alone."""
        return {}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state, which is empty."""
        return in_pieces(lambda x: F.gelu(self.combine(self.local(x))), x), state


SummaryMixing = MergedMixing | FullMixing | LiteMixing | LocalOnly


def make_mixer(
    config: MixingConfig, dim: int, summary_dim: int, num_heads: int, dropout: float
) -> SummaryMixing | RelativeAttention:
    """The mixer of a layer of width ``dim``.

    Args:
        config: which one.
        dim: D, features in and out.
        summary_dim: width of the local and of the summary branch of SummaryMixing.
        num_heads: of attention.
        dropout: of attention's weights.
    """
    if config.mode == "attention":
        return RelativeAttention(dim, num_heads, dropout)
    return make_summary_mixing(config, dim, summary_dim)


def make_summary_mixing(config: MixingConfig, dim: int, summary_dim: int) -> SummaryMixing:
    """The SummaryMixing, or its control, that ``config`` names; see :func:`make_mixer`.

    Raises:
        ValueError: lite mixing with another ``summary_dim`` than ``dim``.
    """
    match config.mode:
        case "merged":
            return MergedMixing(dim, summary_dim, config.decay_seconds)
        case "full":
            return FullMixing(dim, summary_dim, decay_seconds=config.decay_seconds)
        case "lite":
            if summary_dim != dim:
                raise ValueError(f"lite mixing outputs the summary itself: summary_dim {summary_dim} must be dim {dim}")
            return LiteMixing(dim, config.decay_seconds)
        case "local":
            return LocalOnly(dim, summary_dim)
    raise ValueError(f"mixing.mode {config.mode!r} is none of merged, full, lite, local and attention")
