"""The sum over paths against the enumeration of all paths."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import paths
from torch import Tensor

from summarymix.loss.recursion import sum_over_paths

INF = float("inf")


def enumerate_paths(px: Tensor, py: Tensor, boundary: list[int], regular: bool):
    """Sum over paths and occupations of one utterance, by enumeration."""
    s_begin, t_begin, s_end, t_end = boundary
    arcs = {"x": px, "y": py}
    occupation = {"x": torch.zeros_like(px), "y": torch.zeros_like(py)}
    total = 0.0
    for path in paths((s_begin, t_begin), (s_end, t_end), regular):
        p = math.exp(sum(arcs[kind][s, t].item() for kind, s, t in path))
        total += p
        for kind, s, t in path:
            occupation[kind][s, t] += p
    if total == 0.0:
        return -INF, occupation["x"], occupation["y"]
    return math.log(total), occupation["x"] / total, occupation["y"] / total


@st.composite
def lattices(draw):
    B, S, T = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    px = torch.randn(B, S, T, generator=generator, dtype=torch.float64)
    py = torch.randn(B, S + 1, T, generator=generator, dtype=torch.float64)
    blocked = draw(st.sampled_from([0.0, 0.2, 0.6]))
    px[torch.rand(px.shape, generator=generator) < blocked] = -INF
    py[torch.rand(py.shape, generator=generator) < blocked] = -INF
    boundary = []
    for _ in range(B):
        s = sorted((draw(st.integers(0, S)), draw(st.integers(0, S))))
        t = sorted((draw(st.integers(0, T)), draw(st.integers(0, T))))
        boundary.append([s[0], t[0], s[1], t[1]])
    return px, py, boundary


@settings(max_examples=150)
@given(lattices(), st.booleans())
def test_equals_enumeration_for_any_boundary_and_any_blocked_arcs(lattice, regular):
    px, py, boundary = lattice
    px.requires_grad_()
    total, px_occupation, py_occupation = sum_over_paths(px, py, torch.tensor(boundary), regular)
    for b, limits in enumerate(boundary):
        expected, expected_px, expected_py = enumerate_paths(px[b].detach(), py[b], limits, regular)
        assert total[b].item() == pytest.approx(expected, abs=1e-10)
        torch.testing.assert_close(px_occupation[b], expected_px, atol=1e-10, rtol=0)
        torch.testing.assert_close(py_occupation[b], expected_py, atol=1e-10, rtol=0)
    total[total.isfinite()].sum().backward()
    finite = total.isfinite()[:, None, None]
    torch.testing.assert_close(px.grad, px_occupation * finite, atol=0, rtol=0)


@pytest.mark.parametrize("regular", [True, False])
def test_gradcheck(regular):
    torch.manual_seed(0)
    px = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    py = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    boundary = torch.tensor([[0, 0, 3, 5], [1, 1, 2, 4]])
    assert torch.autograd.gradcheck(lambda x, y: sum_over_paths(x, y, boundary, regular)[0], (px, py))


@pytest.mark.parametrize("regular", [True, False])
def test_each_frame_is_left_exactly_once(regular):
    torch.manual_seed(1)
    px, py = torch.randn(3, 6, 11).log_softmax(1), torch.randn(3, 7, 11).log_softmax(1)
    boundary = torch.tensor([[0, 0, 6, 11], [0, 0, 4, 9], [0, 0, 0, 11]])
    _, x, y = sum_over_paths(px, py, boundary, regular, return_occupations=True)
    leaving = y.sum(1) if regular else y.sum(1) + x.sum(1)  # (B, T)
    for b, (_, _, symbols, frames) in enumerate(boundary.tolist()):
        torch.testing.assert_close(leaving[b, :frames], torch.ones(frames))
        assert not leaving[b, frames:].any()
        assert x[b].sum().item() == pytest.approx(symbols, rel=1e-5)


def test_garbage_outside_the_boundary_is_not_read():
    torch.manual_seed(2)
    px, py = torch.randn(1, 4, 6, dtype=torch.float64), torch.randn(1, 5, 6, dtype=torch.float64)
    boundary = torch.tensor([[0, 0, 2, 4]])
    clean = sum_over_paths(px[:, :2, :4], py[:, :3, :4], boundary, True, return_occupations=True)
    px[:, 2:] = px[:, :, 4:] = float("nan")
    py[:, 3:] = py[:, :, 4:] = INF
    total, x, y = sum_over_paths(px, py, boundary, True, return_occupations=True)
    torch.testing.assert_close(total, clean[0], atol=0, rtol=0)
    torch.testing.assert_close(x[:, :2, :4], clean[1], atol=0, rtol=0)
    torch.testing.assert_close(y[:, :3, :4], clean[2], atol=0, rtol=0)
    assert x.sum() == clean[1].sum()
    assert y.sum() == clean[2].sum()


def test_no_occupations_unless_needed():
    px, py, boundary = torch.zeros(1, 1, 2), torch.zeros(1, 2, 2), torch.tensor([[0, 0, 1, 2]])
    total, x, y = sum_over_paths(px, py, boundary, True)
    assert x is None
    assert y is None
    assert total.item() == pytest.approx(math.log(2))  # the symbol comes at one of two frames


def test_float32_is_accurate_over_4000_frames():
    torch.manual_seed(3)
    S, T = 40, 4000
    px = torch.randn(1, S, T) - 6
    py = torch.randn(1, S + 1, T) - 5  # the sum is some -20000
    boundary = torch.tensor([[0, 0, S, T]])
    single = sum_over_paths(px, py, boundary, True, return_occupations=True)
    double = sum_over_paths(px.double(), py.double(), boundary, True, return_occupations=True)
    assert single[0].dtype == torch.float32
    assert single[0].item() == pytest.approx(double[0].item(), rel=1e-6)
    torch.testing.assert_close(single[1].double(), double[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(single[2].double(), double[2], atol=1e-6, rtol=1e-5)


def test_occupation_is_the_gradient_if_only_blanks_need_one() -> None:
    px, py = torch.randn(1, 2, 3), torch.randn(1, 3, 3, requires_grad=True)
    total, _, occupation = sum_over_paths(px, py, torch.tensor([[0, 0, 2, 3]]), True)
    total.sum().backward()
    torch.testing.assert_close(py.grad, occupation)
