"""The sum over all alignments in a transducer lattice, and the occupation of each arc.

A lattice has nodes (s, t): s symbols emitted, t frames consumed. From each node one arc emits symbol s
(log-probability ``px[s, t]``) and one emits blank, consuming frame t (``py[s, t]``). In the regular
lattice a symbol consumes no frame, (s, t) -> (s+1, t); otherwise it consumes one, (s, t) -> (s+1, t+1).

Numbering nodes by k = s + t (regular) or k = t makes both the same recursion: every arc goes from k to
k + 1, and blank stays on s while a symbol goes to s + 1. So one step of the loops below moves a whole
wavefront of nodes, of all utterances.

Sums over thousands of frames need more than float32: at 4000 frames a log-probability is some -20000,
where float32 resolves 0.002, and every occupation has an error of this size. The lattice is small
compared with the logits, so it is always summed in float64.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEVER = float("-inf")


def sum_over_paths(
    px: Tensor, py: Tensor, boundary: Tensor, regular: bool, return_occupations: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the log of the total probability of all paths from (s_begin, t_begin) to (s_end, t_end).

    Args:
        px: ``(B, S, T)`` log-probability of emitting symbol s at frame t. May hold -inf.
        py: ``(B, S+1, T)`` log-probability of blank at frame t after s symbols. May hold -inf.
        boundary: ``(B, 4)`` int64, ``[s_begin, t_begin, s_end, t_end]``; arcs outside it are not read.
        regular: True if symbols consume no frame.
        return_occupations: return the occupations also when no gradient is needed.

    Returns:
        The sum ``(B,)``, -inf where no path exists, and the occupations of px and py: the probability
        that a path takes that arc, which is the gradient of the sum. They have no gradient of their
        own, are zero outside the boundary and where no path exists, and are None if not needed.
    """
    needed = return_occupations or px.requires_grad or py.requires_grad
    return _SumOverPaths.apply(px, py, boundary, regular, needed)


class _SumOverPaths(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, px: Tensor, py: Tensor, boundary: Tensor, regular: bool, needed: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        total, px_occupation, py_occupation = _wavefront(px, py, boundary, regular, needed)
        if px_occupation is not None and py_occupation is not None:
            ctx.mark_non_differentiable(px_occupation, py_occupation)
            ctx.save_for_backward(px_occupation, py_occupation)
        ctx.set_materialize_grads(False)
        return total, px_occupation, py_occupation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        px_occupation, py_occupation = ctx.saved_tensors
        grad = grad[:, None, None]
        return px_occupation * grad, py_occupation * grad, None, None, None


def _wavefront(
    px: Tensor, py: Tensor, boundary: Tensor, regular: bool, with_occupations: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s_begin, _, s_end, _ = boundary[:, :, None].unbind(1)  # each (B, 1)
    arcs, py_outside = _make_arcs(px, py, boundary, regular)  # (steps, 2, B, S+2), (B, S+1, T)
    steps, _, B, width = arcs.shape
    # The column before s = 0 stays empty, see _advance.
    nodes = arcs.new_full((steps + 1, B, width), NEVER)
    nodes[0].scatter_(1, s_begin + 1, 0.0)
    advance, retreat = _loops(px.device)
    advance(arcs, nodes)
    total = nodes[-1].gather(1, s_end + 1)  # (B, 1)
    if not with_occupations:
        return total[:, 0].to(px.dtype), None, None

    at_end = torch.zeros_like(nodes[-1, :, 1:]).scatter_(1, s_end, (total != NEVER).double())  # (B, S+1)
    _turn_into_shares(arcs, nodes)
    retreat(arcs, at_end)
    px_occupation, py_occupation = (
        view.to(px.dtype, memory_format=torch.contiguous_format) for view in _lattice_views(arcs, px.size(2), regular)
    )  # (B, S, T), (B, S+1, T)
    py_occupation.masked_fill_(py_outside, 0.0)  # the waiting arcs
    return total[:, 0].to(px.dtype), px_occupation, py_occupation


def _make_arcs(px: Tensor, py: Tensor, boundary: Tensor, regular: bool) -> tuple[Tensor, Tensor]:
    """Lay the arcs out by wavefronts.

    Returns:
        ``(steps, 2, B, S+2)`` float64: [k, 0, b, s] arrives at node s from s-1 by a symbol, [k, 1, b, s] by blank from
        s itself. The column after s = S stays empty, see :func:`_retreat`. And a mask ``(B, S+1, T)`` of the blanks
        outside the boundary.
    """
    B, S, T = px.shape
    s_begin, t_begin, s_end, t_end = boundary[:, :, None].unbind(1)  # each (B, 1)
    s = torch.arange(S + 1, device=px.device)  # (S+1,)
    t = torch.arange(T, device=px.device)  # (T,)
    frames = ((t_begin <= t) & (t < t_end))[:, None]  # (B, 1, T)
    px_outside = ~(frames & ((s_begin <= s[:S]) & (s[:S] < s_end))[:, :, None])  # (B, S, T)
    py_outside = ~(frames & ((s_begin <= s) & (s <= s_end))[:, :, None])  # (B, S+1, T)

    steps = T + S if regular else T
    arcs = px.new_full((steps, 2, B, S + 2), NEVER, dtype=torch.float64)
    px_arcs, py_arcs = _lattice_views(arcs, T, regular)  # (B, S, T), (B, S+1, T)
    px_arcs.copy_(px.masked_fill(px_outside, NEVER))
    py_arcs.copy_(py.masked_fill(py_outside, NEVER))

    # All utterances take the same number of steps: each waits in its first node until its lattice begins
    # and in its last node after it has ended, with log-probability 0.
    k = torch.arange(steps, device=px.device)[:, None, None]  # (steps, 1, 1)
    k_begin = t_begin + s_begin if regular else t_begin  # (B, 1)
    k_end = t_end + s_end if regular else t_end  # (B, 1)
    blanks = arcs[:, 1]  # (steps, B, S+2)
    for node, waiting in ((s_begin, k < k_begin), (s_end, k >= k_end)):
        node = node.expand(steps, B, 1)
        blanks.scatter_(2, node, blanks.gather(2, node).masked_fill(waiting, 0.0))
    return arcs, py_outside


def _turn_into_shares(arcs: Tensor, nodes: Tensor) -> None:
    """Turn the arcs, in place, into their shares of the occupation of the nodes that they arrive at.

    The forward variables ``nodes`` determine the shares, so that the occupations of each step sum to the final
    occupation whatever the rounding.
    """
    targets = nodes[1:, None, :, 1:]  # (steps, 1, B, S+1)
    shares = arcs[..., :-1]  # (steps, 2, B, S+1)
    shares += _origins(nodes)
    shares -= targets.masked_fill(targets == NEVER, 0.0)
    arcs.exp_()


def _lattice_views(arcs: Tensor, frames: int, regular: bool) -> tuple[Tensor, Tensor]:
    """View the memory of ``arcs`` as px ``(B, S, T)`` and py ``(B, S+1, T)``.

    In the regular lattice k = s + t: one symbol further on at the same frame is also one step further on.
    """
    _, _, B, width = arcs.shape
    step, kind, entry, node = arcs.stride()
    strides = (entry, node + step if regular else node, step)
    px = arcs.as_strided((B, width - 2, frames), strides, node)  # the symbol arc from s = 0 arrives at 1
    py = arcs.as_strided((B, width - 1, frames), strides, kind)
    return px, py


def _loops(device: torch.device) -> tuple[Callable[[Tensor, Tensor], None], Callable[[Tensor, Tensor], None]]:
    """Choose the loops for ``device``: Triton kernels on CUDA, where launching kernels is what takes time."""
    if device.type == "cuda":
        # Imported only here: Triton comes with PyTorch for CUDA, and not with all others.
        from summarymix.loss import triton_recursion

        return triton_recursion.advance, triton_recursion.retreat
    return _advance, _retreat


def _advance(arcs: Tensor, nodes: Tensor) -> None:
    """Compute forward variables, the log-probability of reaching each node, step by step from ``nodes[0]``.

    ``nodes[k, b, 1 + s]`` is node s. Because of the empty first column, the same memory viewed from one column
    further left is the wavefront shifted by one symbol: a single addition serves both kinds of arc.
    """
    arrivals = torch.empty_like(arcs[0, :, :, :-1])  # (2, B, S+1)
    by_symbol, by_blank = arrivals
    steps = (_origins(nodes), arcs[..., :-1], nodes[1:, :, 1:])
    for origin, arc, target in zip(*(x.unbind(0) for x in steps), strict=True):
        torch.add(origin, arc, out=arrivals)
        torch.logaddexp(by_symbol, by_blank, out=target)


def _retreat(shares: Tensor, at_end: Tensor) -> None:
    """Turn the arcs' ``shares`` of the nodes they arrive at into occupations, from those of the last nodes (B, S+1)."""
    occupation = at_end
    arriving = shares[..., :-1]  # (steps, 2, B, S+1)
    steps = (arriving, shares[:, 0, :, 1:], arriving[:, 1])
    for share, by_symbol, by_blank in zip(*(reversed(x.unbind(0)) for x in steps), strict=True):
        share *= occupation
        torch.add(by_symbol, by_blank, out=occupation)  # symbol arcs left from one node further left


def _origins(nodes: Tensor) -> Tensor:
    """View ``(steps, 2, B, S+1)`` of the origins of arcs [k, 0, b, s] and [k, 1, b, s]: nodes s-1 and s."""
    steps, B, width = nodes.shape
    step, entry, node = nodes.stride()
    return nodes.as_strided((steps - 1, 2, B, width - 1), (step, node, entry, node))
