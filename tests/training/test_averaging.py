"""The running mean of weights equals the mean of the weights."""

import pytest
import torch
from torch import nn

from summarymix.runs import mean_between
from summarymix.training.averaging import RunningMean


def wandering_model() -> tuple[nn.Module, list[dict[str, torch.Tensor]], list[dict]]:
    """A model after each of twelve random steps, and the running mean's state, as saved, after each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = RunningMean(model)
    weights, states = [], []
    for _ in range(12):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        average.update(model)
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        state = average.state_dict()
        states.append({"samples": state["samples"], "mean": {k: v.clone() for k, v in state["mean"].items()}})
    return model, weights, states


def test_mean_over_everything_and_over_ranges_is_the_brute_force_mean() -> None:
    _, weights, states = wandering_model()
    for end in range(12):
        for start in range(-1, end):
            mean = mean_between(states[end], states[start] if start >= 0 else None)
            for name, value in mean.items():
                expected = torch.stack([w[name].double() for w in weights[start + 1 : end + 1]]).mean(0)
                torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_mean_stays_in_float64_and_leaves_integers_alone() -> None:
    model, _, states = wandering_model()
    assert {value.dtype for value in states[-1]["mean"].values()} == {torch.float64}
    assert "1.num_batches_tracked" not in states[-1]["mean"]
    assert next(model.parameters()).dtype == torch.float32


def test_restored_mean_continues_bit_by_bit() -> None:
    model, _, states = wandering_model()
    restored, original = RunningMean(model), RunningMean(model)
    restored.load_state_dict(states[5])
    original.load_state_dict(states[5])
    original.update(model)
    restored.update(model)
    assert restored.samples == 7
    assert all(torch.equal(restored.mean[name], original.mean[name]) for name in original.mean)


def test_empty_range_is_refused() -> None:
    _, _, states = wandering_model()
    with pytest.raises(ValueError, match="no sample"):
        mean_between(states[3], states[3])


def test_the_mean_does_not_change_with_a_model_in_float64() -> None:
    model = nn.Linear(2, 2).double()
    mean = RunningMean(model)
    before = mean.mean["weight"].clone()
    model.weight.data += 1
    assert torch.equal(mean.mean["weight"], before)
