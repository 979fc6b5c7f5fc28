"""Long inputs a block of frames at a time, where frames do not depend on each other."""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK_FRAMES = 1024  # of all utterances together: some MiB, which caches hold and the allocator keeps


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor, stride: int = 1, overlap: int = 0) -> Tensor:
    """``function(x)``, of x (N, T, F) to (N, T', D), whose frame t is made of the input frames t·stride … t·stride +
    stride + overlap - 1.

    In inference on CPU it is computed in blocks of frames. What a function makes on the way, which may be many times
    as wide as its result, then takes memory for one block only. That is also faster: large pieces of memory are
    handed back to the system after each use, and it clears every page anew when they are used again.
    """
    num_frames = (x.size(1) - overlap) // stride
    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if torch.is_grad_enabled() or is_graph or x.device.type != "cpu" or x.size(0) * num_frames <= BLOCK_FRAMES:
        return function(x)
    size = max(BLOCK_FRAMES // x.size(0), 1)
    out: Tensor | None = None
    for start in range(0, num_frames, size):
        stop = min(start + size, num_frames)
        block = function(x[:, stride * start : stride * stop + overlap])  # (N, size, D)
        if out is None:
            out = block.new_empty(x.size(0), num_frames, block.size(-1))
        out[:, start:stop] = block
    assert out is not None
    return out
