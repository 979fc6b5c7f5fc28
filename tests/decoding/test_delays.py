import pytest

from summarymix.chunking import ChunkConfig
from summarymix.decoding.delays import Delays, DelaySummary, PartialResults

CHUNK = ChunkConfig(8)  # 320 ms; the first needs 357.5 ms


def delays(duration: float, *results: tuple[str, float]) -> Delays:
    partial = PartialResults(duration, CHUNK)
    for text, computing in results:
        partial.add(text.split(), computing)
    return partial.delays()


def test_results_wait_for_audio_and_for_earlier_computing() -> None:
    found = delays(1.2, ("", 0.01), ("ONE", 0.5), ("ONE TO", 0.02), ("ONE TWO", 0.03))
    # Audio at 0.3575, 0.6775, 0.9975 and 1.2 s; the second result comes at 1.1775, after the third's audio.
    assert found.first_partial == pytest.approx(1.1775)
    assert found.first_stable == pytest.approx(1.1775)
    assert found.final == pytest.approx(0.03)
    assert (found.shown, found.changed) == (3, 1)
    assert delays(1.2, ("", 0.01), ("ONE", 2.0)).final == pytest.approx(0.6775 + 2.0 - 1.2)


def test_first_word_is_stable_from_its_last_change_on() -> None:
    found = delays(2.0, ("ON", 0.0), ("ONE", 0.0), ("", 0.0), ("ONE", 0.0), ("ONE SIX", 0.0))
    assert found.first_partial == pytest.approx(0.3575)
    assert found.first_stable == pytest.approx(0.3575 + 3 * 0.32)
    assert (found.shown, found.changed) == (4, 2)
    assert found.final == 0.0
    found = delays(2.0, ("ONE TWO", 0.0), ("ONE SIX TWO", 0.0), ("ONE SIX TWO", 0.0))
    assert (found.shown, found.changed) == (4, 1)  # TWO has moved


def test_without_words_only_the_end_counts() -> None:
    assert delays(0.5, ("", 0.1), ("", 0.2)) == Delays(None, None, pytest.approx(0.2), 0, 0)
    gone = delays(0.7, ("A", 0.0), ("", 0.0))
    assert (gone.first_partial, gone.first_stable, gone.changed) == (pytest.approx(0.3575), None, 1)
    assert delays(0.0) == Delays(None, None, 0.0, 0, 0)


def test_summary() -> None:
    some = [Delays(0.1 * i, 0.2 * i, 0.01 * i, 4, 1) for i in range(1, 101)]
    summary = DelaySummary.of([*some, Delays(None, None, 0.0, 0, 0)])
    assert summary.first_partial_ms == pytest.approx([5050, 9505])
    assert summary.first_stable_ms == pytest.approx([10100, 19010])
    assert summary.changed_words == 25.0
    assert str(summary).startswith("first word 5050 ms (p95 9505), stable 10100 ms")
    empty = DelaySummary.of([])
    assert (empty.final_ms, empty.changed_words) == (None, None)
    assert "final result – after the end" in str(empty)


def test_a_result_waits_for_the_computing_before_it() -> None:
    found = delays(1.2, ("", 0.01), ("ONE", 0.5), ("TWO", 0.02), ("TWO", 0.03))
    # The third chunk's audio is there at 0.9975 s, but the second one is computed until 1.1775 s.
    assert found.first_stable == pytest.approx(1.1975)
