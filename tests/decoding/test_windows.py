"""Windows merged by time lose and double nothing."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from recognizer_cases import LETTERS, make_audio, make_recognizer

from summarymix.decoding.search import Hypothesis
from summarymix.decoding.windows import WindowedRecognizer, append, matches
from summarymix.encoder.subsampling import output_lengths

PIECES = LETTERS.tokens


def hypothesis(emissions: list[tuple[int, int]], num_frames: int) -> Hypothesis:
    tokens, frames = [token for token, _ in emissions], [frame for _, frame in emissions]
    return Hypothesis(tokens, frames, [-0.1 * frame for frame in frames], num_frames)


@given(
    gaps=st.lists(st.integers(0, 25), max_size=60),
    letters=st.randoms(use_true_random=False),
    overlap=st.integers(40, 100),
    shift=st.integers(-3, 3),
)
def test_two_windows_give_what_was_said(gaps: list[int], letters, overlap: int, shift: int) -> None:
    """The second window emits a little earlier or later, and what is at the edges is lost or wrong in each."""
    said, frame = [], 10
    for gap in gaps:
        frame += gap + 2 * abs(shift) + 1  # closer, which of several equal letters is meant could not be told
        said.append((letters.choice([3, 3, 4, 5]), frame))
    begin = 100
    end = begin + overlap
    edge = 10  # frames at which a window does not know
    left = [(token, frame) for token, frame in said if frame < end - edge]
    right = [(token, frame + shift) for token, frame in said if frame >= begin + edge]
    merged = hypothesis([*left, (7, end - 2)], end)
    append(merged, hypothesis([(8, begin + 1), *right], 2000), begin, overlap, PIECES)
    middle, reach = begin + overlap // 2, max(overlap // 4, 10)
    nearest = min((abs(frame - middle) for _, frame in said), default=1000)
    # Both know a token to go over at; or there is silence.
    if nearest <= min(reach - 3, overlap // 2 - edge - 1) or nearest > reach + 3:
        assert merged.tokens == [token for token, _ in said]
    assert merged.frames == sorted(merged.frames)
    assert len(merged.tokens) == len(merged.frames) == len(merged.log_probs)
    assert merged.num_frames == 2000


def test_where_windows_disagree_words_stay_whole() -> None:
    a, b, c, space = (PIECES.index(piece) for piece in "abc\u2581")
    # The middle, 120, is within a word; the windows have heard nothing alike.
    merged = hypothesis([(space, 90), (a, 115), (a, 118), (a, 122), (space, 124), (a, 130)], 140)
    append(merged, hypothesis([(space, 112), (b, 119), (b, 121), (space, 123), (c, 125)], 160), 100, 40, PIECES)
    assert LETTERS.decode(merged.tokens) == "aaa c"


def test_times_never_run_backwards() -> None:
    """Windows may emit tokens some frames apart, and only one of them decides where they are joined."""
    a, b, c, d = (PIECES.index(piece) for piece in "abcd")
    merged = hypothesis([(a, 103), (b, 117), (c, 119), (d, 120)], 140)
    append(merged, hypothesis([(a, 102), (b, 114), (c, 115), (d, 116)], 160), 100, 40, PIECES)
    assert merged.tokens == [a, b, c, d]
    assert merged.frames == sorted(merged.frames)


def test_matches_are_the_most_and_closest() -> None:
    left = hypothesis([(3, 10), (3, 14), (3, 18), (4, 19)], 30)
    right = hypothesis([(3, 15), (3, 19), (5, 20), (3, 29), (4, 40)], 60)
    assert matches(left, right) == [(1, 0), (2, 1)]
    assert matches(left, hypothesis([], 60)) == []


@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_windows_equal_the_whole_where_context_is_short(overlap: int) -> None:
    """Without summaries a frame sees a quarter of a second to each side, and here no token sees those before it: in the
    middle of an overlap all agrees.
    """
    recognizer = make_recognizer("local")
    torch.nn.init.zeros_(recognizer.model.joiner.predictor_proj.weight)
    audio = make_audio(41)
    whole = recognizer.transcribe(audio, mode="offline", window_seconds=60)
    windows = recognizer.transcribe(audio, mode="offline", window_seconds=6, overlap_seconds=overlap)
    assert len(whole.tokens) > 40
    assert len({token.token for token in whole.tokens}) > 4
    assert [(token.token, token.start) for token in windows.tokens] == [(t.token, t.start) for t in whole.tokens]
    assert [token.confidence for token in windows.tokens] == pytest.approx(
        [t.confidence for t in whole.tokens], abs=0.02
    )


@given(st.integers(0, 1500), st.lists(st.integers(0, 300), min_size=1, max_size=5))
@example(1244, [0])
def test_windows_cover_everything_whatever_the_blocks(length: int, sizes: list[int]) -> None:
    recognizer = WindowedRecognizer(None, PIECES, 4.0, 1.2)  # type: ignore[arg-type]
    features = torch.arange(length, dtype=torch.float32)[:, None]
    blocks = features.split(sizes[0] + 1) if length else []
    windows = list(recognizer._windows(blocks))
    end = 0
    for begin, window in windows:
        first = int(window[0])
        assert first == 4 * begin
        assert torch.equal(window, features[first : first + len(window)])
        assert output_lengths(len(window)) <= 100
        assert begin == 0 or first + 120 < end  # they overlap
        assert first + len(window) > end
        end = first + len(window)
    assert end == length


def test_impossible_windows_are_refused() -> None:
    for window, overlap in ((10, 6), (10, 0), (10, -1)):
        with pytest.raises(ValueError, match=f"windows of 10 s with an overlap of {overlap} s"):
            make_recognizer().transcribe(make_audio(1), mode="offline", window_seconds=window, overlap_seconds=overlap)


def test_a_match_near_an_edge_does_not_join() -> None:
    a, b, c = (PIECES.index(piece) for piece in "abc")
    merged = hypothesis([(a, 103), (b, 107)], 140)
    append(merged, hypothesis([(a, 103), (c, 107)], 160), 100, 40, PIECES)
    assert merged.tokens == [a, b]


def test_a_word_that_both_have_heard_is_taken_from_one() -> None:
    a, b, c, space = (PIECES.index(piece) for piece in "abc\u2581")
    merged = hypothesis([(space, 112), (a, 118), (b, 121)], 140)
    append(merged, hypothesis([(space, 112), (a, 118), (c, 119), (b, 121)], 160), 100, 40, PIECES)
    assert merged.tokens == [space, a, c, b]


def test_a_word_from_before_the_overlap_stays_whole() -> None:
    a, b, c, space = (PIECES.index(piece) for piece in "abc\u2581")
    merged = hypothesis([(space, 90), (a, 95), (b, 125)], 140)
    append(merged, hypothesis([(space, 122), (c, 126)], 160), 100, 40, PIECES)
    assert LETTERS.decode(merged.tokens) == "ab c"


@pytest.mark.parametrize("num_features", [1239, 1243, 1247])
def test_each_window_has_new_frames(num_features: int) -> None:
    recognizer = WindowedRecognizer(make_recognizer().search, PIECES, 4.0, 1.2)
    ends = [int(window[-1]) for _, window in recognizer._windows([torch.arange(float(num_features))[:, None]])]
    assert ends == sorted(set(ends))
    assert ends[-1] == num_features - 1
