"""Brute-force references: visibility of frames, cell by cell, and sums over visible frames."""

import math

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig


def visibility(lengths: list[int], num_frames: int, chunk: ChunkConfig) -> Tensor:
    """(N, T, T) bool: [n, t, u] is True if frame t of utterance n sees frame u. Cell by cell."""
    size = chunk.chunk_size or num_frames
    sees = torch.zeros(len(lengths), num_frames, num_frames, dtype=torch.bool)
    for n, length in enumerate(lengths):
        for t in range(num_frames):
            for u in range(min(length, num_frames)):
                on_the_left = t // size - u // size
                sees[n, t, u] = on_the_left >= 0 and (chunk.left_chunks < 0 or on_the_left <= chunk.left_chunks)
    return sees


def masked_mean(values: Tensor, sees: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Mean (N, T, P) of ``values`` (N, T, P) over the frames that each frame sees (N, T, T), weighted by ``weights``
    (T, T) in all utterances; zero for frames that see no frame."""
    weights = sees.to(values.dtype) * weights  # (N, T, T)
    total = torch.einsum("ntu,nup->ntp", weights, values)
    return total / weights.sum(-1, keepdim=True).clamp(min=1e-300)


def decay_weights(num_frames: int, chunk_size: int, frame_ms: int, decay_seconds: float) -> Tensor:
    """(T, T): weight of frame u for frame t, by the time between their chunks. Cell by cell."""
    weights = torch.ones(num_frames, num_frames, dtype=torch.float64)
    for t in range(num_frames):
        for u in range(t):
            seconds = (t // chunk_size - u // chunk_size) * chunk_size * frame_ms / 1000
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
