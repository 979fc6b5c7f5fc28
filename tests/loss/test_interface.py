"""The losses as a user calls them: properties, odd lengths, odd input."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import Problem, random_problem

from summarymix.loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

RNNT_TYPES = ["regular", "modified", "constrained"]


def all_losses(p: Problem, rnnt_type: str = "regular", s_range: int = 3, **options) -> dict[str, torch.Tensor]:
    """Per-utterance losses of one training step."""
    options = {"reduction": "none", "backend": "native", **options}
    shared = (p.symbols, 0)
    smoothed, grads = rnnt_loss_smoothed(
        p.lm, p.am, *shared, 0.25, 0.0, p.boundary, rnnt_type, return_grad=True, **options
    )
    ranges = get_rnnt_prune_ranges(*grads, p.boundary, s_range)
    logits = p.joint(*do_rnnt_pruning(p.am, p.lm, ranges))
    return {
        "simple": rnnt_loss_simple(p.lm, p.am, *shared, p.boundary, rnnt_type, **options),
        "smoothed": smoothed,
        "pruned": rnnt_loss_pruned(logits, p.symbols, ranges, 0, p.boundary, rnnt_type, **options),
        "full": rnnt_loss(p.logits(), *shared, p.boundary, rnnt_type, **options),
    }


@st.composite
def ragged(draw):
    rnnt_type = draw(st.sampled_from(RNNT_TYPES))
    lengths = []
    for _ in range(draw(st.integers(1, 4))):
        s = draw(st.integers(0, 6))
        lengths.append((s, draw(st.integers(1 if rnnt_type == "regular" else max(s, 1), 9))))
    return rnnt_type, random_problem(lengths, seed=draw(st.integers(0, 9999)))


@settings(max_examples=60)
@given(ragged(), st.sampled_from([0.0, 0.1]))
def test_batch_mates_and_padding_do_not_matter(batch, delay_penalty):
    rnnt_type, p = batch
    r = p.lm.shape[1]  # prune ranges widen with the batch's longest; here nothing is pruned
    losses = all_losses(p, rnnt_type, r, delay_penalty=delay_penalty)
    for name, loss in losses.items():
        grads = torch.autograd.grad(loss.sum(), (p.am, p.lm), retain_graph=True)
        assert all(g.isfinite().all() for g in grads)
        for b, (_, _, S, T) in enumerate(p.boundary.tolist()):
            q = p.alone(b)
            alone = all_losses(q, rnnt_type, S + 1, delay_penalty=delay_penalty)[name]
            torch.testing.assert_close(loss[b : b + 1], alone, atol=1e-9, rtol=0)
            am_grad, lm_grad = torch.autograd.grad(alone.sum(), (q.am, q.lm))
            torch.testing.assert_close(grads[0][b, :T], am_grad[0], atol=1e-9, rtol=0)
            torch.testing.assert_close(grads[1][b, : S + 1], lm_grad[0], atol=1e-9, rtol=0)
            assert not grads[0][b, T:].any()
            assert not grads[1][b, S + 1 :].any()


@settings(max_examples=60)
@given(ragged(), st.integers(2, 5))
def test_pruned_is_not_less_than_full_and_equal_when_nothing_is_pruned(batch, s_range):
    rnnt_type, p = batch
    losses = all_losses(p, rnnt_type, s_range)
    assert (losses["pruned"] >= losses["full"] - 1e-10).all()
    assert losses["pruned"].isfinite().all()
    losses = all_losses(p, rnnt_type, p.lm.shape[1])
    torch.testing.assert_close(losses["pruned"], losses["full"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_simple_is_the_full_loss_of_an_adding_joiner(rnnt_type):
    p = random_problem([(4, 7), (2, 5)])
    simple = rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, rnnt_type)
    logits = p.am[:, :, None] + p.lm[:, None]
    torch.testing.assert_close(simple, rnnt_loss(logits, p.symbols, 0, p.boundary, rnnt_type))


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_invariant_to_constants(rnnt_type):
    p = random_problem([(4, 7), (2, 5)])

    def smoothed(lm, am):
        return rnnt_loss_smoothed(lm, am, p.symbols, 0, 0.2, 0.1, p.boundary, rnnt_type)

    shifted = smoothed(p.lm + 30 * torch.rand(2, 5, 1), p.am - 30 * torch.rand(2, 7, 1))
    torch.testing.assert_close(shifted, smoothed(p.lm, p.am))


def test_equals_torchaudios_full_loss():
    functional = pytest.importorskip("torchaudio.functional", reason="torchaudio is not installed")
    p = random_problem([(5, 9), (3, 6), (1, 9)], C=8, dtype=torch.float32)
    logits = p.logits().detach().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will be removed
        theirs = functional.rnnt_loss(
            logits, p.symbols.int(), p.boundary[:, 3].int(), p.boundary[:, 2].int(), blank=0, reduction="none"
        )
    their_grad = torch.autograd.grad(theirs.sum(), logits)
    ours = rnnt_loss(logits, p.symbols, 0, p.boundary, reduction="none", backend="native")
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), logits), their_grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
@pytest.mark.parametrize("hat", [False, True])
def test_gradcheck(rnnt_type, hat):
    p = random_problem([(3, 5), (1, 4)], C=4)

    def smoothed(lm, am):
        return rnnt_loss_smoothed(lm, am, p.symbols, 0, 0.2, 0.1, p.boundary, rnnt_type, 0.05, "none", backend="native")

    assert torch.autograd.gradcheck(smoothed, (p.lm, p.am))
    _, grads = rnnt_loss_smoothed(p.lm, p.am, p.symbols, 0, boundary=p.boundary, rnnt_type=rnnt_type, return_grad=True)
    ranges = get_rnnt_prune_ranges(*grads, p.boundary, 2)

    def pruned(logits):
        return rnnt_loss_pruned(
            logits, p.symbols, ranges, 0, p.boundary, rnnt_type, 0.05, "none", hat, backend="native"
        )

    logits = p.joint(*do_rnnt_pruning(p.am, p.lm, ranges)).detach().requires_grad_()
    assert torch.autograd.gradcheck(pruned, (logits,))


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
@pytest.mark.parametrize(
    "lengths", [[(0, 4)], [(0, 4), (0, 2)], [(0, 1)], [(1, 1)], [(0, 3), (3, 5)], [(1, 4), (1, 2)], [(4, 4)]]
)
def test_odd_lengths(rnnt_type, lengths):
    p = random_problem(lengths)
    for name, loss in all_losses(p, rnnt_type, 5).items():
        grads = torch.autograd.grad(loss.sum(), (p.am, p.lm), retain_graph=True)
        assert loss.isfinite().all(), name
        assert all(g.isfinite().all() for g in grads), name


def test_an_empty_transcript_costs_its_blanks():
    p = random_problem([(0, 4)])
    expected = -p.logits().log_softmax(-1)[0, :, 0, 0].sum()
    for name in ("full", "pruned"):
        torch.testing.assert_close(all_losses(p)[name][0], expected)


def test_more_symbols_than_frames():
    losses = all_losses(random_problem([(9, 2), (1, 3)]), "regular", 2)
    assert all(loss.isfinite().all() for loss in losses.values())
    torch.testing.assert_close(losses["pruned"][1], losses["full"][1])


@pytest.mark.parametrize("rnnt_type", ["modified", "constrained"])
def test_more_symbols_than_frames_are_refused_where_symbols_take_frames(rnnt_type):
    p = random_problem([(1, 4), (5, 4)])
    with pytest.raises(ValueError, match=r"utterance 1 .* 5 symbols and 4 frames"):
        rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, rnnt_type)
    with pytest.raises(ValueError, match="utterance 0"):
        rnnt_loss(p.logits(), p.symbols, 0, rnnt_type=rnnt_type)


def test_ranges_that_leave_no_path_give_inf_and_zero_gradients():
    p = random_problem([(3, 4), (1, 4)])
    logits = torch.randn(2, 4, 2, 6, requires_grad=True)
    ranges = torch.arange(2).expand(2, 4, 2)  # never get to context 3
    loss = rnnt_loss_pruned(logits, p.symbols, ranges, 0, p.boundary, reduction="none", backend="native")
    assert loss[0] == math.inf
    assert loss[1].isfinite()
    loss.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].isfinite().all()
    assert logits.grad[1].any()


def test_long_utterances_are_finite_in_float32():
    lengths = [(60, 4000), (5, 3000)]
    single, double = (random_problem(lengths, C=20, dtype=d) for d in (torch.float32, torch.float64))
    ours, exact = all_losses(single, s_range=5), all_losses(double, s_range=5)
    for name in ("simple", "smoothed", "full"):
        torch.testing.assert_close(ours[name].double(), exact[name], rtol=1e-6, atol=0)
        grads = torch.autograd.grad(ours[name].sum(), (single.am, single.lm), retain_graph=True)
        exact_grads = torch.autograd.grad(exact[name].sum(), (double.am, double.lm), retain_graph=True)
        for grad, exact_grad in zip(grads, exact_grads, strict=True):
            torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-3, atol=1e-4)
    # Where windows all but tie, the two types may keep different ones.
    assert ours["pruned"].isfinite().all()
    for grad in torch.autograd.grad(ours["pruned"].sum(), (single.am, single.lm)):
        assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_give_float32(dtype):
    p = random_problem([(4, 9), (2, 6)], dtype=dtype)
    q = Problem(
        p.lm.detach().float().requires_grad_(),
        p.am.detach().float().requires_grad_(),
        p.symbols,
        p.boundary,
        p.weight.float(),
    )
    arguments = (p.symbols, 0, 0.25, 0.1, p.boundary)
    with torch.autocast("cpu", torch.bfloat16):
        half = rnnt_loss_smoothed(p.lm, p.am, *arguments, reduction="none", backend="native")
        mixed = rnnt_loss_smoothed(q.lm, p.am, *arguments, reduction="none", backend="native")
    single = rnnt_loss_smoothed(q.lm, q.am, *arguments, reduction="none", backend="native")
    assert half.dtype == torch.float32
    assert torch.equal(half, single)
    assert torch.equal(mixed, single)
    half.sum().backward()
    single.sum().backward()
    assert p.am.grad.dtype == dtype
    torch.testing.assert_close(p.am.grad.float(), q.am.grad, rtol=0.02, atol=0.02)

    logits = p.logits().detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = rnnt_loss(logits, p.symbols, 0, p.boundary, reduction="none", backend="native")
    assert torch.equal(loss, rnnt_loss(logits.float(), p.symbols, 0, p.boundary, reduction="none", backend="native"))
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_delay_penalty_moves_symbols_forward():
    p = random_problem([(3, 12)])

    def mean_frame(delay_penalty):
        _, (px_grad, _) = rnnt_loss_simple(
            p.lm, p.am, p.symbols, 0, p.boundary, delay_penalty=delay_penalty, return_grad=True, backend="native"
        )
        return (px_grad[0].sum(0) * torch.arange(13)).sum().item() / 3

    assert mean_frame(0.5) < mean_frame(0.1) < mean_frame(0.0)


def test_an_utterance_inside_its_tensors():
    p = random_problem([(5, 9)])
    boundary = torch.tensor([[1, 2, 4, 8]])
    inner = rnnt_loss_simple(p.lm, p.am, p.symbols, 0, boundary, backend="native")
    cut = rnnt_loss_simple(p.lm[:, 1:5], p.am[:, 2:8], p.symbols[:, 1:4], 0, backend="native")
    torch.testing.assert_close(inner, cut)


def test_reductions_are_over_utterances():
    p = random_problem([(4, 7), (2, 5), (0, 3)])
    none, mean, total = (
        rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, reduction=r) for r in ("none", "mean", "sum")
    )
    assert none.shape == (3,)
    torch.testing.assert_close(mean, none.mean())
    torch.testing.assert_close(total, none.sum())
    torch.testing.assert_close(rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary), mean)


@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_occupations_have_k2s_shapes_and_no_gradient(rnnt_type):
    p = random_problem([(3, 6), (2, 4)])
    loss, (px_grad, py_grad) = rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, rnnt_type, return_grad=True)
    assert loss.requires_grad
    assert px_grad.shape == (2, 3, 7 if rnnt_type == "regular" else 6)
    assert py_grad.shape == (2, 4, 6)
    assert not px_grad.requires_grad
    assert not py_grad.requires_grad
    with torch.no_grad():
        _, again = rnnt_loss_simple(p.lm, p.am, p.symbols, 0, p.boundary, rnnt_type, return_grad=True)
    torch.testing.assert_close(again, (px_grad, py_grad))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rnnt_type": "monotonic"}, "rnnt_type must be one of"),
        ({"reduction": "average"}, "reduction must be"),
        ({"delay_penalty": -1.0}, "delay_penalty must not be negative"),
        ({"lm_only_scale": 0.6, "am_only_scale": 0.4}, "sum to less than 1"),
        ({"backend": "warp"}, "backend must be one of"),
        ({"symbols": torch.zeros(1, 3).long()}, "symbols must be int64 of shape"),
        ({"symbols": torch.zeros(1, 2).int()}, "symbols must be int64 of shape"),
        ({"am": torch.zeros(1, 4, 5)}, "expected lm"),
        ({"boundary": torch.tensor([[0, 0, 2]])}, "boundary must be int64 of shape"),
        ({"boundary": torch.tensor([[0, 0, 4, 2]])}, "boundary of utterance 0"),
        ({"boundary": torch.tensor([[0, 4, 2, 4]])}, "2 symbols and 0 frames"),
    ],
)
def test_refuses_what_has_no_meaning(change, message):
    p = random_problem([(2, 4)])
    arguments = {"lm": p.lm, "am": p.am, "symbols": p.symbols, "boundary": p.boundary, **change}
    with pytest.raises(ValueError, match=message):
        rnnt_loss_smoothed(**arguments, termination_symbol=0)


def test_refuses_logits_that_do_not_fit():
    p = random_problem([(2, 4)])
    with pytest.raises(ValueError, match="S = 2"):
        rnnt_loss(p.logits()[:, :, :2], p.symbols, 0)
    with pytest.raises(ValueError, match="expected logits"):
        rnnt_loss_pruned(p.logits(), p.symbols, torch.zeros(1, 4, 2).long(), 0)
    with pytest.raises(ValueError, match="HAT"):
        rnnt_loss_pruned(p.logits(), p.symbols, torch.arange(3).expand(1, 4, 3), 1, use_hat_loss=True)
