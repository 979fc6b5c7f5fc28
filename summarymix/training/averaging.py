"""Running mean of a model's weights, from which :func:`summarymix.runs.mean_between` computes means over epochs."""

from typing import Any

import torch
from torch import Tensor, nn


class RunningMean:
    """Mean of a model's floating-point parameters and buffers over all samples so far, in float64.

    With the mean A_n over n samples at the end of each epoch, the mean over the samples of a range of epochs is
    (n_e·A_e - n_s·A_s) / (n_e - n_s), so two files suffice for any range (icefall's ``model_avg``). The difference
    needs float64, here and in the checkpoints.
    """

    def __init__(self, model: nn.Module) -> None:
        self.samples = 0
        self.mean: dict[str, Tensor] = {
            name: value.detach().to(torch.float64, copy=True)
            for name, value in model.state_dict().items()
            if value.is_floating_point()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's current weights as a sample."""
        self.samples += 1
        state = model.state_dict()
        for name, mean in self.mean.items():
            mean.lerp_(state[name].to(torch.float64), 1.0 / self.samples)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint: the tensors themselves, not copies."""
        return {"samples": self.samples, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint; tensors stay on this mean's device."""
        self.samples = state["samples"]
        for name, mean in self.mean.items():
            mean.copy_(state["mean"][name])
