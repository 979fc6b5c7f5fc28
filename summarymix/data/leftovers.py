"""The last batches of an epoch, made from the leftovers of all buckets."""

from collections.abc import Iterable, Iterator

from lhotse import CutSet
from lhotse.cut import Cut

SMALL = 0.5  # a batch is small below this fraction of the largest duration


def fill_batches(batches: Iterable[CutSet], max_seconds: float) -> Iterator[CutSet]:
    """Join small batches into full ones, which come last; every cut is kept.

    A bucketing sampler ends with the leftovers of each bucket, down to single utterances. An optimiser's step is as
    large for a small batch as for a full one: dozens of them in a row degrade the weights just before a checkpoint.

    Args:
        batches: batches of cuts of similar duration.
        max_seconds: largest duration of a batch in seconds, padding included.

    Yields:
        Batches; at most one of them has less than half of ``max_seconds``.
    """
    leftovers: list[Cut] = []
    for batch in batches:
        if len(batch) * max(cut.duration for cut in batch) < SMALL * max_seconds:
            leftovers += batch
        else:
            yield batch
    leftovers.sort(key=lambda cut: (-cut.duration, cut.id))
    while leftovers:
        size = max(int(max_seconds / leftovers[0].duration), 1)
        yield CutSet.from_cuts(leftovers[:size])
        leftovers = leftovers[size:]
