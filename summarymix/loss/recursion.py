"""The sum over all alignments in a transducer lattice, and how often each arc is taken.

A lattice has nodes (s, t): s symbols emitted, t frames consumed. From each node one arc emits symbol s
(log-probability ``px[s, t]``) and one emits blank, consuming frame t (``py[s, t]``). In the regular
lattice a symbol consumes no frame, (s, t) -> (s+1, t); otherwise it consumes one, (s, t) -> (s+1, t+1).

Numbering nodes by k = s + t (regular) or k = t makes both the same recursion: every arc goes from k to
k + 1, and blank stays on s while a symbol goes to s + 1. So one step of the loop below advances a whole
wavefront of nodes, of all utterances, and the backward variables ride along as further batch entries with
the lattice reversed.

Sums over thousands of frames need more than float32: at 4000 frames a log-probability is some -20000,
where float32 resolves 0.002, an error of as much in every occupation. The lattice is small beside the
logits it comes from, so it is always summed in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEVER = float("-inf")


def sum_over_paths(
    px: Tensor, py: Tensor, boundary: Tensor, regular: bool, return_occupations: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Log of the total probability of all paths from (s_begin, t_begin) to (s_end, t_end).

    Args:
        px: ``(B, S, T)`` log-probability of emitting symbol s at frame t. May hold -inf.
        py: ``(B, S+1, T)`` log-probability of blank at frame t after s symbols. May hold -inf.
        boundary: ``(B, 4)`` int64, ``[s_begin, t_begin, s_end, t_end]``; what lies outside is not read.
        regular: whether symbols consume no frame.
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
    B, S, T = px.shape
    steps = T + S if regular else T
    copies = 2 if with_occupations else 1  # forward variables, and backward variables as entries B..2B-1
    s_begin, t_begin, s_end, t_end = boundary[:, :, None, None].unbind(1)  # each (B, 1, 1)

    # arcs[k, 0, b, s] enters node s from s-1 by a symbol, arcs[k, 1, b, s] by blank from s itself.
    arcs = px.new_full((steps, 2, copies * B, S + 1), NEVER, dtype=torch.float64)
    px_arcs, py_arcs = _lattice_views(arcs, B, T, regular)  # (B, S, T), (B, S+1, T)
    s = torch.arange(S + 1, device=px.device)[:, None]  # (S+1, 1)
    t = torch.arange(T, device=px.device)  # (T,)
    frames = (t_begin <= t) & (t < t_end)  # (B, 1, T)
    px_outside = ~(frames & (s_begin <= s[:S]) & (s[:S] < s_end))  # (B, S, T)
    py_outside = ~(frames & (s_begin <= s) & (s <= s_end))  # (B, S+1, T)
    px_arcs.copy_(px).masked_fill_(px_outside, NEVER)
    py_arcs.copy_(py).masked_fill_(py_outside, NEVER)

    # All utterances take the same number of steps: each waits in its first node until its lattice begins
    # and in its last after it has ended, free of charge.
    k = torch.arange(steps, device=px.device)[:, None, None]  # (steps, 1, 1)
    k_begin = t_begin[:, :, 0] + (s_begin[:, :, 0] if regular else 0)  # (B, 1)
    k_end = t_end[:, :, 0] + (s_end[:, :, 0] if regular else 0)  # (B, 1)
    blanks = arcs[:, 1, :B]  # (steps, B, S+1)
    for node, waiting in ((s_begin, k < k_begin), (s_end, k >= k_end)):
        node = node[:, :, 0].expand(steps, B, 1)
        blanks.scatter_(2, node, blanks.gather(2, node).masked_fill(waiting, 0.0))

    # One column in front stays -inf: no node is left of s = 0.
    nodes = arcs.new_full((steps + 1, copies * B, S + 2), NEVER)
    nodes[0, :B, 1:].scatter_(1, s_begin[:, 0], 0.0)
    if with_occupations:
        arcs[:, 0, B:, 1:] = arcs[:, 0, :B, 1:].flip(0, 2)
        arcs[:, 1, B:] = arcs[:, 1, :B].flip(0, 2)
        nodes[0, B:, 1:].scatter_(1, S - s_end[:, 0], 0.0)
    _advance(arcs, nodes)

    alpha = nodes[:, :B, 1:]  # (steps+1, B, S+1)
    total = alpha[-1].gather(1, s_end[:, 0])  # (B, 1)
    if not with_occupations:
        return total[:, 0].to(px.dtype), None, None

    # P(arc) = exp(alpha before + arc + beta after - total), computed in place of the arcs.
    beta = nodes[:, B:, 1:].flip(0, 2)  # (steps+1, B, S+1)
    beta -= total.masked_fill(total == NEVER, 0.0)
    arcs[:, 0, :B, 1:] += alpha[:-1, :, :-1]
    arcs[:, 0, :B, 1:] += beta[1:, :, 1:]
    arcs[:, 1, :B] += alpha[:-1]
    arcs[:, 1, :B] += beta[1:]
    arcs[:, :, :B].exp_()
    px_occupation = px_arcs.to(px.dtype, memory_format=torch.contiguous_format)
    py_occupation = py_arcs.to(py.dtype, memory_format=torch.contiguous_format)
    py_occupation.masked_fill_(py_outside, 0.0)  # the waiting
    return total[:, 0].to(px.dtype), px_occupation, py_occupation


def _lattice_views(arcs: Tensor, batch: int, frames: int, regular: bool) -> tuple[Tensor, Tensor]:
    """The first ``batch`` entries of ``arcs`` seen as px ``(B, S, T)`` and py ``(B, S+1, T)``.

    In the regular lattice t = k - s: moving one symbol on at the same frame is also one step on.
    """
    step, kind, entry, node = arcs.stride()
    S = arcs.shape[3] - 1
    strides = (entry, node + step if regular else node, step)
    # The symbol arc from s = 0 lands in node 1.
    px = arcs.as_strided((batch, S, frames), strides, node)
    py = arcs.as_strided((batch, S + 1, frames), strides, kind)
    return px, py


def _advance(arcs: Tensor, nodes: Tensor) -> None:
    """nodes[k+1, n, s] = log(exp(nodes[k, n, s-1] + arcs[k, 0, n, s]) + exp(nodes[k, n, s] + arcs[k, 1, n, s])).

    ``nodes`` has a column of -inf in front of s = 0, so that the same memory, seen from one column
    further left, is the wavefront shifted by one symbol: one addition serves both kinds of arc.
    """
    steps, kinds, N, width = arcs.shape
    step, entry, node = nodes.stride()
    origins = nodes.as_strided((steps, kinds, N, width), (step, node, entry, node))
    arrivals = torch.empty_like(arcs[0])  # (2, N, S+1)
    by_symbol, by_blank = arrivals.unbind(0)
    for origin, arc, target in zip(origins.unbind(0), arcs.unbind(0), nodes[1:, :, 1:].unbind(0), strict=True):
        torch.add(origin, arc, out=arrivals)
        torch.logaddexp(by_symbol, by_blank, out=target)
