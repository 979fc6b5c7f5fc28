"""FastEmit against its definition, the enumeration of all paths."""

import pytest
import torch
from loss_cases import paths, random_problem
from torch import Tensor

from summarymix import optional_k2
from summarymix.loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)
from summarymix.loss.logprobs import additive_log_probs

RNNT_TYPES = ["regular", "modified", "constrained"]
FASTEMIT = 0.3


def defined_gradient(logits: Tensor, symbols: list[int], rnnt_type: str, kept: Tensor | None = None) -> Tensor:
    """Gradient in the logits (T, S+1, C) of an utterance, which goes through the softmax to each path's factors.

    The gradient in the probability of a symbol is 1 + λ times the transducer loss's, that of blank is the transducer
    loss's. ``kept`` (T, S+1): contexts that were not pruned.
    """
    logits = logits.detach().requires_grad_()
    probabilities = logits.softmax(-1)
    gradient, total = torch.zeros_like(probabilities), 0.0
    for path in paths((0, 0), (len(symbols), len(logits)), rnnt_type == "regular"):
        factors = []
        for kind, s, t in path:
            factors.append((t, s, symbols[s] if kind == "x" else 0))
            if kind == "x" and rnnt_type == "constrained":
                factors.append((t, s + 1, 0))
        if kept is not None and not all(kept[t, s] for t, s, _ in factors):
            continue
        p = torch.stack([probabilities[factor].detach() for factor in factors]).prod().item()
        total += p
        for factor in factors:
            gradient[factor] -= (1 + FASTEMIT if factor[2] else 1) * p / probabilities[factor].detach()
    return torch.autograd.grad(probabilities, logits, gradient / total)[0]


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_full_loss_has_the_defined_gradient_and_the_value_without(rnnt_type: str) -> None:
    p = random_problem([(3, 5), (1, 4), (0, 2)])
    logits = p.logits().detach().requires_grad_()
    arguments = (logits, p.symbols, 0, p.boundary, rnnt_type, 0.0, "none")
    loss = rnnt_loss(*arguments, fastemit=FASTEMIT)
    assert torch.equal(loss, rnnt_loss(*arguments))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    for b, (_, _, S, T) in enumerate(p.boundary.tolist()):
        defined = defined_gradient(logits[b, :T, : S + 1], p.symbols[b, :S].tolist(), rnnt_type)
        torch.testing.assert_close(gradient[b, :T, : S + 1], defined, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_pruned_loss_has_the_defined_gradient(rnnt_type: str) -> None:
    """Contexts outside the ranges have no gradient: their paths do not count."""
    p = random_problem([(3, 5)])
    _, occupations = rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, rnnt_type, return_grad=True)
    ranges = get_rnnt_prune_ranges(*occupations, p.boundary, 2)  # (1, T, 2)
    logits = p.joint(*do_rnnt_pruning(p.am, p.lm, ranges)).detach().requires_grad_()
    loss = rnnt_loss_pruned(logits, p.symbols, ranges, 0, p.boundary, rnnt_type, 0.0, fastemit=FASTEMIT)
    (gradient,) = torch.autograd.grad(loss, logits)
    kept = torch.zeros(5, 4, dtype=torch.bool).scatter_(1, ranges[0], True)
    defined = defined_gradient(p.logits()[0], p.symbols[0].tolist(), rnnt_type, kept)
    torch.testing.assert_close(gradient[0], defined.take_along_dim(ranges[0, :, :, None], 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("rnnt_type", ["regular", "modified"])
def test_smoothed_loss_scales_the_gradient_of_symbols_and_keeps_the_occupations(rnnt_type: str) -> None:
    p = random_problem([(3, 5), (2, 4)])
    arguments = (p.lm, p.am, p.symbols, 0, 0.2, 0.1, p.boundary, rnnt_type, 0.05, "none", True)
    without, occupations = rnnt_loss_smoothed(*arguments)
    loss, unchanged = rnnt_loss_smoothed(*arguments, fastemit=FASTEMIT)
    assert torch.equal(loss, without)
    torch.testing.assert_close(unchanged, occupations, atol=0, rtol=0)
    px, py = additive_log_probs(p.lm, p.am, p.symbols, 0, 0.2, 0.1)
    of_symbols, of_blanks = occupations[0][:, :, : px.shape[2]], occupations[1]
    defined = torch.autograd.grad((px, py), (p.lm, p.am), (-(1 + FASTEMIT) * of_symbols, -of_blanks))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), (p.lm, p.am)), defined, atol=1e-12, rtol=0)


def test_k2_has_no_fastemit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional_k2, "supports", lambda device: True)
    assert (loss_backend("auto"), loss_backend("auto", fastemit=0.1)) == ("k2", "native")
    p = random_problem([(2, 4)])
    with pytest.raises(ValueError, match=r"k2 has no FastEmit.*'native'"):
        rnnt_loss_simple(p.lm, p.am, p.symbols, 0, backend="k2", fastemit=0.1)
    with pytest.raises(ValueError, match="fastemit must not be negative"):
        rnnt_loss(p.logits(), p.symbols, 0, fastemit=-0.1)
