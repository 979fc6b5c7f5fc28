"""Long inputs a block of frames at a time, where frames do not depend on each other."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_FRAMES = 1024  # of all utterances together: some MiB, which caches hold and the allocator keeps
LEAST_FRAMES = 64  # of an utterance, however many there are: pieces of many utterances are copied before each product


def as_it_is(x: Tensor) -> Tensor:
    """x: nothing is done before, or after."""
    return x


def the_result(x: Tensor, result: Tensor) -> Tensor:
    """What a module has made of x: nothing is done after it."""
    return result


def in_blocks(
    function: Callable[..., Tensor],
    x: Tensor,
    *others: Tensor,
    stride: int = 1,
    overlap: int = 0,
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """``function(x, *others)``, where rows do not depend on each other.

    Row r is made of the frames r·stride … r·stride + stride + overlap - 1 of x (N, T, F), before and behind which there
    are ``padding`` frames of zeros, and of the r-th of R equal parts of the others, each (N, m·R, …). A function of R
    rows gives (N, m·R, D): m frames for each, whatever R is.

    In inference on CPU it is computed in blocks of rows. What a function makes on the way, which may be many times
    as wide as its result, then takes memory for one block only. That is also faster: large pieces of memory are
    handed back to the system after each use, and it clears every page anew when they are used again.
    """

    def at_once() -> Tensor:
        return function(F.pad(x, (0, 0, *padding)) if any(padding) else x, *others)

    is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if torch.is_grad_enabled() or is_graph or x.device.type != "cpu":
        return at_once()
    num_rows = (padding[0] + x.size(1) + padding[1] - overlap) // stride
    size = max(max(BLOCK_FRAMES // x.size(0), LEAST_FRAMES) // stride, 1)
    if num_rows <= size:
        return at_once()
    out: Tensor | None = None
    for start in range(0, num_rows, size):
        stop = min(start + size, num_rows)
        frames = padded_slice(x, stride * start - padding[0], stride * stop + overlap - padding[0])
        block = function(frames, *(rows_of(other, num_rows, start, stop) for other in others))
        if out is None:
            out = block.new_empty(x.size(0), block.size(1) // (stop - start) * num_rows, block.size(-1))  # (N, m·R, D)
        rows_of(out, num_rows, start, stop).copy_(block)
    assert out is not None
    return out


def rows_of(x: Tensor, num_rows: int, start: int, stop: int) -> Tensor:
    """Rows ``start`` … ``stop`` - 1 of x (N, m·R, …), where each of the R has m frames."""
    times = x.size(1) // num_rows
    return x[:, times * start : times * stop]


def padded_slice(x: Tensor, start: int, stop: int) -> Tensor:
    """Frames ``start`` … ``stop`` - 1 of x (N, T, F), zeros where it has none: (N, stop - start, F)."""
    size = stop - start
    first, last = (min(max(end, 0), x.size(1)) for end in (start, stop))
    frames = x[:, first:last]
    if frames.size(1) == size:
        return frames
    before = min(max(-start, 0), size)
    return F.pad(frames, (0, 0, before, size - before - frames.size(1)))
