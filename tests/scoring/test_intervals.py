import numpy as np
import pytest

from summarymix.scoring.errors import ErrorStats, ScoredUtterance
from summarymix.scoring.intervals import rate_interval


def test_interval_is_that_of_the_normal_distribution_for_many_utterances() -> None:
    rng = np.random.default_rng(1)
    units = rng.integers(5, 30, 4000)
    errors = rng.binomial(units, 0.1)
    rate = errors.sum() / units.sum()
    # Variance of a ratio of sums of independent pairs.
    deviation = 100 * np.sqrt(((errors - rate * units) ** 2).sum()) / units.sum()
    interval = rate_interval(errors.tolist(), units.tolist())
    assert interval == pytest.approx(
        (100 * rate - 1.96 * deviation, 100 * rate + 1.96 * deviation), abs=0.1 * deviation
    )
    assert rate_interval(errors.tolist(), units.tolist()) == interval


def test_difference_of_equal_results_is_certain_and_nothing_has_no_interval() -> None:
    assert rate_interval([0, 0, 0], [4, 5, 6]) == (0.0, 0.0)
    assert rate_interval([2, 1], [0, 0]) is None
    assert rate_interval([], []) is None
    assert rate_interval([3], [10]) is None  # of a single utterance
    assert rate_interval([1, 0], [0, 3]) is not None  # draws without any unit are left out


def test_differences_are_paired_by_utterance() -> None:
    def stats(*hyps: str) -> ErrorStats:
        refs = ["a b c d", "e f", "g h i"]
        return ErrorStats.from_utterances(
            [
                ScoredUtterance(str(i), ref.split(), hyp.split())
                for i, (ref, hyp) in enumerate(zip(refs, hyps, strict=True))
            ]
        )

    one, other = stats("a x c d", "e f f", "g h i"), stats("a b c d", "e f", "g h")
    assert one.by_utterance() == {"0": (1, 4), "1": (1, 2), "2": (0, 3)}
    assert one.above(other) == [pytest.approx(100 / 9), *rate_interval([1, 1, -1], [4, 2, 3])]
    assert one.interval() == rate_interval([1, 1, 0], [4, 2, 3])
    assert one.above(one) == [0.0, 0.0, 0.0]


def test_results_of_other_references_are_not_compared() -> None:
    """Such as results from before and after a change of the transcripts' form."""

    def stats(*refs: str, first: int = 0) -> ErrorStats:
        utterances = [ScoredUtterance(str(i), ref.split(), ["a"]) for i, ref in enumerate(refs, first)]
        return ErrorStats.from_utterances(utterances)

    assert stats("a b", "a").above(stats("a c", "a")) is None
    assert stats("a b", "a").above(stats("a b", "a", first=1)) is None
    assert stats("a b", "a").above(stats("a b")) is None
    assert stats("", "").above(stats("", "")) is None
    assert stats("a b", "a").above(stats("a b", "a")) == [0.0, 0.0, 0.0]


def test_equal_utterances_make_a_point_and_long_ones_count_for_more() -> None:
    assert rate_interval(7 * [1], 7 * [4]) == (25.0, 25.0)
    # Two utterances drawn anew: both twice, or one of each.
    assert rate_interval([0, 5], [5, 5]) == (0.0, 100.0)
    assert rate_interval([0, 10], [1, 10]) == (0.0, 100.0)
    # Two words in each utterance, right or wrong together, are worth no more than one.
    assert rate_interval(100 * [2] + 300 * [0], 400 * [2]) == rate_interval(100 * [1] + 300 * [0], 400 * [1])
