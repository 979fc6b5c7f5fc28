"""Which backend is chosen, and how k2 is called. k2's own numbers are in test_golden.py."""

import importlib.machinery
import sys
import types

import pytest
import torch
from loss_cases import random_problem

from summarymix import optional_k2
from summarymix.loss import (
    loss_backend,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)


@pytest.fixture(autouse=True)
def forget_k2():
    optional_k2.load.cache_clear()
    yield
    optional_k2.load.cache_clear()


@pytest.fixture
def no_k2(monkeypatch):
    monkeypatch.setattr(optional_k2, "find_spec", lambda name: None)


@pytest.fixture
def fake_k2(monkeypatch) -> list[str]:
    """A module with k2's signatures that computes with the native losses; the list of calls made to it."""
    module = types.ModuleType("k2")
    module.__spec__ = importlib.machinery.ModuleSpec("k2", None)
    module.with_cuda = False
    calls = []

    def simple(lm, am, symbols, termination_symbol, boundary=None, rnnt_type="regular", delay_penalty=0.0,
               reduction="mean", return_grad=False):  # fmt: skip
        calls.append("simple")
        return rnnt_loss_simple(lm, am, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, reduction,
                                return_grad, backend="native")  # fmt: skip

    def smoothed(lm, am, symbols, termination_symbol, lm_only_scale=0.1, am_only_scale=0.1, boundary=None,
                 rnnt_type="regular", delay_penalty=0.0, reduction="mean", return_grad=False):  # fmt: skip
        calls.append("smoothed")
        return rnnt_loss_smoothed(lm, am, symbols, termination_symbol, lm_only_scale, am_only_scale, boundary,
                                  rnnt_type, delay_penalty, reduction, return_grad, backend="native")  # fmt: skip

    def full(logits, symbols, termination_symbol, boundary=None, rnnt_type="regular", delay_penalty=0.0,
             reduction="mean"):  # fmt: skip
        calls.append("full")
        assert logits.dtype == torch.float32
        return rnnt_loss(logits, symbols, termination_symbol, boundary, rnnt_type, delay_penalty, reduction,
                         backend="native")  # fmt: skip

    def pruned(logits, symbols, ranges, termination_symbol, boundary=None, rnnt_type="regular", delay_penalty=0.0,
               reduction="mean", use_hat_loss=False):  # fmt: skip
        calls.append("pruned")
        assert logits.dtype == torch.float32
        return rnnt_loss_pruned(logits, symbols, ranges, termination_symbol, boundary, rnnt_type, delay_penalty,
                                reduction, use_hat_loss, backend="native")  # fmt: skip

    module.rnnt_loss_simple, module.rnnt_loss_smoothed = simple, smoothed
    module.rnnt_loss, module.rnnt_loss_pruned = full, pruned
    monkeypatch.setitem(sys.modules, "k2", module)
    return calls


@pytest.mark.usefixtures("no_k2")
def test_without_k2():
    assert loss_backend() == loss_backend("auto") == loss_backend("native") == "native"
    with pytest.raises(ImportError, match=r"not installed.*tools/install_k2\.sh.*'native'"):
        loss_backend("k2")
    p = random_problem([(2, 4)])
    with pytest.raises(ImportError, match=r"tools/install_k2\.sh"):
        rnnt_loss_simple(p.lm, p.am, p.symbols, 0, backend="k2")
    rnnt_loss_simple(p.lm, p.am, p.symbols, 0)


def test_with_a_k2_for_another_torch(monkeypatch, caplog):
    def refuse(name):
        raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(optional_k2, "find_spec", lambda name: object())
    monkeypatch.setattr(optional_k2, "import_module", refuse)
    assert loss_backend("auto") == "native"
    assert "undefined symbol" in caplog.text, "a broken installation is not passed over in silence"
    with pytest.raises(ImportError, match="undefined symbol"):
        loss_backend("k2")


@pytest.mark.usefixtures("fake_k2")
def test_with_k2():
    assert loss_backend("auto") == loss_backend("k2") == "k2"
    assert loss_backend("native") == "native"
    assert loss_backend("auto", "cuda") == "native", "this k2 was built without CUDA"
    assert loss_backend("auto", torch.device("mps")) == "native"
    with pytest.raises(ImportError, match="cannot compute on cuda"):
        loss_backend("k2", "cuda")
    with pytest.raises(ValueError, match="backend must be one of"):
        loss_backend("k3")


@pytest.mark.parametrize("rnnt_type", ["regular", "constrained"])
def test_k2_gets_the_same_problem(fake_k2, rnnt_type):
    p = random_problem([(3, 6), (2, 5)], dtype=torch.float32)
    ranges = torch.arange(4).expand(2, 6, 4)
    logits = p.logits().bfloat16()
    results = {}
    for backend in ("native", "k2"):
        options = (p.boundary, rnnt_type, 0.1, "none")
        results[backend] = (
            rnnt_loss_simple(p.lm, p.am, p.symbols, 0, *options, backend=backend),
            rnnt_loss_smoothed(p.lm, p.am, p.symbols, 0, 0.3, 0.2, *options, True, backend=backend),
            rnnt_loss_smoothed(p.lm, p.am, p.symbols, 0, 0.3, 0.2, None, rnnt_type, backend=backend),
            rnnt_loss(logits, p.symbols, 0, *options, backend=backend),
            rnnt_loss_pruned(logits, p.symbols, ranges, 0, *options, True, backend=backend),
        )
    torch.testing.assert_close(results["k2"], results["native"], atol=0, rtol=0)
    assert fake_k2 == ["simple", "smoothed", "smoothed", "full", "pruned"]
