"""Long inputs a piece at a time, where frames do not depend on each other."""

from collections.abc import Callable

import torch
from torch import Tensor

PIECE_FRAMES = 1024  # of all utterances together: some MiB, which caches hold and the allocator keeps
LEAST_FRAMES = 64  # of an utterance, however many there are: pieces of many utterances are copied before each product


def is_recorded() -> bool:
    """Whether operations are recorded, for gradients or for a graph: then the whole input is one piece."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


def piece_frames(batch_size: int) -> int:
    """Frames of each utterance in a piece."""
    return max(PIECE_FRAMES // batch_size, LEAST_FRAMES)


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, stride: int = 1, overlap: int = 0) -> Tensor:
    """``function(x)``, of which row r depends on the frames r·stride … (r + 1)·stride + overlap - 1 of x alone.

    In inference on CPU it is computed piece by piece, so that wide intermediate results take memory for one piece only.
    That is also faster: they stay in the caches, and large blocks of memory go back to the system after each use.

    Args:
        function: (N, R·stride + overlap, F) to (N, R, D), for any R.
        x: (N, T, F).
        stride: frames from row to row.
        overlap: frames beyond these that a row depends on.
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
