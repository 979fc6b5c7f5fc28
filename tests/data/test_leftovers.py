"""Small batches are joined, no cut is lost, and full batches stay as they are."""

import random

import pytest
from lhotse import CutSet, MonoCut

from summarymix.data.leftovers import fill_batches

MAX_SECONDS = 20.0


def make_batches(seed: int) -> list[CutSet]:
    """Buckets of a second each: full batches of them in any order, then what is left in each."""
    rng = random.Random(seed)
    full, left = [], []
    for bucket in range(1, 12):
        cuts = [MonoCut(f"{bucket}-{i}", 0.0, bucket + rng.random(), 0) for i in range(rng.randint(1, 40))]
        size = int(MAX_SECONDS / (bucket + 1))
        groups = [CutSet.from_cuts(cuts[i : i + size]) for i in range(0, len(cuts), size)]
        full += groups[:-1]
        left.append(groups[-1])
    rng.shuffle(full)
    return full + left


def padded_seconds(batch: CutSet) -> float:
    return len(batch) * max(cut.duration for cut in batch)


@pytest.mark.parametrize("seed", range(20))
def test_every_cut_once_and_one_small_batch_at_most(seed: int) -> None:
    before = make_batches(seed)
    after = list(fill_batches(before, MAX_SECONDS))
    assert sorted(cut.id for batch in after for cut in batch) == sorted(cut.id for batch in before for cut in batch)
    assert all(padded_seconds(batch) <= MAX_SECONDS for batch in after)
    assert sum(padded_seconds(batch) < MAX_SECONDS / 2 for batch in after) <= 1
    large = [[cut.id for cut in batch] for batch in before if padded_seconds(batch) >= MAX_SECONDS / 2]
    assert [[cut.id for cut in batch] for batch in after[: len(large)]] == large


def test_an_utterance_longer_than_a_batch_stands_alone() -> None:
    long, short = MonoCut("long", 0.0, 30.0, 0), MonoCut("short", 0.0, 1.0, 0)
    found = list(fill_batches([CutSet.from_cuts([short]), CutSet.from_cuts([long])], MAX_SECONDS))
    assert [[cut.id for cut in batch] for batch in found] == [["long"], ["short"]]
    assert list(fill_batches([], MAX_SECONDS)) == []
