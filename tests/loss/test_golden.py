"""Agreement with k2, which computed tests/data/k2_pruned_rnnt.npz; tools/check_k2.py says what is in it."""

import pytest
import torch
from check_k2 import TOLERANCE, golden_cases, solve

from summarymix.loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

CASES = golden_cases()


@pytest.fixture(params=["native", "k2"])
def backend(request) -> str:
    if request.param == "k2":
        try:
            loss_backend("k2")
        except ImportError as error:
            pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_occupations_and_ranges(case, backend):
    case = CASES[case]
    for name, value in solve(case, backend).items():
        torch.testing.assert_close(
            value, torch.from_numpy(case[name]), atol=TOLERANCE, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_there_are_39_cases():
    assert len(CASES) == 39


# One utterance without boundary; k2 computed the figures in float32, hence the tolerance.
LM = torch.tensor([[[0, 0, 1], [0, 1, 1], [1, 0, 1], [2, 2, 0.0]]], dtype=torch.float64)
AM = torch.tensor([[[0, 1, 2], [0, 0, 0], [0, 2, 4], [0, 3, 3.0]]], dtype=torch.float64)
SYMBOLS = torch.tensor([[0, 1, 0]])


@pytest.mark.parametrize(
    ("rnnt_type", "simple", "delayed", "lm_smoothed", "am_smoothed", "both"),
    [
        ("regular", 7.504014, 7.531423, 7.342213, 6.838261, 7.297697),
        ("modified", 6.545785, 6.597027, 5.669842, 6.616611, 6.219608),
        ("constrained", 9.658770, 9.709360, 9.110663, 9.262657, 9.323355),
    ],
)
def test_one_utterance_without_boundary(rnnt_type, simple, delayed, lm_smoothed, am_smoothed, both, backend):
    def smoothed(lm_scale, am_scale):
        return rnnt_loss_smoothed(LM, AM, SYMBOLS, 2, lm_scale, am_scale, rnnt_type=rnnt_type, backend=backend).item()

    arguments = (LM, AM, SYMBOLS, 2, None, rnnt_type)
    assert rnnt_loss_simple(*arguments, backend=backend).item() == pytest.approx(simple, abs=2e-6)
    assert rnnt_loss_simple(*arguments, 0.1, backend=backend).item() == pytest.approx(delayed, abs=2e-6)
    assert smoothed(0.25, 0.0) == pytest.approx(lm_smoothed, abs=2e-6)
    assert smoothed(0.0, 0.333) == pytest.approx(am_smoothed, abs=2e-6)
    assert smoothed(0.1, 0.1) == pytest.approx(both, abs=2e-6)
    logits = AM[:, :, None] + LM[:, None]
    full = rnnt_loss(logits, SYMBOLS, 2, None, rnnt_type, backend=backend)
    assert full.item() == pytest.approx(simple, abs=2e-6)


@pytest.mark.parametrize(
    ("rnnt_type", "s_range", "options", "expected"),
    [
        ("regular", 2, {}, (14.899950, 17.444821)),
        ("regular", 3, {}, (11.281637, 17.444727)),
        ("regular", 5, {}, (10.611902, 17.444727)),
        ("regular", 3, {"delay_penalty": 0.05}, (11.289297, 17.444557)),
        ("regular", 5, {"use_hat_loss": True}, (14.361479, 9.947342)),
        ("modified", 2, {}, (10.084317, 10.269273)),
        ("constrained", 2, {}, (14.381331, 17.444872)),
    ],
)
def test_two_utterances_pruned(rnnt_type, s_range, options, expected, backend):
    B, S, T, C = 2, 4, 6, 5
    lm = torch.sin(0.7 * torch.arange(B * (S + 1) * C, dtype=torch.float64)).view(B, S + 1, C)
    am = 2 * torch.cos(1.3 * torch.arange(B * T * C, dtype=torch.float64)).view(B, T, C)
    symbols = torch.tensor([[1, 2, 3, 4], [4, 1, 0, 0]])
    boundary = torch.tensor([[0, 0, 4, 6], [0, 0, 2, 5]])
    _, grads = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, boundary, rnnt_type, return_grad=True, backend=backend)
    ranges = get_rnnt_prune_ranges(*grads, boundary, s_range)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    logits = 3 * torch.tanh(am_pruned + lm_pruned)
    loss = rnnt_loss_pruned(
        logits, symbols, ranges, 0, boundary, rnnt_type, reduction="none", backend=backend, **options
    )
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
