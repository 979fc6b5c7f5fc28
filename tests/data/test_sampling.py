"""Batches against the rules of a bucketing sampler: size, similar durations, every utterance once, shared evenly."""

from collections import Counter

import numpy as np
import pytest
from batch_cases import ids, train_data
from lhotse.dataset.sampling.base import TimeConstraint

from summarymix.data.sampling import fill, make_batches, split_last, take, without
from summarymix.data.tokens import Tokenizer

MAX_SECONDS = 20.0


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4.0, 1.0, count).clip(0.3, 15.0)


def batches_of(seconds: np.ndarray, seed: int = 0, num_buckets: int = 8) -> list[np.ndarray]:
    return make_batches(seconds, MAX_SECONDS, num_buckets, np.random.default_rng(seed))


@pytest.mark.parametrize("count", [0, 1, 7, 200, 3000])
def test_every_utterance_once_and_one_small_batch_at_most(count: int) -> None:
    seconds = draw(count)
    batches = batches_of(seconds)
    assert sorted(np.concatenate([[], *batches])) == list(range(count))
    padded = [len(batch) * seconds[batch].max() for batch in batches]
    assert all(size <= MAX_SECONDS for size in padded)
    assert sum(size < MAX_SECONDS / 2 for size in padded) <= 1


def test_batches_are_as_large_as_lhotse_makes_them_and_hold_similar_durations() -> None:
    seconds = draw(3000)
    batches = batches_of(seconds)
    full = 0
    for batch in batches:
        constraint = TimeConstraint(MAX_SECONDS)
        constraint.longest_seen, constraint.num_cuts = seconds[batch].max(), len(batch)
        assert not constraint.exceeded()
        full += constraint.close_to_exceeding()
    assert full > 0.6 * len(batches)  # the others would have exceeded with a longer utterance
    padding = 1 - seconds.sum() / sum(len(batch) * seconds[batch].max() for batch in batches)
    without_buckets = batches_of(seconds, num_buckets=1)
    assert padding < 0.15
    assert 1 - seconds.sum() / sum(len(batch) * seconds[batch].max() for batch in without_buckets) > 0.2


def test_order_depends_on_the_seed_alone() -> None:
    seconds = draw(500)
    one, other = batches_of(seconds), batches_of(seconds, seed=1)
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in batches_of(seconds)]
    assert not {tuple(sorted(batch)) for batch in one if len(batch) > 2} & {tuple(sorted(batch)) for batch in other}
    # Batches of all durations come in any part of an epoch.
    longest = [seconds[batch].max() for batch in one]
    assert abs(np.mean(longest[: len(longest) // 2]) - np.mean(longest[len(longest) // 2 :])) < 1.5


def test_an_utterance_longer_than_a_batch_stands_alone() -> None:
    assert sorted(batch.tolist() for batch in batches_of(np.array([30.0, 1.0]))) == [[0], [1]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 64])
def test_last_round_is_split_among_all(world_size: int) -> None:
    before = [np.arange(i, i + 5, dtype=np.int32) for i in range(0, 50, 5)]
    after = split_last(before.copy(), world_size)
    assert len(after) % world_size == 0
    assert len(after) < len(before) + world_size
    assert sorted(np.concatenate(after)) == list(range(50))
    whole = len(before) // world_size * world_size
    assert [batch.tolist() for batch in after[:whole]] == [batch.tolist() for batch in before[:whole]]
    assert max(map(len, after)) <= 5
    sizes = [len(batch) for batch in after[whole:]]
    assert not sizes or max(sizes) <= 2 * min(sizes) + 1


@pytest.mark.parametrize("world_size", [2, 3, 7, 40, 64])
@pytest.mark.parametrize("max_duration", [3.5, 8.0, 1000.0])
def test_ranks_share_an_epoch(world_size: int, max_duration: float, prepare, tokenizer: Tokenizer) -> None:
    """No cut twice, none lost, and as many batches on each rank; what one process does is only dealt out."""
    data = train_data(prepare(), tokenizer, max_duration=max_duration)
    alone = ids(data.epoch(0))
    ranks = [ids(data.epoch(0, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    dealt = [cut_id for batches in ranks for batch in batches for cut_id in batch]
    assert Counter(dealt) == Counter(cut_id for batch in alone for cut_id in batch)
    assert len(dealt) == 40
    for step in range(len(alone) // world_size):
        assert [batches[step] for batches in ranks] == alone[step * world_size : (step + 1) * world_size]


@pytest.mark.parametrize("weight", [1.0, 0.3, 2.0, 2.7])
def test_numbers_of_passes_differ_by_one_at_most(weight: float) -> None:
    members = np.arange(100, 117, dtype=np.int32)
    counts: Counter[int] = Counter()
    for epoch in range(1, 30):
        taken = take(members, weight, epoch, seed=1)
        assert len(taken) == pytest.approx(weight * len(members), abs=1)
        counts.update(taken.tolist())
        of_each = [counts[member] for member in members.tolist()]
        assert max(of_each) - min(of_each) <= 1
    assert take(members[:0], weight, 1, seed=1).tolist() == []
    assert len(take(members, weight, 0, seed=1)) == pytest.approx(weight * len(members), abs=1)


def test_what_is_done_takes_away_as_many_of_its_kind() -> None:
    ids_of_epoch = np.array([5, -3, 5, 7, 5, -3], np.int64)
    left = without(ids_of_epoch, np.array([5, 7, 5, 99], np.int64))
    assert left.tolist() == [False, True, False, False, True, True]
    assert without(ids_of_epoch, np.zeros(0, np.int64)).all()
    assert not without(ids_of_epoch, np.repeat(ids_of_epoch, 2)).any()


def test_the_part_of_a_corpus_in_an_epoch_is_a_random_one() -> None:
    assert 400 < take(np.arange(1000, dtype=np.int32), 0.5, 1, seed=0).mean() < 600


def test_a_batch_may_be_as_long_as_the_limit() -> None:
    members = np.arange(6, dtype=np.int32)
    assert [len(batch) for batch in fill(members, np.full(6, 10.0), 30.0)] == [3, 3]
