"""The Triton kernels in Triton's interpreter on the CPU, against k2's figures and the loops in PyTorch."""

import importlib

import pytest
import torch
from check_k2 import TOLERANCE, golden_cases, solve
from torch import Tensor

from summarymix.loss import recursion

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # NumPy's log(0) in the interpreter
CASES = golden_cases()
INF = float("inf")


@pytest.fixture
def kernels(monkeypatch):
    """Let the recursion on the CPU run the kernels."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined
    module = importlib.import_module("summarymix.loss.triton_recursion")
    module = importlib.reload(module)
    monkeypatch.setattr(recursion, "_loops", lambda device: (module.advance, module.retreat))
    yield
    monkeypatch.undo()
    importlib.reload(module)


@pytest.mark.parametrize("case", CASES)
def test_golden_cases(case, kernels):
    case = CASES[case]
    for name, value in solve(case, "native").items():
        torch.testing.assert_close(
            value, torch.from_numpy(case[name]), atol=TOLERANCE, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def solve_lattice(px: Tensor, py: Tensor, boundary: Tensor, regular: bool) -> list[Tensor]:
    total, px_occupation, py_occupation = recursion.sum_over_paths(px, py, boundary, regular, True)
    return [total, px_occupation, py_occupation]


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("S", [0, 1, 7])
def test_blocked_arcs_and_boundaries(regular, S, kernels, monkeypatch):
    """Utterances that begin late, end early, have no symbols, or no path at all."""
    generator = torch.Generator().manual_seed(S)
    B, T = 5, 9
    px = torch.randn(B, S, T, generator=generator, dtype=torch.float64)
    py = torch.randn(B, S + 1, T, generator=generator, dtype=torch.float64)
    px[torch.rand(px.shape, generator=generator) < 0.2] = -INF
    py[4] = -INF
    least = min(S, 1)
    boundary = torch.tensor([[0, 0, S, T], [least, 1, S, 8], [0, 0, 0, 3], [0, 0, S, T], [0, 0, S, T]])
    got = solve_lattice(px, py, boundary, regular)
    monkeypatch.undo()
    expected = solve_lattice(px, py, boundary, regular)
    assert expected[0][4] == -INF
    for value, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-12, rtol=0)
