"""Log-probabilities of the lattice's arcs from the networks' outputs."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from summarymix.loss.recursion import NEVER


def additive_log_probs(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    blank: int,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Compute px ``(B, S, T)`` and py ``(B, S+1, T)`` of an additive joiner: logits[s, t] = lm[s] + am[t].

    They are interpolated with log-probabilities from lm alone and from am with an averaged lm
    (arXiv 2206.13236, section 3.3). The average is over the batch, padding included, as in k2: with
    ``am_only_scale > 0`` an utterance's loss depends on the rest of its batch.

    Args:
        lm: ``(B, S+1, C)``; am: ``(B, T, C)``; symbols: ``(B, S)`` int64, all in [0, C).
    """
    S = symbols.shape[1]
    joint_scale = 1.0 - lm_only_scale - am_only_scale
    normalizer = joint_scale * _JointNormalizer.apply(lm, am)  # (B, S+1, T)
    if lm_only_scale:
        normalizer = normalizer + lm_only_scale * lm.logsumexp(2, keepdim=True)
    if am_only_scale:
        # (C,) log of the mean over the batch and all contexts of softmax(lm)
        unigram = lm.log_softmax(2).logsumexp((0, 1)) - math.log(lm.shape[0] * lm.shape[1])
        normalizer = normalizer + am_only_scale * (am + unigram).logsumexp(2)[:, None]

    # One gather for all symbols and blank: separate gathers would each cost a (B, T, C) tensor in backward.
    targets = torch.nn.functional.pad(symbols, (0, 1), value=blank)  # (B, S+1)
    am_part = am.gather(2, targets[:, None].expand(-1, am.shape[1], -1)).transpose(1, 2)  # (B, S+1, T)
    am_part = (joint_scale + am_only_scale) * am_part
    lm_symbol = (joint_scale + lm_only_scale) * lm[:, :S].gather(2, symbols[:, :, None])  # (B, S, 1)
    lm_blank = (joint_scale + lm_only_scale) * lm[:, :, blank, None]  # (B, S+1, 1)
    if am_only_scale:
        lm_symbol = lm_symbol + am_only_scale * unigram[symbols][:, :, None]
        lm_blank = lm_blank + am_only_scale * unigram[blank]
    px = am_part[:, :S] + lm_symbol - normalizer[:, :S]  # (B, S, T)
    py = am_part[:, S:] + lm_blank - normalizer  # (B, S+1, T)
    return px, py


def joint_log_probs(
    logits: Tensor, symbols: Tensor, ranges: Tensor | None, blank: int, hat: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute px ``(B, S, T)`` and py ``(B, S+1, T)`` from a joiner's output.

    Args:
        logits: ``(B, T, r, C)``, for the contexts in ``ranges``; all S+1 of them if ``ranges`` is None.
        symbols: ``(B, S)`` int64.
        ranges: ``(B, T, r)`` int64. Arcs that start outside get -inf.
        hat: the hybrid autoregressive transducer (arXiv 2003.07705): blank, which must be 0, is a
            Bernoulli variable of its own, and the softmax is over the other symbols.
    """
    B, T, _, _ = logits.shape
    S = symbols.shape[1]
    targets = torch.nn.functional.pad(symbols, (0, 1), value=blank)  # (B, S+1); context S emits blank only
    if ranges is None:
        targets = targets[:, None].expand(B, T, S + 1)
    else:
        targets = targets.gather(1, ranges.flatten(1)).view_as(ranges)
    px, py = _TargetLogProbs.apply(logits, targets, blank, hat)  # (B, T, r) both
    px, py = px.transpose(1, 2), py.transpose(1, 2)  # (B, r, T)
    if ranges is not None:
        contexts = ranges.transpose(1, 2)
        px = px.new_full((B, S + 1, T), NEVER).scatter(1, contexts, px)
        py = py.new_full((B, S + 1, T), NEVER).scatter(1, contexts, py)
    return px[:, :S], py


class _JointNormalizer(torch.autograd.Function):
    """log sum_c exp(lm[b, s, c] + am[b, t, c]) as ``(B, S+1, T)``, by a matrix product.

    The (B, S+1, T, C) tensor of logits is never built. Where the best symbols of lm and am differ by more
    than 87 nats (float32) the products underflow; like k2, this adds the smallest normal number.
    """

    @staticmethod
    def forward(ctx: Any, lm: Tensor, am: Tensor) -> Tensor:
        lm_max = lm.amax(2, keepdim=True)  # (B, S+1, 1)
        am_max = am.amax(2, keepdim=True)  # (B, T, 1)
        lm_exp = (lm - lm_max).exp_()  # (B, S+1, C)
        am_exp = (am - am_max).exp_()  # (B, T, C)
        total = torch.matmul(lm_exp, am_exp.transpose(1, 2))  # (B, S+1, T)
        total += torch.finfo(total.dtype).tiny
        ctx.save_for_backward(lm_exp, am_exp, total)
        return total.log().add_(lm_max).add_(am_max.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        lm_exp, am_exp, total = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            # The floor keeps sums over frames finite; otherwise inf * 0 gives NaN where lm_exp is 0.
            weight = grad / total.clamp(min=torch.finfo(total.dtype).tiny * 2.0**26)  # (B, S+1, T)
            grad_lm = torch.matmul(weight, am_exp).mul_(lm_exp)  # (B, S+1, C)
            grad_am = torch.matmul(weight.transpose(1, 2), lm_exp).mul_(am_exp)  # (B, T, C)
        return grad_lm, grad_am


class _TargetLogProbs(torch.autograd.Function):
    """Log-probabilities of one target and blank for each row of logits.

    Their gradient is the only new tensor of the logits' size: rows are processed in blocks that fit the
    cache, and half-precision logits are widened block by block.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, blank: int, hat: bool) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        rows = logits.reshape(-1, logits.shape[-1])  # (R, C)
        flat_targets = targets.reshape(-1, 1)  # (R, 1)
        px = rows.new_empty(len(rows), dtype=dtype)  # (R,)
        py = rows.new_empty(len(rows), dtype=dtype)  # (R,)
        for block in _blocks(rows):
            z = rows[block].to(dtype)
            if hat:
                symbol = z.gather(1, flat_targets[block]) - z[:, 1:].logsumexp(1, keepdim=True)
                px[block] = symbol[:, 0] + torch.nn.functional.logsigmoid(-z[:, 0])
                py[block] = torch.nn.functional.logsigmoid(z[:, 0])
            else:
                log_p = z.log_softmax(1)
                px[block] = log_p.gather(1, flat_targets[block])[:, 0]
                py[block] = log_p[:, blank]
        ctx.save_for_backward(logits, targets)
        ctx.blank, ctx.hat = blank, hat
        return px.view(targets.shape), py.view(targets.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_px: Tensor, grad_py: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets = ctx.saved_tensors
        rows = logits.reshape(-1, logits.shape[-1])  # (R, C)
        flat_targets = targets.reshape(-1, 1)  # (R, 1)
        to_symbol, to_blank = grad_px.reshape(-1, 1), grad_py.reshape(-1, 1)  # (R, 1)
        grad = torch.empty_like(rows)
        for block in _blocks(rows):
            z = rows[block].to(to_symbol.dtype)
            g_symbol, g_blank = to_symbol[block], to_blank[block]
            if ctx.hat:
                p_blank = z[:, :1].sigmoid()
                g = torch.cat((g_blank * (1 - p_blank) - g_symbol * p_blank, -g_symbol * z[:, 1:].softmax(1)), 1)
            else:
                g = z.softmax(1).mul_(-(g_symbol + g_blank))
                g[:, ctx.blank] += g_blank[:, 0]
            grad[block] = g.scatter_add_(1, flat_targets[block], g_symbol)
        return grad.view_as(logits), None, None, None


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Yield slices of rows: about 2^20 elements on CPU, to fit the cache, and 2^25 on a GPU."""
    size = max(1, (1 << 20 if rows.device.type == "cpu" else 1 << 25) // rows.shape[1])
    for start in range(0, len(rows), size):
        yield slice(start, start + size)
