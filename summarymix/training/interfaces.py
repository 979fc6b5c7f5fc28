"""Interfaces of the data that a run reads."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from summarymix.data.loading import Batch
from summarymix.data.training_data import NO_CUTS, Masks


class EpochData(Protocol):
    """Interface of the training data; :class:`summarymix.data.training_data.TrainData` implements it."""

    total_seconds: float

    def batching(self) -> dict[str, Any]:
        """Everything that determines an epoch's batches, besides its number and the processes: names and values."""

    def epoch(
        self,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        skip_batches: int = 0,
        done: Tensor = NO_CUTS,
        masks: Iterable[Masks] = (),
    ) -> Iterator[Batch]:
        """The batches of an epoch for one process, without the cuts in ``done``; every process gets the same number."""

    def done(self, epoch: int, world_size: int, num_batches: int, before: Tensor) -> Tensor:
        """The cuts in ``before`` and in the first batches of all processes, for :meth:`epoch`."""

    def worst_batches(self, chunk_sizes: Sequence[int] = ()) -> Iterable[tuple[str, Batch]]:
        """The batches that need the most memory, each with the reason, padded to whole chunks of any of these sizes."""


class DevData(Protocol):
    """Interface of a dev split; :class:`summarymix.data.evaluation_data.EvalData` implements it."""

    @property
    def num_unreadable(self) -> int:
        """Number of this process's cuts that could not be read in the last iteration."""

    def __iter__(self) -> Iterator[Batch]:
        """This process's batches."""
