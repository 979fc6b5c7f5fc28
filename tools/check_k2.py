#!/usr/bin/env python3
"""Check a loss backend against results of k2 1.24.4: tools/check_k2.py, which install_k2.sh runs.

The golden file holds 39 problems with their solutions by k2 1.24.4 (float64, CPU). Keys are <case>/<name>. Inputs:
am, lm, symbols, boundary, the joiner's weight, rnnt_type and args = [prune_range, lm_only_scale, am_only_scale,
delay_penalty]; blank is 0. Outputs, per utterance: simple, smoothed, its gradients and occupations, ranges, pruned
and its gradients for logits tanh(am + lm) @ weight, and full, the unpruned loss with that joiner.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from summarymix.loss.interface import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "k2_pruned_rnnt.npz"
TOLERANCE = 1e-9

Case = dict[str, np.ndarray]


def golden_cases() -> dict[str, Case]:
    """Arrays of the golden file, by case and name."""
    cases: dict[str, Case] = {}
    with np.load(GOLDEN) as arrays:
        for key in arrays.files:
            case, name = key.split("/")
            cases.setdefault(case, {})[name] = arrays[key]
    return cases


def solve(case: Case, backend: str, device: str = "cpu") -> dict[str, Tensor]:
    """Outputs of a case, computed by ``backend`` on ``device``, returned on the CPU."""
    rnnt_type = str(case["rnnt_type"])
    data = {name: torch.from_numpy(array).to(device) for name, array in case.items() if name != "rnnt_type"}
    s_range, lm_scale, am_scale, delay_penalty = data["args"].tolist()
    am, lm = data["am"].requires_grad_(), data["lm"].requires_grad_()
    symbols, boundary = data["symbols"], data["boundary"]
    options = (0, boundary, rnnt_type, delay_penalty, "none")

    out: dict[str, Any] = {"simple": rnnt_loss_simple(lm, am, symbols, *options, backend=backend)}
    out["smoothed"], (out["px_grad"], out["py_grad"]) = rnnt_loss_smoothed(
        lm, am, symbols, 0, lm_scale, am_scale, *options[1:], return_grad=True, backend=backend
    )
    out["smoothed_grad_am"], out["smoothed_grad_lm"] = torch.autograd.grad(out["smoothed"].sum(), (am, lm))

    out["ranges"] = get_rnnt_prune_ranges(out["px_grad"], out["py_grad"], boundary, int(s_range))
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, out["ranges"])
    logits = torch.tanh(am_pruned + lm_pruned) @ data["joiner_weight"]
    out["pruned"] = rnnt_loss_pruned(logits, symbols, out["ranges"], *options, backend=backend)
    grads = torch.autograd.grad(out["pruned"].sum(), (am, lm, logits))
    out["pruned_grad_am"], out["pruned_grad_lm"], out["pruned_grad_logits"] = grads

    logits = torch.tanh(am[:, :, None] + lm[:, None]) @ data["joiner_weight"]
    out["full"] = rnnt_loss(logits, symbols, *options, backend=backend)
    return {name: value.detach().cpu() for name, value in out.items()}


def differences(backend: str, device: str = "cpu") -> dict[str, float]:
    """Largest absolute difference from the golden file per output, over all cases; inf for a wrong shape."""
    found: dict[str, list[float]] = {}
    for case in golden_cases().values():
        for name, value in solve(case, backend, device).items():
            expected = torch.from_numpy(case[name])
            same_shape = value.shape == expected.shape
            difference = (value - expected).abs().max().item() if same_shape else float("inf")
            found.setdefault(name, []).append(difference)
    return {name: float(np.max(values)) for name, values in found.items()}  # np.max propagates NaN


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--backend", choices=("k2", "native"), default="k2", help="backend to check (k2)")
    backend = parser.parse_args().backend
    try:
        loss_backend(backend)
    except ImportError as error:
        sys.exit(str(error))
    on_gpu = torch.cuda.is_available() and (backend == "native" or loss_backend("auto", "cuda") == "k2")
    for device in ("cpu", "cuda") if on_gpu else ("cpu",):
        found = differences(backend, device)
        print(f"{backend} on {device}, largest differences from {len(golden_cases())} golden cases:")
        for name, difference in found.items():
            print(f"  {name:20}{difference:.1e}")
        wrong = [name for name, difference in found.items() if not difference <= TOLERANCE]
        if wrong:
            sys.exit(
                f"{backend} on {device} computes wrong values of {', '.join(wrong)} (more than {TOLERANCE} off). "
                "Do not train with it: pip uninstall k2, or --loss.backend native"
            )


if __name__ == "__main__":
    main()
