"""Self-attention with relative positions: the quadratic twin of SummaryMixing, for comparisons."""

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class RelativeAttention(nn.Module):
    """The Conformer's multi-head self-attention (arXiv 2005.08100), with the positions of Transformer-XL (1901.02860).

    In each head of d features, frame t gives frame u, if it sees it, the score

        ((q_t + b)·k_u + (q_t + c)·W r_{t-u}) / √d,

    where r_δ is the sinusoid of the distance δ; b, c and W are learnt. There are no absolute positions, and
    sinusoids are computed for the distances that occur, so there is no limit to the length. Time and memory grow with
    T² in :meth:`forward`, and the streaming state with the left context.

    Args:
        dim: D, features in and out.
        num_heads: H.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % 2 or dim % num_heads:
            raise ValueError(f"attention takes an even dim that is a multiple of num_heads, not {dim} and {num_heads}")
        bound = (dim // num_heads) ** -0.5
        self.projection = nn.Linear(dim, 3 * dim)
        self.position_projection = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads).uniform_(-bound, bound))
        self.position_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances: x (N, T, D) to (N, T, D). Padded frames are not seen; their output means nothing."""
        query, key, value = self.project(x, grid)
        return self.attend(query, key, value, grid.hidden, grid)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Keys and values (N, L, C, D) of the last L chunks, oldest first, and which of them are valid frames: zeros.

        Raises:
            ValueError: the left context is not limited, or the chunk is a whole utterance.
        """
        if chunk.left_chunks < 0 or chunk.chunk_size is None:
            raise ValueError(
                f"self-attention cannot stream with {chunk}: it keeps the keys and values of all frames of a chunk's "
                "left context. Limit it with --left-chunks N; only SummaryMixing streams with unlimited left context"
            )
        weight = self.out.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        frames = (batch_size, chunk.left_chunks, chunk.chunk_size)
        return {
            "key": weight.new_zeros(*frames, weight.size(0), dtype=dtype),
            "value": weight.new_zeros(*frames, weight.size(0), dtype=dtype),
            "valid": weight.new_zeros(frames, dtype=dtype),
        }

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) on a grid of one chunk to (N, C, D), and the state that follows.

        Raises:
            ValueError: C is not that of the state. The left context is counted in chunks of one size.
        """
        chunk_size = state["valid"].size(2)
        if x.size(1) != chunk_size:
            raise ValueError(
                f"this stream began with chunks of {chunk_size} frames and self-attention keeps to that: "
                f"a chunk of {x.size(1)} takes a new state"
            )
        query, key, value = self.project(x, grid)
        new = {"key": key, "value": value, "valid": grid.valid}
        seen = {
            name: torch.cat([past, new[name][:, None].to(past.dtype)], dim=1) for name, past in state.items()
        }  # (N, L+1, C, …)
        key, value = (seen[name].flatten(1, 2).to(query.dtype) for name in ("key", "value"))  # (N, (L+1)·C, D)
        hidden = seen["valid"].flatten(1)[:, None] == 0  # (N, 1, (L+1)·C)
        return self.attend(query, key, value, hidden, grid), {name: tensor[:, 1:] for name, tensor in seen.items()}

    @property
    def last(self) -> nn.Linear:
        """The map that the output comes from."""
        return self.out

    def project(self, x: Tensor, grid: ChunkGrid) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (N, T, D) each."""
        # A weight of zero does not silence what is not finite, so padding is zeroed as well as hidden.
        query, key, value = self.projection(grid.zero_padding(x)).chunk(3, dim=-1)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, grid: ChunkGrid) -> Tensor:
        """Queries (N, Q, D), which are the last Q of the frames of key and value (N, K, D), to (N, Q, D).

        ``hidden``, (N, Q, K) or (N, 1, K), is true where a query does not see a frame.
        """
        heads = self.content_bias.shape  # (H, d)
        query, key, value = (x.unflatten(-1, heads) for x in (query, key, value))
        num_keys, scale = key.size(1), heads[1] ** -0.5
        distances = self.project_distances(num_keys, grid)  # (H, d, W)
        # What has Q·K numbers costs most, so it is changed in place where it can be.
        scores = ((query + self.content_bias) * scale).transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (N, H, Q, K)
        by_distance = ((query + self.position_bias) * scale).transpose(1, 2) @ distances  # (N, H, Q, W)
        scores.add_(by_frame(by_distance, num_keys))
        # Finite: a frame that sees nothing, in the padding, must not give NaN.
        scores.masked_fill_(hidden[:, None], torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(-1))
        return self.out((weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2))

    def project_distances(self, num_keys: int, grid: ChunkGrid) -> Tensor:
        """W r_δ for the distances δ = K, K-1 … 1-C that occur, in heads: (H, d, K+C). C is the grid's chunk size."""
        weight = self.position_projection.weight
        distances = grid.shared(
            ("sinusoids", num_keys, weight.shape, weight.dtype),
            lambda: sinusoids(
                torch.arange(num_keys, -grid.chunk_size, -1, device=weight.device), weight.size(1), weight.dtype
            ),
        )
        return self.position_projection(distances).unflatten(-1, self.content_bias.shape).permute(1, 2, 0)


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
