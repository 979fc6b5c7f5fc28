"""Piecewise evaluation of frame-local functions on long inputs."""

from collections.abc import Callable

import torch
from torch import Tensor

PIECE_FRAMES = 1024  # over all utterances: a few MiB, which fit the caches and stay with the allocator
LEAST_FRAMES = 64  # per utterance, at least: pieces of many utterances are copied before each product


def is_recorded() -> bool:
    """True if operations are recorded, for gradients or a graph: then the whole input is one piece."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


def piece_frames(batch_size: int) -> int:
    """Return the frames per utterance in a piece."""
    return max(PIECE_FRAMES // batch_size, LEAST_FRAMES)


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, stride: int = 1, overlap: int = 0) -> Tensor:
    """Compute ``function(x)``, whose row r depends only on frames r·stride … (r + 1)·stride + overlap - 1 of x.

    CPU inference proceeds piece by piece, so that wide intermediate results take memory for one piece only. It is also
    faster: they stay in the caches, while large blocks of memory go back to the system after each use.

    Args:
        function: (N, R·stride + overlap, F) to (N, R, D), for any R.
        x: (N, T, F).
        stride: frames from row to row.
        overlap: further frames that a row depends on.
    """
    if is_recorded() or x.device.type != "cpu":
        return function(x)
    num_rows = (x.size(1) - overlap) // stride
    size = max(piece_frames(x.size(0)) // stride, 1)
    if num_rows <= size:
        return function(x)
    out: Tensor | None = None
    for start in range(0, num_rows, size):
        stop = min(start + size, num_rows)
        piece = function(x[:, stride * start : stride * stop + overlap])  # (N, stop - start, D)
        if out is None:
            out = piece.new_empty(x.size(0), num_rows, piece.size(-1))
        out[:, start:stop] = piece
    assert out is not None
    return out
