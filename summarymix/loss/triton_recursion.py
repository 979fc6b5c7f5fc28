"""The two loops of the recursion as Triton kernels for CUDA: one program per utterance, one launch per direction.

In PyTorch each wavefront takes several kernels, thousands in a training step, and launching them takes longer than
computing them. The arrays, their layout and the arithmetic are those of :mod:`summarymix.loss.recursion`, in float64.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# The loops are written with ``while`` because Triton 3.6's interpreter, which the tests use, cannot run ``range``
# over an argument with NumPy 2.4.


@triton.jit
def _advance_kernel(arcs, nodes, steps, B, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    s = tl.arange(0, block)
    inside = s < width - 1
    never = float("-inf")
    wavefront = B * width
    origin = nodes + tl.program_id(0) * width + s
    symbol_arc = arcs + tl.program_id(0) * width + s
    k = 0
    while k < steps:
        by_symbol = tl.load(origin, inside, never) + tl.load(symbol_arc, inside, never)
        by_blank = tl.load(origin + 1, inside, never) + tl.load(symbol_arc + wavefront, inside, never)
        larger = tl.maximum(by_symbol, by_blank)
        shift = tl.where(larger > never, larger, 0.0)
        origin += wavefront
        # log(0) is -inf where no path arrives
        tl.store(origin + 1, shift + tl.log(tl.exp(by_symbol - shift) + tl.exp(by_blank - shift)), inside)
        tl.debug_barrier()  # the next step reads what other threads of this program have written
        symbol_arc += 2 * wavefront
        k += 1


@triton.jit
def _retreat_kernel(shares, at_end, steps, B, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    s = tl.arange(0, block)
    inside = s < width - 1
    wavefront = B * width
    occupation = tl.load(at_end + tl.program_id(0) * (width - 1) + s, inside, 0.0)
    symbol_arc = shares + tl.program_id(0) * width + s + tl.cast(steps - 1, tl.int64) * 2 * wavefront
    k = 0
    while k < steps:
        by_blank = tl.load(symbol_arc + wavefront, inside, 0.0) * occupation
        tl.store(symbol_arc + wavefront, by_blank, inside)
        tl.store(symbol_arc, tl.load(symbol_arc, inside, 0.0) * occupation, inside)
        tl.debug_barrier()
        occupation = tl.load(symbol_arc + 1, inside, 0.0) + by_blank  # symbol arcs left from one node further left
        symbol_arc -= 2 * wavefront
        k += 1


def advance(arcs: Tensor, nodes: Tensor) -> None:
    """Compute the forward variables step by step from ``nodes[0]``.

    Args:
        arcs: ``(steps, 2, B, S+2)`` float64, contiguous: log-probabilities.
        nodes: ``(steps + 1, B, S+2)`` float64, contiguous, filled in from the second step on.
    """
    steps, _, B, width = arcs.shape
    with torch.cuda.device_of(arcs):
        _advance_kernel[(B,)](arcs, nodes, steps, B, width, triton.next_power_of_2(width))


def retreat(shares: Tensor, at_end: Tensor) -> None:
    """Turn the arcs' shares of the nodes they arrive at into occupations, from the last step to the first.

    Args:
        shares: ``(steps, 2, B, S+2)`` float64, contiguous, changed in place. The last column is 0.
        at_end: ``(B, S+1)`` float64, contiguous: occupation of the last nodes.
    """
    steps, _, B, width = shares.shape
    with torch.cuda.device_of(shares):
        _retreat_kernel[(B,)](shares, at_end, steps, B, width, triton.next_power_of_2(width))
