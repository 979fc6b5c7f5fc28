"""The last batches of an epoch, made of what is left in each bucket."""

from collections.abc import Iterable, Iterator

from lhotse import CutSet
from lhotse.cut import Cut

SMALL = 0.5  # of what a batch may have


def fill_batches(batches: Iterable[CutSet], max_seconds: float) -> Iterator[CutSet]:
    """The same cuts, with small batches joined into full ones, which come last.

    A bucketing sampler ends with the leftovers of each bucket, down to single utterances. An optimiser's steps are as
    large for those as for others: dozens of them in a row spoil the weights just before an epoch's checkpoint.

    Args:
        batches: of similar durations each.
        max_seconds: that a batch may have, padding included.

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
