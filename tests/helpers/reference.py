"""Brute-force references: visibility of frames, cell by cell, and sums over visible frames."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from summarymix.chunking import ChunkConfig


@st.composite
def chunk_configs(draw: st.DrawFn, largest: int = 9, most_left: int = 5) -> ChunkConfig:
    """A chunk size, a left context and a look-ahead."""
    size = draw(st.integers(1, largest))
    return ChunkConfig(size, draw(st.integers(-1, most_left)), draw(st.one_of(st.just(0), st.integers(0, 2 * size))))


def places(num_frames: int, chunk: ChunkConfig) -> list[tuple[int, int, bool]]:
    """Of each frame on the grid: its chunk, its time, and whether it is the chunk's own (no copy for look-ahead)."""
    own = chunk.chunk_size or num_frames
    size = own + chunk.lookahead
    return [(t // size, t // size * own + t % size, t % size < own) for t in range(num_frames)]


def visibility(lengths: list[int], num_frames: int, chunk: ChunkConfig) -> Tensor:
    """(N, T, T) bool: [n, t, u] is True if frame t of utterance n sees frame u. Cell by cell."""
    frames = places(num_frames, chunk)
    sees = torch.zeros(len(lengths), num_frames, num_frames, dtype=torch.bool)
    for n, length in enumerate(lengths):
        for t, (here, _, _) in enumerate(frames):
            for u, (there, time, is_own) in enumerate(frames):
                in_reach = here > there and is_own and (chunk.left_chunks < 0 or here - there <= chunk.left_chunks)
                sees[n, t, u] = time < length and (here == there or in_reach)
    return sees


def masked_mean(values: Tensor, sees: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Mean (N, T, P) of ``values`` (N, T, P) over the frames that each frame sees (N, T, T), weighted by ``weights``
    (T, T) in all utterances; zero for frames that see no frame."""
    weights = sees.to(values.dtype) * weights  # (N, T, T)
    total = torch.einsum("ntu,nup->ntp", weights, values)
    return total / weights.sum(-1, keepdim=True).clamp(min=1e-300)


def decay_weights(num_frames: int, chunk: ChunkConfig, frame_ms: int, decay_seconds: float) -> Tensor:
    """(T, T): weight of frame u for frame t, by the time between their chunks. Cell by cell."""
    frames = places(num_frames, chunk)
    weights = torch.ones(num_frames, num_frames, dtype=torch.float64)
    for t in range(num_frames):
        for u in range(t):
            seconds = (frames[t][0] - frames[u][0]) * (chunk.chunk_size or num_frames) * frame_ms / 1000
            weights[t, u] = math.exp(-seconds / decay_seconds)
    return weights


def dependencies(function, inputs: Tensor) -> Tensor:
    """(T_out, T_in) bool: True if output frame t depends on input frame u. ``inputs`` is (1, T, F)."""
    with torch.no_grad():
        base = function(inputs)[0]  # (T_out, D)
        moved = []
        for u in range(inputs.size(1)):
            changed = inputs.clone()
            changed[0, u] += torch.randn_like(changed[0, u])
            moved.append((function(changed)[0] != base).any(-1))
    return torch.stack(moved, dim=1)
