"""Streams in real time, with a clock that only moves when told to."""

import pytest
from benchmarks.pacing import in_time, most, pace


class Machine:
    """Takes so many seconds for a batch, and so many more for each stream in it."""

    def __init__(self, batch: float, stream: float) -> None:
        self.batch, self.stream = batch, stream
        self.now = 100.0
        self.batches: list[list[int]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def decode(self, ready: list[int]) -> None:
        self.batches.append(ready)
        self.now += self.batch + self.stream * len(ready)

    def pace(self, num_streams: int, num_chunks: int = 20, period: float = 1.0) -> list[float]:
        return pace(num_streams, num_chunks, period, self.decode, self.clock, self.sleep)


def test_streams_are_staggered_and_batched_by_what_has_arrived() -> None:
    fast = Machine(0, 0.125)
    assert fast.pace(4, num_chunks=2) == [0.125] * 8
    assert fast.batches == [[0], [1], [2], [3]] * 2
    assert fast.now == 100 + 1.75 + 0.125  # the last chunk of the last stream arrives 1.75 s after the start

    slow = Machine(0.5, 0)
    assert slow.pace(4, num_chunks=1) == [0.5, 0.75, 0.5, 0.75]
    assert slow.batches == [[0], [1, 2], [3]]


def test_a_hopeless_trial_ends_early() -> None:
    stuck = Machine(6, 0)
    assert stuck.pace(2) == [6]
    assert not in_time([6], 1.0)
    assert not in_time([0.1] * 1000 + [6], 1.0)
    assert in_time([0.1] * 1000 + [4.9], 1.0)
    assert not in_time([0.1] * 97 + [1.1] * 3, 1.0)


@pytest.mark.parametrize(("batch", "stream", "held"), [(0, 0.125, 8), (0, 0.0625, 16), (0.25, 0, 50), (2, 0, 0)])
def test_as_many_as_there_is_time_for(batch: float, stream: float, held: int) -> None:
    """With a cost for each stream, N of them take N times that of each period. Batches alone cost the same for all."""
    assert most(lambda n: in_time(Machine(batch, stream).pace(n, num_chunks=40), 1.0), limit=50) == held


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 30, 100])
def test_search_finds_the_largest_number(limit: int) -> None:
    for true in range(40):
        tried: list[int] = []

        def holds(n: int, true: int = true, tried: list[int] = tried) -> bool:
            tried.append(n)
            return n <= true

        assert most(holds, limit) == min(true, limit)
        assert len(set(tried)) == len(tried) <= 12
        assert max(tried) <= limit
        assert min(true, limit) / 1.1 - 1 <= most(holds, limit, resolution=0.1) <= min(true, limit)
        assert true < limit or most(holds, limit, resolution=0.1) == limit
