"""Pruning windows against a frame-by-frame statement of their rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import random_problem
from torch import Tensor

from summarymix.loss import do_rnnt_pruning, get_rnnt_prune_ranges, rnnt_loss_pruned, rnnt_loss_simple


def occupations(B, T, S, seed, boundary, rnnt_type) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    am = 3 * torch.randn(B, T, 6, generator=generator, dtype=torch.float64)
    lm = 3 * torch.randn(B, S + 1, 6, generator=generator, dtype=torch.float64)
    symbols = torch.randint(1, 6, (B, S), generator=generator)
    return rnnt_loss_simple(lm, am, symbols, 0, boundary, rnnt_type, return_grad=True, backend="native")[1]


@st.composite
def batches(draw):
    rnnt_type = draw(st.sampled_from(["regular", "modified", "constrained"]))
    lengths = []
    for _ in range(draw(st.integers(1, 3))):
        s = draw(st.integers(0, 8))
        lengths.append((s, draw(st.integers(1 if rnnt_type == "regular" else max(s, 1), 12))))
    S, T = (max(n) for n in zip(*lengths, strict=True))
    boundary = torch.tensor([[0, 0, s, t] for s, t in lengths])
    px_grad, py_grad = occupations(len(lengths), T, S, draw(st.integers(0, 999)), boundary, rnnt_type)
    return px_grad, py_grad, boundary, draw(st.integers(2, 6)), rnnt_type == "regular"


def window_starts(px_grad: Tensor, py_grad: Tensor, s_end: int, t_end: int, r: int, jump: int) -> list[int]:
    """One utterance, in plain Python, by the rules."""
    T = py_grad.shape[1]
    best = []
    last = max(s_end - r + 1, 0)
    for t in range(T):
        scores = [
            py_grad[s : s + r, t].sum().item() - (px_grad[s - 1, t].item() if s else 0.0) for s in range(last + 1)
        ]
        best.append(scores.index(max(scores)) if t < t_end - 1 else last)
    monotonic = [min(best[t:]) for t in range(T)]
    early = [max(monotonic[u] - jump * (u - t) for u in range(t, T)) for t in range(T)]
    return [min(early[t], jump * t) for t in range(T)]


@settings(max_examples=100)
@given(batches())
def test_windows_follow_the_rules(batch):
    px_grad, py_grad, boundary, s_range, regular = batch
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range)
    B, S1, T = py_grad.shape
    r = ranges.shape[2]
    assert ranges.shape[:2] == (B, T)
    assert r >= min(s_range, S1)
    assert r <= S1
    jump = r - 1 if regular else 1
    for b, (_, _, s_end, t_end) in enumerate(boundary.tolist()):
        start = ranges[b, :, 0]
        assert start.tolist() == window_starts(px_grad[b], py_grad[b], s_end, t_end, r, jump)
        assert torch.equal(ranges[b], start[:, None] + torch.arange(r))
        assert start[0] == 0
        assert start.diff().ge(0).all()
        assert start.diff().le(jump).all()
        assert ranges.max() < S1
        if regular:
            assert s_end in ranges[b, t_end - 1], "the last frame must be left from the last context"


@pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
def test_windows_do_not_depend_on_padding(rnnt_type: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        T, S, padding = (int(torch.randint(*ends, (), generator=generator)) for ends in ((40, 80), (5, 14), (5, 15)))
        lm = torch.randn(1, S + 1 + padding, 50, generator=generator, dtype=torch.float64)
        am = torch.randn(1, T, 50, generator=generator, dtype=torch.float64)
        symbols = torch.randint(1, 50, (1, S + padding), generator=generator)
        boundary = torch.tensor([[0, 0, S, T]])
        alone, padded = (
            get_rnnt_prune_ranges(
                *rnnt_loss_simple(
                    lm[:, : size + 1], am, symbols[:, :size], 0, boundary, rnnt_type, return_grad=True, backend="native"
                )[1],
                boundary,
                5,
            )
            for size in (S, S + padding)
        )
        assert torch.equal(alone, padded)


@pytest.mark.parametrize(
    ("starts", "jump", "expected"),
    [
        ([0, 2, 1, 3, 6, 5, 8], 2, [0, 1, 1, 3, 5, 6, 8]),
        ([0, 2, 1, 3, 6, 5, 8], 3, [0, 1, 1, 3, 5, 5, 8]),
        ([5, 0, 0, 7, 7, 7, 7], 2, [0, 2, 4, 6, 7, 7, 7]),
    ],
)
def test_adjustment_equals_k2s(starts, jump, expected):
    r, T = jump + 1, len(starts)
    S = max(starts) + r - 1
    px_grad = torch.zeros(1, S, T + 1)
    py_grad = torch.zeros(1, S + 1, T)
    for t, start in enumerate(starts):
        py_grad[0, start : start + r, t] = 1.0
        py_grad[0, start + r - 1, t] = 2.0  # else a window one further on scores the same
    boundary = torch.tensor([[0, 0, S, T]])
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, r)
    assert ranges[0, :, 0].tolist() == expected


def test_range_is_raised_where_frames_are_few():
    boundary = torch.tensor([[0, 0, 10, 3]])
    px_grad, py_grad = occupations(1, 3, 10, 0, boundary, "regular")
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, 2)
    assert ranges.shape == (1, 3, 5)  # the narrowest windows that reach context 10 at the third frame
    assert ranges[0, 0, 0] == 0
    assert ranges[0, 2, -1] == 10
    assert ranges[0, 1:, 0].le(ranges[0, :-1, -1]).all()


def test_range_never_exceeds_the_contexts():
    boundary = torch.tensor([[0, 0, 2, 5]])
    px_grad, py_grad = occupations(1, 5, 2, 0, boundary, "regular")
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, 9)
    assert torch.equal(ranges, torch.arange(3).expand(1, 5, 3))


@pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
def test_batch_of_empty_transcripts(rnnt_type):
    boundary = torch.tensor([[0, 0, 0, 4], [0, 0, 0, 2]])
    px_grad, py_grad = occupations(2, 4, 0, 0, boundary, rnnt_type)
    assert torch.equal(get_rnnt_prune_ranges(px_grad, py_grad, boundary, 5), torch.zeros(2, 4, 1).long())


def test_refuses_a_range_no_path_survives():
    boundary = torch.tensor([[0, 0, 3, 5]])
    px_grad, py_grad = occupations(1, 5, 3, 0, boundary, "regular")
    with pytest.raises(ValueError, match="at least 2"):
        get_rnnt_prune_ranges(px_grad, py_grad, boundary, 1)


def test_constrained_lattice_refuses_a_range_no_path_survives():
    problem = random_problem([(2, 5)])
    grads = rnnt_loss_simple(problem.lm, problem.am, problem.symbols, 0, None, "constrained", return_grad=True)[1]
    ranges = get_rnnt_prune_ranges(*grads, problem.boundary, 1)
    logits = problem.joint(*do_rnnt_pruning(problem.am, problem.lm, ranges))
    with pytest.raises(ValueError, match=r"s_range must be at least 2 in the constrained lattice .* got 1"):
        rnnt_loss_pruned(logits, problem.symbols, ranges, 0, problem.boundary, "constrained")
    assert rnnt_loss_pruned(logits, problem.symbols, ranges, 0, problem.boundary, "modified").isfinite()


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        get_rnnt_prune_ranges(torch.zeros(1, 3, 5), torch.zeros(1, 3, 4), torch.zeros(1, 4).long(), 2)
    with pytest.raises(ValueError, match="does not fit"):
        do_rnnt_pruning(torch.zeros(1, 3, 5), torch.zeros(1, 3, 5), torch.zeros(1, 4, 2).long())


def test_pruning_picks_rows_and_their_gradients():
    torch.manual_seed(0)
    am = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    lm = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    ranges = torch.tensor([[0, 0, 2, 3], [0, 1, 1, 2]])[:, :, None] + torch.arange(2)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    assert am_pruned.data_ptr() == am.data_ptr(), "am is not copied"
    for b in range(2):
        for t in range(4):
            for i in range(2):
                assert torch.equal(am_pruned[b, t, i], am[b, t])
                assert torch.equal(lm_pruned[b, t, i], lm[b, ranges[b, t, i]])
    assert torch.autograd.gradcheck(lambda a, c: do_rnnt_pruning(a, c, ranges), (am, lm))
