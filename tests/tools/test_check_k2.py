"""The check that is run after installing k2: it must not let a wrong one pass."""

import importlib.machinery
import sys
import types
from collections.abc import Callable
from functools import partial

import check_k2 as check
import pytest
import torch
from torch import Tensor

import summarymix.loss
from summarymix import optional_k2

FUNCTIONS = ("rnnt_loss", "rnnt_loss_pruned", "rnnt_loss_simple", "rnnt_loss_smoothed")


@pytest.fixture
def run_check(monkeypatch):
    """Runs the check with a k2 that computes as ours does, but for the given changes of what a function returns."""

    def run(**changes: Callable) -> None:
        module = types.ModuleType("k2")
        module.__spec__ = importlib.machinery.ModuleSpec("k2", None)
        module.with_cuda = False
        for name in FUNCTIONS:
            native = getattr(summarymix.loss, name)
            setattr(module, name, partial(changed, native, changes.get(name, lambda result: result)))
        monkeypatch.setitem(sys.modules, "k2", module)
        monkeypatch.setattr(sys, "argv", ["check"])
        optional_k2.load.cache_clear()
        check.main()

    yield run
    optional_k2.load.cache_clear()


def changed(native: Callable, change: Callable, *args):
    return change(native(*args, backend="native"))


def nan_in_one(loss: Tensor) -> Tensor:
    return torch.where(torch.arange(len(loss)) == 1, torch.nan, loss)


def test_a_right_k2_passes(run_check, capsys) -> None:
    run_check()
    out = capsys.readouterr().out
    assert out.startswith("k2 on cpu, largest differences from 39 golden cases")
    differences = [float(line.split()[1]) for line in out.splitlines()[1:]]
    assert len(differences) > 5
    assert max(differences) < 1e-11


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rnnt_loss_pruned": lambda loss: loss + 1e-8}, "pruned"),
        ({"rnnt_loss": lambda loss: loss.sum()}, "full"),  # the wrong shape
        ({"rnnt_loss": nan_in_one}, "full"),
        # The wrong gradients with the right loss.
        ({"rnnt_loss_pruned": lambda loss: 2 * loss - loss.detach()}, "pruned_grad_am, pruned_grad_lm"),
    ],
)
def test_a_wrong_k2_does_not(run_check, changes: dict[str, Callable], named: str) -> None:
    with pytest.raises(SystemExit, match=f"k2 on cpu computes wrong values of {named}.*Do not train with it"):
        run_check(**changes)


def test_without_k2(monkeypatch) -> None:
    monkeypatch.setattr(optional_k2, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["check"])
    optional_k2.load.cache_clear()
    with pytest.raises(SystemExit, match=r"not installed.*tools/install_k2\.sh"):
        check.main()
    optional_k2.load.cache_clear()
