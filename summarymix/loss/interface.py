"""The pruned RNN-T loss (Kuang et al. 2022, arXiv 2206.13236) with the names and arguments of k2.

Training takes five calls::

    simple, (px_grad, py_grad) = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, boundary, return_grad=True)
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range=5)
    am_pruned, lm_pruned = do_rnnt_pruning(encoder_out, decoder_out, ranges)
    logits = joiner(am_pruned, lm_pruned)
    pruned = rnnt_loss_pruned(logits, symbols, ranges, 0, boundary)

The functions share these arguments:

    symbols: ``(B, S)`` int64, the transcripts; padding may be any symbol. S = 0 and utterances without symbols
        are legal: their loss comes from blanks alone.
    termination_symbol: the blank.
    boundary: ``(B, 4)`` int64, ``[s_begin, t_begin, s_end, t_end]`` of each utterance, normally
        ``[0, 0, symbols, frames]`` (symbols first). None means ``[0, 0, S, T]``. Finite scores outside
        it do not influence loss and gradients, except through ``am_only_scale``. Scores outside it that
        are not finite make gradients NaN: masking them would take a tenth of the loss's time.
    rnnt_type: ``"regular"``: a symbol consumes no frame. ``"modified"``: it consumes one, as blank does.
        ``"constrained"``: as modified, with the blank of the next context at the same frame added.
    delay_penalty: in nats, added per frame that a symbol comes early and subtracted per frame that it comes
        late, relative to the middle of the utterance (arXiv 2211.00490); 0 is off.
    fastemit: λ of FastEmit (arXiv 2010.11148), which k2 does not have: the gradient in the log-probabilities of
        symbols is multiplied by 1 + λ, so that symbols come early. Losses and occupations do not change; 0 is off.
    reduction: ``"none"`` gives ``(B,)``, ``"mean"`` and ``"sum"`` are over utterances, not divided by length.
    return_grad: also return the occupations ``(px_grad, py_grad)``: the probability that a path emits
        symbol s (blank) at frame t. ``(B, S, T+1)`` and ``(B, S+1, T)`` in the regular lattice, px_grad
        ``(B, S, T)`` in the others. No gradient flows through them.
    backend: of the losses: ``"native"``, ``"k2"`` or ``"auto"``, see `loss_backend`. Pruning has one implementation.

Losses are -log p, in float32 or, for float64 inputs, float64; half-precision inputs are widened and autocast
is switched off inside. An utterance with too few frames for its symbols raises a ValueError. Where
given ``ranges`` leave no path, the loss is inf and its gradients are zero.
"""

import torch
from torch import Tensor

from summarymix import optional_k2
from summarymix.loss import k2, native, pruning

BACKENDS = ("auto", "native", "k2")
RNNT_TYPES = ("regular", "modified", "constrained")


def loss_backend(backend: str = "auto", device: torch.device | str = "cpu", fastemit: float = 0.0) -> str:
    """Resolve ``backend`` for tensors on ``device`` to an implementation: ``"native"`` or ``"k2"``.

    ``"auto"`` is k2 if it can be imported, was built for this kind of device and can do what is asked, else native.
    Both give the same results.

    Raises:
        ValueError: unknown backend, or k2 is to compute FastEmit.
        ImportError: ``"k2"`` was requested and cannot be used.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "k2" and fastemit:
        raise ValueError(f"k2 has no FastEmit (fastemit is {fastemit}): choose the backend 'native' or 'auto'")
    if backend == "native" or fastemit:
        return "native"
    device = torch.device(device)
    if optional_k2.supports(device):
        return "k2"
    if backend == "auto":
        return "native"
    module, reason = optional_k2.load()
    raise ImportError(
        "The loss backend 'k2' was requested, but k2 "
        f"{f'as built here cannot compute on {device.type}' if module else f'cannot be used: {reason}'}. "
        "Install a build for this torch with tools/install_k2.sh (PyPI's k2 is for torch 1.13), "
        "or choose the backend 'native', which needs no installation"
    )


def rnnt_loss_simple(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    return_grad: bool = False,
    *,
    fastemit: float = 0.0,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    """Compute the loss of an additive joiner, logits[b, t, s] = lm[b, s] + am[b, t], in B·S·T memory.

    Args:
        lm: ``(B, S+1, C)`` scores given the symbols so far, not normalised.
        am: ``(B, T, C)`` scores given the frame, not normalised.
        Others: see the module.
    """
    return rnnt_loss_smoothed(
        lm,
        am,
        symbols,
        termination_symbol,
        0.0,
        0.0,
        boundary,
        rnnt_type,
        delay_penalty,
        reduction,
        return_grad,
        fastemit=fastemit,
        backend=backend,
    )


def rnnt_loss_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    return_grad: bool = False,
    *,
    fastemit: float = 0.0,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    """Compute the simple loss, interpolated with log-probabilities from lm alone and am alone (section 3.3).

    Args:
        lm: ``(B, S+1, C)``, am: ``(B, T, C)``: as in `rnnt_loss_simple`.
        lm_only_scale: weight of softmax(lm).
        am_only_scale: weight of softmax(am + average of lm). The average is over the whole batch with its
            padding, as in k2, so losses depend on the batch; 0 avoids this.
        Others: see the module.
    """
    if min(lm_only_scale, am_only_scale) < 0 or lm_only_scale + am_only_scale >= 1:
        raise ValueError(
            "lm_only_scale and am_only_scale must not be negative and must sum to less than 1; "
            f"got {lm_only_scale} and {am_only_scale}"
        )
    if lm.ndim != 3 or am.ndim != 3 or lm.shape[0] != am.shape[0] or lm.shape[2] != am.shape[2]:
        raise ValueError(f"expected lm (B, S+1, C) and am (B, T, C), got {tuple(lm.shape)} and {tuple(am.shape)}")
    S, T = lm.shape[1] - 1, am.shape[1]
    boundary = _check(symbols, boundary, am, S, T, rnnt_type, delay_penalty, fastemit, reduction)
    dtype = torch.promote_types(torch.promote_types(lm.dtype, am.dtype), torch.float32)
    implementation = _implementation(backend, am, fastemit)
    with torch.autocast(am.device.type, enabled=False):
        loss, px_grad, py_grad = implementation.smoothed_loss(
            lm.to(dtype),
            am.to(dtype),
            symbols,
            termination_symbol,
            lm_only_scale,
            am_only_scale,
            boundary,
            rnnt_type,
            delay_penalty,
            fastemit,
            return_grad,
        )
    loss = _reduce(loss, reduction)
    return (loss, (px_grad, py_grad)) if return_grad else loss


def rnnt_loss(
    logits: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    *,
    fastemit: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Compute the full transducer loss (Graves 2012, arXiv 1211.3711) of any joiner.

    Args:
        logits: ``(B, T, S+1, C)``, not normalised.
        Others: see the module.
    """
    S = symbols.shape[-1]
    if logits.ndim != 4 or logits.shape[2] != S + 1:
        raise ValueError(f"expected logits (B, T, S+1, C) with S = {S}, got {tuple(logits.shape)}")
    boundary = _check(symbols, boundary, logits, S, logits.shape[1], rnnt_type, delay_penalty, fastemit, reduction)
    implementation = _implementation(backend, logits, fastemit)
    with torch.autocast(logits.device.type, enabled=False):
        loss = implementation.joint_loss(
            logits, symbols, None, termination_symbol, boundary, rnnt_type, delay_penalty, fastemit, False
        )
    return _reduce(loss, reduction)


def rnnt_loss_pruned(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    use_hat_loss: bool = False,
    *,
    fastemit: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Compute the transducer loss over the paths within ``ranges``; it is at least the full loss.

    Args:
        logits: ``(B, T, s_range, C)``, not normalised: the joiner's output for the contexts in ``ranges``.
        ranges: ``(B, T, s_range)`` int64 from `get_rnnt_prune_ranges`.
        use_hat_loss: model blank as a Bernoulli variable of its own (HAT, arXiv 2003.07705); blank must be 0.
        Others: see the module.
    """
    if logits.ndim != 4 or logits.shape[:3] != ranges.shape:
        raise ValueError(
            f"expected logits (B, T, s_range, C) and ranges (B, T, s_range), got {tuple(logits.shape)} "
            f"and {tuple(ranges.shape)}"
        )
    if use_hat_loss and termination_symbol != 0:
        raise ValueError(f"the HAT loss needs blank to be symbol 0, not {termination_symbol}")
    S, T = symbols.shape[-1], logits.shape[1]
    if rnnt_type == "constrained" and S > 0 and ranges.shape[2] < 2:
        # Unlike the ranges, the type is known here only.
        raise ValueError("s_range must be at least 2 in the constrained lattice or no path survives the pruning; got 1")
    boundary = _check(symbols, boundary, logits, S, T, rnnt_type, delay_penalty, fastemit, reduction)
    implementation = _implementation(backend, logits, fastemit)
    with torch.autocast(logits.device.type, enabled=False):
        loss = implementation.joint_loss(
            logits, symbols, ranges, termination_symbol, boundary, rnnt_type, delay_penalty, fastemit, use_hat_loss
        )
    return _reduce(loss, reduction)


def get_rnnt_prune_ranges(px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int) -> Tensor:
    """Find the contexts to keep at each frame: the window with the largest occupation (section 3.2).

    Unlike k2's function, this one accepts S = 0 and prints nothing.

    Args:
        px_grad: ``(B, S, T+1)`` (regular) or ``(B, S, T)``, py_grad: ``(B, S+1, T)``: the occupations that
            `rnnt_loss_smoothed` and `rnnt_loss_simple` return.
        boundary: ``(B, 4)`` int64.
        s_range: contexts to keep per frame; at least 2 in the regular and the constrained lattice. It is raised
            if an utterance has too few frames to pass all its symbols in such steps, and never exceeds S+1.

    Returns:
        ``(B, T, s_range)`` int64. Each frame's contexts are consecutive; windows start at 0, never move back
        and move by less than their width (by at most 1 where symbols consume frames).
    """
    return pruning.prune_ranges(px_grad, py_grad, boundary, s_range)


def do_rnnt_pruning(am: Tensor, lm: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the joiner's inputs for each frame and kept context.

    Args:
        am: ``(B, T, encoder_dim)``.
        lm: ``(B, S+1, decoder_dim)``.
        ranges: ``(B, T, s_range)`` int64 from `get_rnnt_prune_ranges`.

    Returns:
        am ``(B, T, s_range, encoder_dim)``, a view with the frame's vector repeated, and lm
        ``(B, T, s_range, decoder_dim)``.
    """
    return pruning.prune(am, lm, ranges)


def _implementation(backend: str, tensor: Tensor, fastemit: float):  # type: ignore[no-untyped-def]  # a module
    return k2 if loss_backend(backend, tensor.device, fastemit) == "k2" else native


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _check(
    symbols: Tensor,
    boundary: Tensor | None,
    scores: Tensor,
    S: int,
    T: int,
    rnnt_type: str,
    delay_penalty: float,
    fastemit: float,
    reduction: str,
) -> Tensor:
    """Check the arguments; return the boundary, with None replaced by the default."""
    B = scores.shape[0]
    if rnnt_type not in RNNT_TYPES:
        raise ValueError(f"rnnt_type must be one of {', '.join(RNNT_TYPES)}; got {rnnt_type!r}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum'; got {reduction!r}")
    if delay_penalty < 0:
        raise ValueError(f"delay_penalty must not be negative; got {delay_penalty}")
    if fastemit < 0:
        raise ValueError(f"fastemit must not be negative; got {fastemit}")
    if symbols.shape != (B, S) or symbols.dtype != torch.int64:
        raise ValueError(f"symbols must be int64 of shape {(B, S)}; got {symbols.dtype} {tuple(symbols.shape)}")
    if boundary is None:
        limits = [[0, 0, S, T]] * B
        boundary = torch.tensor(limits, device=scores.device).view(B, 4)
    elif boundary.shape != (B, 4) or boundary.dtype != torch.int64:
        raise ValueError(f"boundary must be int64 of shape {(B, 4)}; got {boundary.dtype} {tuple(boundary.shape)}")
    else:
        limits = boundary.tolist()
        boundary = boundary.to(scores.device, non_blocking=True)
    for b, (s_begin, t_begin, s_end, t_end) in enumerate(limits):
        if not (0 <= s_begin <= s_end <= S and 0 <= t_begin <= t_end <= T):
            raise ValueError(
                f"boundary of utterance {b} in the batch must have 0 <= s_begin <= s_end <= {S} and "
                f"0 <= t_begin <= t_end <= {T}; got [s_begin, t_begin, s_end, t_end] = {limits[b]}"
            )
        needed = min(s_end - s_begin, 1) if rnnt_type == "regular" else s_end - s_begin
        if t_end - t_begin < needed:
            raise ValueError(
                f"utterance {b} in the batch has {s_end - s_begin} symbols and {t_end - t_begin} frames; the "
                f"{rnnt_type} lattice needs at least {needed} frames. Leave such utterances out of training"
            )
    return boundary
