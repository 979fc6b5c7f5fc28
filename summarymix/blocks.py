"""Long inputs a block of frames at a time, where frames do not depend on each other."""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK_FRAMES = 1024  # of all utterances together: some MiB, which caches hold and the allocator keeps
LEAST_FRAMES = 64  # of an utterance, however many there are: pieces of many utterances are copied before each product


def in_blocks(function: Callable[..., Tensor], x: Tensor, *others: Tensor, stride: int = 1, overlap: int = 0) -> Tensor:
    """``function(x, *others)``, where rows do not depend on each other.

    Row r is made of the frames r·stride … r·stride + stride + overlap - 1 of x (N, T, F) and of row r of the others,
    each (N, R, …). A function of R rows gives (N, m·R, D): m frames for each, whatever R is.

    In inference on CPU it is computed in blocks of rows. What a function makes on the way, which may be many times
    as wide as its result, then takes memory for one block only. That is also faster: large pieces of memory are
    handed back to the system after each use, and it clears every page anew when they are used again.
    """
    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if torch.is_grad_enabled() or is_graph or x.device.type != "cpu":
        return function(x, *others)
    num_rows = (x.size(1) - overlap) // stride
    size = max(max(BLOCK_FRAMES // x.size(0), LEAST_FRAMES) // stride, 1)
    if num_rows <= size:
        return function(x, *others)
    out: Tensor | None = None
    for start in range(0, num_rows, size):
        stop = min(start + size, num_rows)
        block = function(x[:, stride * start : stride * stop + overlap], *(other[:, start:stop] for other in others))
        frames = block.size(1) // (stop - start)  # of a row
        if out is None:
            out = block.new_empty(x.size(0), frames * num_rows, block.size(-1))  # (N, m·R, D)
        out[:, frames * start : frames * stop] = block
    assert out is not None
    return out
