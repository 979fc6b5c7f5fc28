"""Arc log-probabilities against their definitions."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from summarymix.loss import logprobs
from summarymix.loss.logprobs import additive_log_probs, joint_log_probs

B, T, S, C = 2, 5, 3, 7


@pytest.fixture
def scores() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    am = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    lm = torch.randn(B, S + 1, C, dtype=torch.float64, requires_grad=True)
    return lm, am, torch.randint(0, C, (B, S))


def arcs(log_p: Tensor, symbols: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """px and py from log-probabilities (B, S+1, T, C)."""
    index = symbols[:, :, None, None].expand(-1, -1, log_p.shape[2], 1)
    return log_p[:, :-1].gather(3, index)[..., 0], log_p[..., blank]


@pytest.mark.parametrize(("lm_scale", "am_scale"), [(0.0, 0.0), (0.25, 0.0), (0.0, 0.3), (0.2, 0.1)])
def test_additive_joiner_with_smoothing(scores, lm_scale, am_scale):
    lm, am, symbols = scores
    px, py = additive_log_probs(lm, am, symbols, 2, lm_scale, am_scale)
    unigram = lm.softmax(2).mean((0, 1))
    joint = (lm[:, :, None] + am[:, None]).log_softmax(3)  # (B, S+1, T, C)
    lm_only = lm.log_softmax(2)[:, :, None].expand_as(joint)
    am_only = (am + unigram.log()).log_softmax(2)[:, None].expand_as(joint)
    mixed = (1 - lm_scale - am_scale) * joint + lm_scale * lm_only + am_scale * am_only
    expected_px, expected_py = arcs(mixed, symbols, 2)
    torch.testing.assert_close(px, expected_px, atol=1e-12, rtol=0)
    torch.testing.assert_close(py, expected_py, atol=1e-12, rtol=0)

    weights = torch.randn_like(px), torch.randn_like(py)
    ours = torch.autograd.grad((px, py), (lm, am), weights)
    theirs = torch.autograd.grad((expected_px, expected_py), (lm, am), weights)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_scores_that_underflow_give_finite_gradients():
    lm = torch.zeros(1, 1, 3)
    am = torch.zeros(1, 4000, 3)
    lm[..., 0], am[..., 1] = 200.0, 200.0
    lm.requires_grad_()
    am.requires_grad_()
    px, py = additive_log_probs(lm, am, torch.zeros(1, 0).long(), 0, 0.2, 0.2)
    assert px.isfinite().all()
    assert py.isfinite().all()
    for grad in torch.autograd.grad(py.sum(), (lm, am)):
        assert grad.isfinite().all()


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("rows_per_block", [1, 3, 1000])
def test_joint(monkeypatch, hat, pruned, rows_per_block):
    def blocks(rows):
        return (slice(i, i + rows_per_block) for i in range(0, len(rows), rows_per_block))

    monkeypatch.setattr(logprobs, "_blocks", blocks)
    torch.manual_seed(1)
    symbols = torch.randint(1, C, (B, S))
    ranges = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 2, 2, 2]])[:, :, None] + torch.arange(2)
    r = 2 if pruned else S + 1
    logits = torch.randn(B, T, r, C, dtype=torch.float64, requires_grad=True)
    px, py = joint_log_probs(logits, symbols, ranges if pruned else None, 0, hat)

    if hat:
        blank = logits[..., :1].sigmoid()
        log_p = torch.cat((blank.log(), (1 - blank).log() + logits[..., 1:].log_softmax(-1)), -1)
    else:
        log_p = logits.log_softmax(-1)
    if pruned:
        full = torch.full((B, T, S + 1, C), -torch.inf, dtype=torch.float64)
        log_p = full.scatter(2, ranges[..., None].expand(-1, -1, -1, C), log_p)
    expected_px, expected_py = arcs(log_p.transpose(1, 2), symbols, 0)
    torch.testing.assert_close(px, expected_px, atol=1e-12, rtol=0)
    torch.testing.assert_close(py, expected_py, atol=1e-12, rtol=0)

    weights = torch.randn_like(px), torch.randn_like(py)
    ours = torch.autograd.grad((px, py), logits, weights)
    theirs = torch.autograd.grad((expected_px, expected_py), logits, weights)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hat", [False, True])
def test_half_precision_logits_are_widened(dtype, hat):
    torch.manual_seed(2)
    half = (4 * torch.randn(B, T, S + 1, C)).to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    symbols = torch.randint(1, C, (B, S))
    ours = joint_log_probs(half, symbols, None, 0, hat)
    exact = joint_log_probs(single, symbols, None, 0, hat)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0, rtol=0)
    (ours[0].sum() + ours[1].sum()).backward()
    (exact[0].sum() + exact[1].sum()).backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, single.grad.to(dtype), atol=0, rtol=0)


def test_blocks_cover_every_row_once():
    rows = torch.zeros(10_000, 500)
    covered = torch.cat([torch.arange(len(rows))[block] for block in logprobs._blocks(rows)])
    assert torch.equal(covered, torch.arange(len(rows)))


class LargeTensors(TorchDispatchMode):
    """Collects the tensors that operators return and whose memory is at least ``size`` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.tensors = size, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= self.size:
                self.tensors[tensor.untyped_storage().data_ptr()] = tensor
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hat", [False, True])
def test_nothing_of_the_logits_size_is_made_but_their_gradient(dtype, hat):
    batch, frames, kept, classes = 2, 300, 5, 1100
    logits = torch.zeros(batch, frames, kept, classes, dtype=dtype, requires_grad=True)
    symbols = torch.ones(batch, 20).long()
    ranges = torch.arange(kept).expand(batch, frames, kept)
    with LargeTensors(logits.nbytes) as large:
        px, py = joint_log_probs(logits, symbols, ranges, 0, hat)
        (grad,) = torch.autograd.grad(px[:, :4].sum() + py[:, :5].sum(), logits)
    made = large.tensors.keys() - {logits.untyped_storage().data_ptr()}
    assert made == {grad.untyped_storage().data_ptr()}


def test_backward_under_autocast_stays_in_float32(scores):
    lm, am, symbols = (x.detach().float() if x.is_floating_point() else x for x in scores)
    lm.requires_grad_()
    am.requires_grad_()
    px, py = additive_log_probs(lm, am, symbols, 0)
    total = px.sum() + py.sum()
    outside = torch.autograd.grad(total, (lm, am), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(total, (lm, am))
    torch.testing.assert_close(inside, outside, atol=0, rtol=0)
