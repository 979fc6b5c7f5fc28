"""Division of an epoch's utterances into batches, and of the batches among processes, by their durations alone."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SMALL = 0.5  # a batch is small below this fraction of the largest duration


def take(members: NDArray[np.int32], weight: float, epoch: int, seed: int) -> NDArray[np.int32]:
    """The members of an epoch when each is to come ``weight`` times an epoch, on average.

    The epochs go on through one order again and again, so that the numbers of times differ by one at most.

    Args:
        members: numbers of cuts.
        weight: passes over them in an epoch.
        epoch: number of the epoch; the first is 1.
        seed: seed of the order.
    """
    if not float(weight).is_integer():
        members = np.random.default_rng(seed).permutation(members)
    begin, end = (round(weight * len(members) * number) for number in (epoch - 1, epoch))
    return members[np.arange(begin, end) % max(len(members), 1)]


def without(ids: NDArray[np.int64], done: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for each of ``ids`` that is left; every id in ``done`` takes away one of its kind, the first ones."""
    order = np.argsort(ids, kind="stable")
    in_order = ids[order]
    occurrence = np.arange(len(ids)) - np.searchsorted(in_order, in_order)
    done = np.sort(done)
    count = np.searchsorted(done, in_order, side="right") - np.searchsorted(done, in_order)
    left = np.empty(len(ids), np.bool_)
    left[order] = occurrence >= count
    return left


def make_batches(
    seconds: NDArray[np.float64], max_seconds: float, num_buckets: int, rng: np.random.Generator
) -> list[NDArray[np.int32]]:
    """Divide utterances into batches of similar duration, in random order, as lhotse's bucketing samplers do.

    Small batches, which each bucket leaves at its end, are joined into full ones: an optimiser's step is as large for a
    small batch as for a full one.

    Args:
        seconds: duration of each utterance.
        max_seconds: as in :func:`fill`.
        num_buckets: largest number of buckets; each has about the same total duration.
        rng: random numbers.

    Returns:
        The numbers of the utterances in each batch; at most one has less than half of ``max_seconds``.
    """
    bucket = np.searchsorted(_limits(seconds, num_buckets), seconds, side="right").astype(np.int16)
    order = rng.permutation(len(seconds)).astype(np.int32)
    order = order[np.argsort(bucket[order], kind="stable")]
    batches: list[NDArray[np.int32]] = []
    leftovers = [order[:0]]
    for members in np.split(order, np.cumsum(np.bincount(bucket))[:-1]):
        for batch in fill(members, seconds, max_seconds):
            is_small = len(batch) * seconds[batch].max() < SMALL * max_seconds
            (leftovers if is_small else batches).append(batch)
    left = np.concatenate(leftovers)
    batches += fill(left[np.argsort(-seconds[left], kind="stable")], seconds, max_seconds)
    return [batches[i] for i in rng.permutation(len(batches))]


def split_last(batches: list[NDArray[np.int32]], world_size: int) -> list[NDArray[np.int32]]:
    """Make the number of batches a multiple of ``world_size``, by halving the largest ones of the last round.

    If they have fewer utterances than there are processes, some batches are empty.
    """
    whole = len(batches) - len(batches) % world_size
    last = batches[whole:]
    while 0 < len(last) < world_size:
        largest = max(range(len(last)), key=lambda i: len(last[i]))
        last[largest : largest + 1] = [last[largest][::2], last[largest][1::2]]
    return batches[:whole] + last


def _limits(seconds: NDArray[np.float64], num_buckets: int) -> NDArray[np.float64]:
    """Durations at which another bucket begins."""
    sample = np.sort(seconds[:: max(len(seconds) // 100_000, 1)])
    total = np.cumsum(sample)
    parts = np.arange(1, num_buckets) / num_buckets
    return np.unique(sample[np.searchsorted(total, parts * total[-1])]) if len(sample) else sample


def fill(members: NDArray[np.int32], seconds: NDArray[np.float64], max_seconds: float) -> Iterator[NDArray[np.int32]]:
    """Cut a sequence of utterances into batches, each as large as possible.

    Args:
        members: numbers of the utterances.
        seconds: duration of each utterance.
        max_seconds: largest duration of a batch, padding included; an utterance that is longer gets its own batch.
    """
    durations = seconds[members]
    most = int(max_seconds / max(durations.min(initial=np.inf), 1e-3)) + 1
    counts = np.arange(1, most + 1)
    begin = 0
    while begin < len(members):
        padded = np.maximum.accumulate(durations[begin : begin + most])
        padded *= counts[: len(padded)]
        end = begin + max(int(np.searchsorted(padded, max_seconds, side="right")), 1)
        yield members[begin:end]
        begin = end
