"""Sharing of an epoch's batches among processes: all get equally many, and every cut comes exactly once."""

import itertools
from collections.abc import Iterable, Iterator

from lhotse import CutSet
from lhotse.cut import Cut


def share(batches: Iterable[CutSet], rank: int, world_size: int) -> Iterator[CutSet]:
    """Yield every ``world_size``-th batch; an incomplete last round is split among all ranks."""
    if world_size == 1:
        yield from batches
        return
    held: list[list[Cut]] = []  # the last complete round, held back because an incomplete one may need some of its cuts
    for batch_group in _rounds(batches, world_size):
        if len(batch_group) < world_size:
            held, batch_group = _complete(held, batch_group, world_size)
        if held:
            yield CutSet.from_cuts(held[rank])
        held = batch_group
    if held:
        yield CutSet.from_cuts(held[rank])


def _rounds(batches: Iterable[CutSet], world_size: int) -> Iterator[list[list[Cut]]]:
    # A generator, because islice() calls iter(), which restarts a lhotse sampler.
    iterator = (batch for batch in batches)
    while group := [list(batch) for batch in itertools.islice(iterator, world_size)]:
        yield group


def _complete(
    previous: list[list[Cut]], last: list[list[Cut]], world_size: int
) -> tuple[list[list[Cut]], list[list[Cut]]]:
    """Split an incomplete last round into one batch per rank; if cuts are too few, the previous round gives some."""
    cuts = [cut for batch in last for cut in batch]
    while len(cuts) < world_size and any(len(batch) > 1 for batch in previous):
        cuts.append(max(previous, key=len).pop())
    if len(cuts) < world_size:
        # All batches have one cut: give some of them a second one rather than repeat or drop a cut.
        for batch, cut in zip(previous, cuts, strict=False):
            batch.append(cut)
        return [], previous
    return previous, [cuts[rank::world_size] for rank in range(world_size)]
