"""Self-attention with relative positions: the quadratic baseline for SummaryMixing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.seen_chunks import append_chunks
from summarymix.chunking import ChunkConfig, ChunkGrid, left_context
from summarymix.state import State


class AttentionWeights(nn.Module):
    """Multi-head attention weights (arXiv 2005.08100) with the relative positions of Transformer-XL (1901.02860).

    In a head of d features, the score of frame u for frame t, which sees u, is

        ((q_t + b)·k_u + (q_t + c)·W r_{t-u}) / √d,

    where r_δ is the sinusoid of the distance δ; b, c and W are learnt. Positions are relative and sinusoids are
    computed for the distances that occur, so the length is unlimited. Time and memory grow with the product of a run's
    frames and the frames that it sees; the state grows with the left context.

    Args:
        dim: D, input features.
        num_heads: H.
        head_dim: d.
        dropout: rate on the weights.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"attention of dim {dim} has no relative positions: choose an even dim")
        bound = head_dim**-0.5
        self.projection = nn.Linear(dim, 2 * num_heads * head_dim)
        self.position_projection = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, head_dim).uniform_(-bound, bound))
        self.position_bias = nn.Parameter(torch.empty(num_heads, head_dim).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys of the last L chunks and validity of their frames: see :func:`past_frames`."""
        weight = self.projection.weight
        return {
            "key": past_frames(batch_size, chunk, weight, self.content_bias.numel()),
            "valid": past_frames(batch_size, chunk, weight, 1),
        }

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to weights (N, H, T, S); also return the next state.

        The S frames are the P chunks in ``state`` and then the run. Padded keys get weight 0; the weights of padded
        queries are arbitrary. With look-ahead each chunk is a row of its own, see :func:`remember_frames`.
        """
        # 0 · inf is NaN, so padding is zeroed as well as masked.
        query, key = self.projection(grid.zero_padding(x)).chunk(2, dim=-1)  # (N, T, H·d) both
        keys, next_key = remember_frames(grid, state["key"], key)  # (N, S, H·d)
        valid, next_valid = remember_frames(grid, state["valid"], grid.valid[..., None])  # (N, S, 1)
        num_past = state["key"].size(1)
        masked = grid.cached(("masked", num_past), lambda: (valid.mT == 0) | grid.attention_mask(num_past))  # (N, T, S)
        weights = self.weigh(as_rows(grid, query), keys.to(query.dtype), masked, grid)
        return weights, {"key": next_key, "valid": next_valid}

    def weigh(self, query: Tensor, key: Tensor, masked: Tensor, grid: ChunkGrid) -> Tensor:
        """Compute weights (N, H, T, S) from queries (N, T, H·d) of the last T frames and keys (N, S, H·d).

        ``masked`` (N, T, S) is True where frame t does not see frame s.
        """
        heads = self.content_bias.shape  # (H, d)
        query, key = (x.unflatten(-1, heads) for x in (query, key))
        num_keys, scale = key.size(1), heads[1] ** -0.5
        distances = self.project_distances(num_keys, grid)  # (H, d, W)
        # The (N, H, T, S) tensors dominate time and memory, so they are updated in place.
        scores = ((query + self.content_bias) * scale).transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (N, H, T, S)
        by_distance = ((query + self.position_bias) * scale).transpose(1, 2) @ distances  # (N, H, T, W)
        scores.add_(by_frame(by_distance, num_keys))
        # A finite value: with -inf, a padded frame that sees no frame would give NaN.
        scores.masked_fill_(masked[:, None], torch.finfo(scores.dtype).min)
        return self.dropout(scores.softmax(-1))

    def project_distances(self, num_keys: int, grid: ChunkGrid) -> Tensor:
        """Compute W r_δ per head for the distances δ = S, S-1 … 1-C: (H, d, S+C). C is the grid's chunk size."""
        weight = self.position_projection.weight
        distances = grid.cached(
            ("sinusoids", num_keys, weight.size(1), weight.dtype),
            lambda: sinusoids(
                torch.arange(num_keys, -grid.chunk_size, -1, device=weight.device), weight.size(1), weight.dtype
            ),
        )
        return self.position_projection(distances).unflatten(-1, self.content_bias.shape).permute(1, 2, 0)


class AttentionValues(nn.Module):
    """Attention-weighted means of values, per head, and an output projection.

    Args:
        dim: D, features in and out.
        num_heads: H.
        value_dim: v, value features per head.
    """

    def __init__(self, dim: int, num_heads: int, value_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(dim, num_heads * value_dim)
        self.out = nn.Linear(num_heads * value_dim, dim)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Values of the last L chunks: see :func:`past_frames`."""
        return {"value": past_frames(batch_size, chunk, self.projection.weight, self.projection.out_features)}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State, weights: Tensor) -> tuple[Tensor, State]:
        """Map x (N, T, D) and weights (N, H, T, S) to (N, T, D); also return the next state."""
        projected = self.projection(grid.zero_padding(x))  # (N, T, H·v)
        values, next_value = remember_frames(grid, state["value"], projected)  # (N, S, H·v)
        heads = values.to(projected.dtype).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, H, S, v)
        return self.out((weights @ heads).transpose(1, 2).reshape(*x.shape[:2], -1)), {"value": next_value}


class RelativeAttention(nn.Module):
    """The Conformer's multi-head self-attention: :class:`AttentionWeights` and :class:`AttentionValues`.

    Args:
        dim: D, features in and out.
        num_heads: H.
        dropout: rate on the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"attention of dim {dim} cannot have {num_heads} heads: choose a divisor of dim")
        self.weights = AttentionWeights(dim, num_heads, dim // num_heads, dropout)
        self.values = AttentionValues(dim, num_heads, dim // num_heads)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys and values of the last L chunks: see :func:`past_frames`."""
        return self.weights.init_state(batch_size, chunk) | self.values.init_state(batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state. Padded frames are masked."""
        weights, weights_state = self.weights(x, grid, state)
        y, values_state = self.values(x, grid, state, weights)
        return y, weights_state | values_state


def past_frames(batch_size: int, chunk: ChunkConfig, like: Tensor, width: int) -> Tensor:
    """Make an empty cache of ``width`` numbers per frame for the last L chunks, oldest first: zeros (N, L, C, width).

    With unlimited left context it begins with 0 chunks and grows.
    """
    if chunk.chunk_size is None:
        raise ValueError("self-attention caches whole chunks and cannot stream without a chunk size: set one")
    dtype = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros(batch_size, max(chunk.left_chunks, 0), chunk.chunk_size, width, dtype=dtype)


def as_rows(grid: ChunkGrid, x: Tensor) -> Tensor:
    """With look-ahead, the chunks (N·K, C, …) of x (N, T, …) as rows of their own; otherwise x."""
    return x if grid.config.lookahead == 0 else grid.chunked(x).flatten(0, 1)


def remember_frames(grid: ChunkGrid, past: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Append the run's frames ``new`` (N, T, width) to ``past`` (N, P, C, width), see :func:`append_chunks`.

    Returns:
        All frames (N, S, width), and ``past`` for the next run. With look-ahead, which only its own chunk sees, each
        chunk is a row: the frames (N·K, S, width) that it sees, zeros before the first one.

    Raises:
        ValueError: the chunk size differs from that of ``past``. The left context is counted in chunks of one size.
    """
    if grid.own_size != past.size(2):
        raise ValueError(
            f"this stream began with chunks of {past.size(2)} frames, and self-attention cannot change the chunk size: "
            f"start a new state for chunks of {grid.own_size} frames"
        )
    own, ahead = grid.split(new)
    left_chunks = grid.config.left_chunks
    row, kept = append_chunks(past, own, left_chunks)  # (N, P + K, C, width)
    if ahead is None:
        return row.flatten(1, 2), kept
    num_past = past.size(1)
    seen = num_past + grid.num_chunks - 1  # of the last chunk
    if left_chunks >= 0:
        seen = min(seen, left_context(num_past, left_chunks))
    row = F.pad(row, (0, 0, 0, 0, seen - num_past, 0))
    before = [row[:, i : i + grid.num_chunks] for i in range(seen)]  # (N, K, C, width) each, the farthest first
    return torch.cat([*before, grid.chunked(new).to(row.dtype)], dim=2).flatten(0, 1), kept


def sinusoids(distances: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Compute sines and cosines (M, dim) of distances (M,) at dim/2 wavelengths from 2π to 20000π.

    They are computed in float32 or wider and returned in ``dtype``.
    """
    exact = torch.promote_types(dtype, torch.float32)
    frequencies = 10000 ** (-torch.arange(0, dim, 2, dtype=exact, device=distances.device) / dim)
    angles = distances[:, None] * frequencies  # (M, dim/2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)


def by_frame(by_distance: Tensor, num_keys: int) -> Tensor:
    """View scores of the distances S, S-1 … (N, H, T, W) as scores of the frames 0 … S-1 (N, H, T, S), without a copy.

    Query t is frame S-T+t, so frame u is at distance S-T+t-u, in column T-t+u: one column further left in each row.
    In the flattened rows this is index T + t(W-1) + u: offset T, row stride W-1. Frames beyond the last column read
    from the next row; they lie after the chunk and are masked.
    """
    by_distance = by_distance.contiguous()  # matrix products already are
    *outer, num_queries, width = by_distance.shape
    strides = (*by_distance.stride()[:-2], width - 1, 1)
    start = by_distance.storage_offset() + num_queries
    return by_distance.as_strided((*outer, num_queries, num_keys), strides, start)
