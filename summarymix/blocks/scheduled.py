"""Scheduled values: numbers in modules that change during training, such as the probability of a regulariser.

    self.skip_rate = Scheduled((0, 0.5), (4000, 0.02))        # in a module's constructor
    if torch.rand(()) < float(self.skip_rate): …              # in its forward pass, in training mode only

    scheduled = find_scheduled(model)                         # once, when the model is complete
    set_progress(scheduled, seconds / ref_duration)           # before each training step

The idea comes from icefall's ``ScheduledFloat``, which counts steps and changes in place. These values count audio,
like the learning rate (:func:`summarymix.training.schedule.eden_factor`), and are immutable: ``set_progress`` replaces
them. Two modules may therefore hold the same value, for example from a default argument, without side effects.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import nn


@dataclass(frozen=True, init=False)
class Scheduled:
    """A piecewise linear function of the number of batches trained on, and the current position on it.

    ``float(value)`` is its value at this position; it is constant before the first and after the last point. It depends
    on progress alone, so checkpoints do not store it.

    Args:
        points: (batches, value), batches increasing.
        batches: current position. A batch is ``ref_duration`` seconds of audio.

    Raises:
        ValueError: there are no points, or their batches do not increase.
    """

    points: tuple[tuple[float, float], ...]
    batches: float

    def __init__(self, *points: tuple[float, float], batches: float = 0.0) -> None:
        if not points or any(right[0] <= left[0] for left, right in pairwise(points)):
            raise ValueError(f"a schedule needs points (batches, value), one or more, batches increasing; not {points}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "batches", batches)

    def at(self, batches: float) -> "Scheduled":
        """Return this schedule at position ``batches``."""
        return Scheduled(*self.points, batches=batches)

    def __float__(self) -> float:
        i = bisect_right(self.points, self.batches, key=lambda point: point[0])
        if i in (0, len(self.points)):
            return float(self.points[max(i - 1, 0)][1])
        (left, start), (right, end) = self.points[i - 1 : i + 1]
        return start + (end - start) * (self.batches - left) / (right - left)


Schedulable = float | Scheduled
"""A constant or scheduled number; ``float(…)`` gives its current value."""


def find_scheduled(model: nn.Module) -> list[tuple[nn.Module, str, Scheduled]]:
    """List all scheduled values of ``model``: the module, the name of its attribute, and the value.

    It finds attributes of modules in the tree only, not values in lists, dictionaries or other objects.
    """
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Scheduled)
    ]


def set_progress(scheduled: Iterable[tuple[nn.Module, str, Scheduled]], batches: float) -> None:
    """Move the values found by :func:`find_scheduled` to position ``batches``."""
    for module, name, value in scheduled:
        setattr(module, name, value.at(batches))
