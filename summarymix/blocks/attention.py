"""Self-attention with relative positions: the quadratic baseline for SummaryMixing."""

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class AttentionWeights(nn.Module):
    """Weights of multi-head attention (arXiv 2005.08100) with the relative positions of Transformer-XL (1901.02860).

    In each head of d features, frame t gives frame u, if it sees it, the score

        ((q_t + b)·k_u + (q_t + c)·W r_{t-u}) / √d,

    where r_δ is the sinusoid of the distance δ; b, c and W are learnt. There are no absolute positions, and
    sinusoids are computed for the distances that occur, so there is no limit to the length. Time and memory grow with
    the frames of a run times those that it sees, and the state with the left context.

    Args:
        dim: D, features in.
        num_heads: H.
        head_dim: d.
        dropout: of the weights.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"relative positions take an even dim, not {dim}")
        bound = head_dim**-0.5
        self.projection = nn.Linear(dim, 2 * num_heads * head_dim)
        self.position_projection = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, head_dim).uniform_(-bound, bound))
        self.position_bias = nn.Parameter(torch.empty(num_heads, head_dim).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys of the last L chunks, and which of their frames are valid: see :func:`past_frames`."""
        weight = self.projection.weight
        return {
            "key": past_frames(batch_size, chunk, weight, self.content_bias.numel()),
            "valid": past_frames(batch_size, chunk, weight, 1),
        }

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to weights (N, H, T, S), and the state that follows.

        The S frames are those of the P chunks in ``state`` and of the run. Padded frames get no weight; the weights
        that they give mean nothing.
        """
        # A weight of zero does not silence what is not finite, so padding is zeroed as well as masked.
        query, key = self.projection(grid.zero_padding(x)).chunk(2, dim=-1)  # (N, T, H·d) both
        keys, next_key = remember_frames(grid, state["key"], key)  # (N, S, H·d)
        valid, next_valid = remember_frames(grid, state["valid"], grid.valid[..., None])  # (N, S, 1)
        num_past = state["key"].size(1)
        masked = grid.cached(("masked", num_past), lambda: grid.attention_mask(num_past) | (valid.mT == 0))  # (N, T, S)
        weights = self.weigh(query, keys.to(query.dtype), masked, grid)
        return weights, {"key": next_key, "valid": next_valid}

    def weigh(self, query: Tensor, key: Tensor, masked: Tensor, grid: ChunkGrid) -> Tensor:
        """Queries (N, T, H·d) of the last T of the frames of key (N, S, H·d) to weights (N, H, T, S).

        ``masked`` (N, T, S) is true where a frame does not see another.
        """
        heads = self.content_bias.shape  # (H, d)
        query, key = (x.unflatten(-1, heads) for x in (query, key))
        num_keys, scale = key.size(1), heads[1] ** -0.5
        distances = self.project_distances(num_keys, grid)  # (H, d, W)
        # The (N, H, T, S) tensors dominate time and memory, so they are updated in place.
        scores = ((query + self.content_bias) * scale).transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (N, H, T, S)
        by_distance = ((query + self.position_bias) * scale).transpose(1, 2) @ distances  # (N, H, T, W)
        scores.add_(by_frame(by_distance, num_keys))
        # Finite: a frame that sees nothing, in the padding, must not give NaN.
        scores.masked_fill_(masked[:, None], torch.finfo(scores.dtype).min)
        return self.dropout(scores.softmax(-1))

    def project_distances(self, num_keys: int, grid: ChunkGrid) -> Tensor:
        """W r_δ for the distances δ = S, S-1 … 1-C that occur, in heads: (H, d, S+C). C is the grid's chunk size."""
        weight = self.position_projection.weight
        distances = grid.cached(
            ("sinusoids", num_keys, weight.size(1), weight.dtype),
            lambda: sinusoids(
                torch.arange(num_keys, -grid.chunk_size, -1, device=weight.device), weight.size(1), weight.dtype
            ),
        )
        return self.position_projection(distances).unflatten(-1, self.content_bias.shape).permute(1, 2, 0)


class AttentionValues(nn.Module):
    """Means of values with given attention weights, in heads, and a linear map of them.

    Args:
        dim: D, features in and out.
        num_heads: H.
        value_dim: v, features of a head's values.
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
        """x (N, T, D) and weights (N, H, T, S) to (N, T, D), and the state that follows."""
        projected = self.projection(grid.zero_padding(x))  # (N, T, H·v)
        values, next_value = remember_frames(grid, state["value"], projected)  # (N, S, H·v)
        heads = values.to(projected.dtype).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, H, S, v)
        return self.out((weights @ heads).transpose(1, 2).flatten(2)), {"value": next_value}


class RelativeAttention(nn.Module):
    """The Conformer's multi-head self-attention: weights and values of the same frames.

    Args:
        dim: D, features in and out.
        num_heads: H.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"attention takes a dim that is a multiple of num_heads, not {dim} and {num_heads}")
        self.weights = AttentionWeights(dim, num_heads, dim // num_heads, dropout)
        self.values = AttentionValues(dim, num_heads, dim // num_heads)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys and values of the last L chunks: see :func:`past_frames`."""
        return self.weights.init_state(batch_size, chunk) | self.values.init_state(batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state that follows. Padded frames are not seen."""
        weights, weights_state = self.weights(x, grid, state)
        y, values_state = self.values(x, grid, state, weights)
        return y, weights_state | values_state


def past_frames(batch_size: int, chunk: ChunkConfig, like: Tensor, width: int) -> Tensor:
    """Room for ``width`` numbers of each frame of the last L chunks, oldest first: zeros (N, L, C, width).

    With unlimited left context there is room for no chunk, and the state grows.
    """
    if chunk.chunk_size is None:
        raise ValueError("self-attention keeps frames chunk by chunk, so its state takes a chunk size")
    dtype = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros(batch_size, max(chunk.left_chunks, 0), chunk.chunk_size, width, dtype=dtype)


def remember_frames(grid: ChunkGrid, past: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """The frames of ``past`` (N, P, C, width) and of the run, ``new`` (N, T, width), in one row (N, S, width), and the
    ``past`` of the next run, as :meth:`ChunkGrid.remember` has it.

    Raises:
        ValueError: the run has other chunks than those in ``past``. The left context is counted in chunks of one size.
    """
    if grid.chunk_size != past.size(2):
        raise ValueError(
            f"this stream began with chunks of {past.size(2)} frames, and self-attention cannot change their size: "
            f"a chunk of {grid.chunk_size} takes a new state"
        )
    row, kept = grid.remember(past, grid.chunked(new))
    return row.flatten(1, 2), kept


def sinusoids(distances: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Sines and cosines of (M,) distances at dim/2 wave lengths from 2π to 20000π, (M, dim); computed in float32 or
    wider, whatever ``dtype`` they are returned in."""
    exact = torch.promote_types(dtype, torch.float32)
    frequencies = 10000 ** (-torch.arange(0, dim, 2, dtype=exact, device=distances.device) / dim)
    angles = distances[:, None] * frequencies  # (M, dim/2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)


def by_frame(by_distance: Tensor, num_keys: int) -> Tensor:
    """Scores of the distances S, S-1 …, (N, H, T, W), seen as scores of the frames 0 … S-1: (N, H, T, S), no copy.

    Query t is frame S-T+t, so frame u is at the distance S-T+t-u, in column T-t+u: one further left in each next
    row. With all rows in one line, that is place T + t(W-1) + u: rows W-1 apart, beginning at T. Frames beyond the
    last column read from the next row; they are later than the chunk, and masked.
    """
    by_distance = by_distance.contiguous()  # as products of matrices are already
    *outer, num_queries, width = by_distance.shape
    strides = (*by_distance.stride()[:-2], width - 1, 1)
    start = by_distance.storage_offset() + num_queries
    return by_distance.as_strided((*outer, num_queries, num_keys), strides, start)
