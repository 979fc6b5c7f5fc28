"""Numbers inside modules that change in the course of training, such as the probability of a regulariser.

    self.skip_rate = Scheduled((0, 0.5), (4000, 0.02))        # in a module's constructor
    if torch.rand(()) < float(self.skip_rate): …              # in its forward pass, in training mode only

    scheduled = find_scheduled(model)                         # once, when all modules are there
    set_progress(scheduled, seconds / ref_duration)           # before each step of training

The idea is that of icefall's ``ScheduledFloat``, which counts steps and is changed in place. These values count audio,
as the learning rate does (:func:`summarymix.training.schedule.eden_factor`), and never change: ``set_progress`` puts
new ones in their places. So two modules may have the same one, of a default argument say, and share nothing by it.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import nn


@dataclass(frozen=True, init=False)
class Scheduled:
    """A piecewise linear function of the batches trained on, and where on it training stands.

    ``float(value)`` is the value there; before the first point it is that of the first, beyond the last that of the
    last. A function of progress alone, it has no place in a checkpoint.

    Args:
        points: (batches, value), batches increasing.
        batches: where training stands. A batch is ``ref_duration`` seconds of audio.

    Raises:
        ValueError: there are no points, or their batches do not increase.
    """

    points: tuple[tuple[float, float], ...]
    batches: float

    def __init__(self, *points: tuple[float, float], batches: float = 0.0) -> None:
        if not points or any(right[0] <= left[0] for left, right in pairwise(points)):
            raise ValueError(f"a schedule has points (batches, value), one or more, batches increasing; not {points}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "batches", batches)

    def at(self, batches: float) -> "Scheduled":
        """The same schedule, with training elsewhere on it."""
        return Scheduled(*self.points, batches=batches)

    def __float__(self) -> float:
        i = bisect_right(self.points, self.batches, key=lambda point: point[0])
        if i in (0, len(self.points)):
            return float(self.points[max(i - 1, 0)][1])
        (left, start), (right, end) = self.points[i - 1 : i + 1]
        return start + (end - start) * (self.batches - left) / (right - left)


Schedulable = float | Scheduled
"""What a module takes where a number may be scheduled; ``float(…)`` of either is the number."""


def find_scheduled(model: nn.Module) -> list[tuple[nn.Module, str, Scheduled]]:
    """All scheduled values of ``model``: the module, the name of its attribute, and the value.

    Found are those that are attributes of a module in the tree; not those in lists, dictionaries or other objects.
    """
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Scheduled)
    ]


def set_progress(scheduled: Iterable[tuple[nn.Module, str, Scheduled]], batches: float) -> None:
    """Tell the values that :func:`find_scheduled` has found that ``batches`` have been trained on."""
    for module, name, value in scheduled:
        setattr(module, name, value.at(batches))
