"""Self-attention with relative positions: the quadratic twin of SummaryMixing, for comparisons."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from summarymix.blocks.pieces import as_it_is, the_result
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class AttentionWeights(nn.Module):
    """What frames have of each other: the weights of multi-head attention (arXiv 2005.08100), with the relative
    positions of Transformer-XL (1901.02860).

    In each head of d features, frame t gives frame u, if it sees it, the score

        ((q_t + b)·k_u + (q_t + c)·W r_{t-u}) / √d,

    where r_δ is the sinusoid of the distance δ; b, c and W are learnt. There are no absolute positions, and
    sinusoids are computed for the distances that occur, so there is no limit to the length. Time and memory grow with
    T² in :meth:`forward`, and the streaming state with the left context.

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

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances: x (N, T, D) to weights (N, H, T, T). Padded frames are not seen; their rows say nothing."""
        query, key = self.project(x, grid)
        return self.weigh(query, key, grid.hidden, grid)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys of the last L chunks, and which of them are valid frames: see :func:`past_frames`."""
        weight = self.projection.weight
        return {
            "key": past_frames(batch_size, chunk, weight, self.content_bias.numel()),
            "valid": past_frames(batch_size, chunk, weight, 1),
        }

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) on a grid of one chunk to weights (N, H, C, (L+1)·C), and the state that follows."""
        query, key = self.project(x, grid)
        keys, new_keys = push_frames(state["key"], key)
        valid, new_valid = push_frames(state["valid"], grid.valid[..., None])
        hidden = valid.squeeze(-1)[:, None] == 0  # (N, 1, (L+1)·C)
        return self.weigh(query, keys.to(query.dtype), hidden, grid), {"key": new_keys, "valid": new_valid}

    def project(self, x: Tensor, grid: ChunkGrid) -> tuple[Tensor, Tensor]:
        """Queries and keys, (N, T, H·d) both."""
        # A weight of zero does not silence what is not finite, so padding is zeroed as well as hidden.
        query, key = self.projection(grid.zero_padding(x)).chunk(2, dim=-1)
        return query, key

    def weigh(self, query: Tensor, key: Tensor, hidden: Tensor, grid: ChunkGrid) -> Tensor:
        """Queries (N, Q, H·d), which are of the last Q of the frames of key (N, K, H·d), to weights (N, H, Q, K).

        ``hidden``, (N, Q, K) or (N, 1, K), is true where a query does not see a frame.
        """
        heads = self.content_bias.shape  # (H, d)
        query, key = (x.unflatten(-1, heads) for x in (query, key))
        num_keys, scale = key.size(1), heads[1] ** -0.5
        distances = self.project_distances(num_keys, grid)  # (H, d, W)
        # What has Q·K numbers costs most, so it is changed in place where it can be.
        scores = ((query + self.content_bias) * scale).transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (N, H, Q, K)
        by_distance = ((query + self.position_bias) * scale).transpose(1, 2) @ distances  # (N, H, Q, W)
        scores.add_(by_frame(by_distance, num_keys))
        # Finite: a frame that sees nothing, in the padding, must not give NaN.
        scores.masked_fill_(hidden[:, None], torch.finfo(scores.dtype).min)
        return self.dropout(scores.softmax(-1))

    def project_distances(self, num_keys: int, grid: ChunkGrid) -> Tensor:
        """W r_δ for the distances δ = K, K-1 … 1-C that occur, in heads: (H, d, K+C). C is the grid's chunk size."""
        weight = self.position_projection.weight
        distances = grid.shared(
            ("sinusoids", num_keys, weight.size(1), weight.dtype),
            lambda: sinusoids(
                torch.arange(num_keys, -grid.chunk_size, -1, device=weight.device), weight.size(1), weight.dtype
            ),
        )
        return self.position_projection(distances).unflatten(-1, self.content_bias.shape).permute(1, 2, 0)


class AttentionValues(nn.Module):
    """What is made of attention's weights: W of the weighted means of values, in heads.

    Args:
        dim: D, features in and out.
        num_heads: H.
        value_dim: of a head.
    """

    def __init__(self, dim: int, num_heads: int, value_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(dim, num_heads * value_dim)
        self.out = nn.Linear(num_heads * value_dim, dim)

    def forward(self, x: Tensor, grid: ChunkGrid, weights: Tensor) -> Tensor:
        """Whole utterances: x (N, T, D), weights (N, H, T, T) to (N, T, D)."""
        return self.attend(self.projection(grid.zero_padding(x)), weights)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Values of the last L chunks: see :func:`past_frames`."""
        return {"value": past_frames(batch_size, chunk, self.projection.weight, self.projection.out_features)}

    def step(self, x: Tensor, grid: ChunkGrid, state: State, weights: Tensor) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D), weights (N, H, C, (L+1)·C) to (N, C, D), and the state that follows."""
        values, kept = push_frames(state["value"], self.projection(grid.zero_padding(x)))
        return self.attend(values.to(x.dtype), weights), {"value": kept}

    def attend(self, values: Tensor, weights: Tensor) -> Tensor:
        """(N, K, H·v) and (N, H, Q, K) to (N, Q, D)."""
        values = values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, H, K, v)
        return self.out((weights @ values).transpose(1, 2).flatten(2))


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

    def forward(
        self,
        x: Tensor,
        grid: ChunkGrid,
        before: Callable[[Tensor], Tensor] = as_it_is,
        after: Callable[[Tensor, Tensor], Tensor] = the_result,
    ) -> Tensor:
        """As that of SummaryMixing. Padded frames are not seen; their output means nothing."""
        values = before(x)
        return after(x, self.values(values, grid, self.weights(values, grid)))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Those of weights and values: see :func:`past_frames`."""
        return self.weights.init_state(batch_size, chunk) | self.values.init_state(batch_size, chunk)

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) on a grid of one chunk to (N, C, D), and the state that follows."""
        weights, weights_state = self.weights.step(x, grid, state)
        x, values_state = self.values.step(x, grid, state, weights)
        return x, weights_state | values_state


def past_frames(batch_size: int, chunk: ChunkConfig, like: Tensor, width: int) -> Tensor:
    """Room for something of each frame of the last L chunks, oldest first: zeros (N, L, C, width).

    Raises:
        ValueError: the left context is not limited, or the chunk is a whole utterance.
    """
    if chunk.left_chunks < 0 or chunk.chunk_size is None:
        raise ValueError(
            f"self-attention cannot stream with {chunk}: it keeps the keys and values of all frames of a chunk's "
            "left context. Limit it with --left-chunks N; only SummaryMixing streams with unlimited left context"
        )
    dtype = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros(batch_size, chunk.left_chunks, chunk.chunk_size, width, dtype=dtype)


def push_frames(past: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """All that a chunk sees, (N, (L+1)·C, width), and what the next one keeps of it, as ``past`` (N, L, C, width).

    Raises:
        ValueError: ``new`` is not of C frames. The left context is counted in chunks of one size.
    """
    chunk_size = past.size(2)
    if new.size(1) != chunk_size:
        raise ValueError(
            f"this stream began with chunks of {chunk_size} frames and self-attention keeps to that: "
            f"a chunk of {new.size(1)} takes a new state"
        )
    seen = torch.cat([past, new[:, None].to(past.dtype)], dim=1)  # (N, L+1, C, width)
    return seen.flatten(1, 2), seen[:, 1:]


def sinusoids(distances: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Sines and cosines of (M,) distances at dim/2 wave lengths from 2π to 20000π, (M, dim); computed in float32 or
    wider, whatever ``dtype`` they are returned in."""
    exact = torch.promote_types(dtype, torch.float32)
    frequencies = 10000 ** (-torch.arange(0, dim, 2, dtype=exact, device=distances.device) / dim)
    angles = distances[:, None] * frequencies  # (M, dim/2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)


def by_frame(by_distance: Tensor, num_keys: int) -> Tensor:
    """Scores of the distances K, K-1 …, (N, H, Q, W), seen as scores of the frames 0 … K-1: (N, H, Q, K), no copy.

    Query q is frame K-Q+q, so frame u is at the distance K-Q+q-u, in column Q-q+u: one further left in each next
    row. With all rows in one line, that is place Q + q(W-1) + u: rows W-1 apart, beginning at Q. Frames beyond the
    last column read from the next row; they are later than the chunk, and hidden.
    """
    by_distance = by_distance.contiguous()  # as products of matrices are already
    *outer, num_queries, width = by_distance.shape
    strides = (*by_distance.stride()[:-2], width - 1, 1)
    start = by_distance.storage_offset() + num_queries
    return by_distance.as_strided((*outer, num_queries, num_keys), strides, start)
