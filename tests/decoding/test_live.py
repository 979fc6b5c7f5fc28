"""Live streams: blocks of any size, many streams together, segments and resets."""

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recognizer_cases import LETTERS, Script, emissions, make_audio, make_recognizer

from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCPrefixBeamSearch
from summarymix.decoding.live import Endpointing
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.search import BeamSearch, Hypothesis, Scaling
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.words import SPACE, Transcript


@settings(max_examples=6)
@given(seed=st.integers(0, 100), rate=st.sampled_from([8000, 16000, 44100]))
def test_block_sizes_and_endpoints_change_no_token(recognizer: Recognizer, seed: int, rate: int) -> None:
    rng = random.Random(seed)
    audio = make_audio(9, seed, rate)
    whole = recognizer.transcribe(audio, rate)
    stream = recognizer.stream(rate, endpointing=Endpointing(rng.choice([0.1, 0.3, 1.2]), rng.choice([1, 3])))
    segments = []
    rest = audio
    while len(rest):
        size = rng.choice([0, 4321, 20_000, 100_000])
        segments += stream.accept(rest[:size])
        rest = rest[size:]
        assert isinstance(stream.partial, str)
    assert stream.seconds == pytest.approx(9)
    segments += stream.finish()
    assert len(segments) > 1
    # A space alone is not worth a segment.
    assert "".join(token for token, _ in emissions(*segments)).rstrip("\u2581") == "".join(
        token for token, _ in emissions(whole)
    ).rstrip("\u2581")
    assert all(one.end <= other.start for one, other in pairwise(segments))


@pytest.mark.parametrize(
    ("frames", "tokens", "rest"),
    [
        ([9, 10, 19, 20, 57, 58], "_a_b_c", "c"),  # the last word earlier than where the segment ended
        ([9, 10, 60, 61, 62, 63], "_a_b_c", "c"),  # the word before it later
        ([9, 10, 18, 19, 20, 59, 60], "_ab_d_c", "c"),  # another beam, with another text in the ended segment
    ],
)
def test_a_beam_that_moves_tokens_neither_loses_nor_repeats_them(
    recognizer: Recognizer, frames: list[int], tokens: str, rest: str
) -> None:
    stream = recognizer.stream(16000, endpointing=Endpointing(0.3, 2))

    def recognised(tokens: str, frames: list[int]) -> None:
        ids = [LETTERS.tokens.index(token.replace("_", SPACE)) for token in tokens]
        stream._stream.hypothesis = Hypothesis(ids, frames, [0.0] * len(ids), 64)

    recognised("_a_b_c", [9, 10, 19, 20, 59, 60])
    [ended] = stream._check_endpoint()
    assert ended.text == "a b"
    recognised(tokens, frames)
    segment = stream.segment()
    assert segment.text == rest
    assert segment.words[0].start >= segment.start == ended.end


@pytest.mark.parametrize("method", [ModifiedBeamSearch, CTCPrefixBeamSearch])
@pytest.mark.parametrize("seed", range(4))
def test_ended_segments_are_final_in_beam_searches(
    recognizer: Recognizer, method: type[BeamSearch], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if segments end so early that the beam would change them."""
    search = method(recognizer.model, 8, scaling=Scaling(temperature=2.0))  # type: ignore[arg-type]
    monkeypatch.setattr(recognizer, "search", search)
    stream = recognizer.stream(chunk_ms=40, left_chunks=8, endpointing=Endpointing(0.1, 1))
    hypothesis = stream._stream.hypothesis
    segments = stream.accept(make_audio(9, seed)) + stream.finish()
    assert len(segments) > 3
    shown = "".join(token.token for segment in segments for token in segment.tokens)
    final = "".join(LETTERS.tokens[i] for i in hypothesis.tokens)
    assert shown.rstrip(SPACE) == final.rstrip(SPACE)


@pytest.mark.parametrize(
    ("endpointing", "calls"),
    [(None, [(50, 0), (60, 0), (70, 0)]), (Endpointing(), [(50, 0), (50, 1), (60, 1)])],  # the segment ends at 50
)
def test_silence_settles_what_was_before(
    endpointing: Endpointing | None, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each chunk from 1.2 s on, so that the ranking of a beam does not depend on how long the silence is."""
    settled: list[tuple[int, int]] = []  # encoder frame, number of tokens
    monkeypatch.setattr(
        Script, "settle", lambda self, hypothesis, count: settled.append((hypothesis.num_frames, count))
    )
    script({15: "a"}, endpointing=endpointing)
    assert [call for call in settled if call[0] > 0][:3] == calls


def test_a_word_whose_last_token_has_the_frame_of_the_next_word_stays_whole(recognizer: Recognizer) -> None:
    stream = recognizer.stream(16000, endpointing=Endpointing(0.3, 2))
    ids = [LETTERS.tokens.index(token.replace("_", SPACE)) for token in "_ab_c"]
    stream._stream.hypothesis = Hypothesis(ids, [9, 10, 59, 59, 60], [0.0] * 5, 64)
    [ended] = stream._check_endpoint()
    assert (ended.text, stream.segment().text) == ("ab", "c")


@settings(max_examples=10)
@given(seed=st.integers(0, 100))
def test_streams_together_get_what_each_gets_alone(recognizer: Recognizer, seed: int) -> None:
    """Streams of different lengths and rates, which come, go and break off at any time, in blocks of any size."""
    rng = random.Random(seed)
    lookahead_ms = rng.choice([0, 160])
    streams = recognizer.streams(3, chunk_ms=320, lookahead_ms=lookahead_ms)
    rules, reset = Endpointing(0.3, 2), rng.choice([None, 0.2])
    waiting = [(make_audio(rng.uniform(0, 6), seed + i), rng.choice([8000, 16000])) for i in range(7)]
    running, checked = {}, 0
    while waiting or running:
        while waiting and len(streams) < 3:
            audio, rate = waiting.pop()
            breaks_off = len(waiting) % 3 == 0  # at most three of seven
            running[streams.open(rate, rules, reset)] = (audio, rate, breaks_off, [0, []])
        for stream, (audio, _, _, progress) in running.items():
            if progress[0] < len(audio):
                size = rng.choice([0, 100, 5000, 40_000])
                stream.push(audio[progress[0] : progress[0] + size])
                progress[0] += size
            elif progress[0] < 1e9:
                stream.end()
                progress[0] = 1e9
        streams.step()
        for stream, (audio, rate, breaks_off, progress) in list(running.items()):
            progress[1] += stream.take()
            if stream.closed:
                alone = recognizer.stream(rate, 320, None, lookahead_ms, rules, reset)
                expected = alone.accept(audio) + alone.finish()
                assert [(s.text, s.start, s.end) for s in progress[1]] == [(s.text, s.start, s.end) for s in expected]
                assert emissions(*progress[1]) == emissions(*expected)
                checked += 1
                del running[stream]
            elif breaks_off and rng.random() < 0.05:
                streams.discard(stream)
                del running[stream]
    assert checked > 3
    assert len(streams) == 0


def script(emissions: dict[int, str], **options) -> tuple[list[Transcript], list[str]]:
    """Segments of 16 s in which letters are emitted at given frames, and what was partial after each chunk."""
    recognizer = make_recognizer()
    recognizer.search = Script(recognizer.model, emissions)
    stream = recognizer.stream(chunk_ms=400, **options)
    segments, partials = [], []
    for block in torch.zeros(16 * 16000).split(6400):
        segments += stream.accept(block)
        partials.append(stream.partial)
    return segments + stream.finish(), partials


SPEECH = {20: "\u2581", 45: "a", 48: "b", 50: "\u2581", 60: "c", 90: "\u2581", 150: "d", 152: "e", 155: "\u2581"}


def test_segments_end_after_silence() -> None:
    segments, partials = script(SPEECH, endpointing=Endpointing(silence=1.0))
    # A second after the last letter, at the end of a chunk of ten frames. The space within the silence is no word.
    assert [(s.text, round(s.start, 2), round(s.end, 2)) for s in segments] == [("ab c", 0, 3.6), ("de", 3.6, 7.2)]
    assert [(w.word, round(w.start, 2), round(w.end, 2)) for s in segments for w in s.words][1:] == [
        ("c", 2.4, 2.44),
        ("de", 6.0, 6.12),
    ]
    assert partials[5] == "ab"  # a chunk also needs a little of what follows
    assert (partials[8], partials[9]) == ("ab c", "")


def test_a_space_within_the_silence_belongs_to_the_next_word() -> None:
    [whole], _ = script(SPEECH, endpointing=None)
    for frame in (85, 90, 95):  # the segment ends at frame 90
        (_, segment), _ = script({**SPEECH, 90: "", frame: "\u2581"}, endpointing=Endpointing(silence=1.0))
        assert segment.words == whole.words[-1:]
        assert segment.words[0].spaced


@pytest.mark.parametrize(("frame", "end"), [(19, 1.2), (20, 1.6)])
def test_silence_begins_behind_the_last_letter(frame: int, end: float) -> None:
    """Chunks end at frames 30 and 40. At frame 30 ten silent frames follow a letter at 19, and nine one at 20."""
    segments, _ = script({frame: "a"}, endpointing=Endpointing(silence=0.4))
    assert [(s.text, round(s.end, 2)) for s in segments] == [("a", end)]


def test_long_segments_end_before_their_last_word() -> None:
    talk = {10 * i + 5: letter for i, letter in enumerate("\u2581ab\u2581cd\u2581efg\u2581h")}
    segments, _ = script(talk, endpointing=Endpointing(silence=5, max_seconds=2.0))
    assert [segment.text for segment in segments] == ["ab cd", "efg", "h"]
    segments, _ = script({10 * i: "a" for i in range(12)}, endpointing=Endpointing(silence=5, max_seconds=2.0))
    assert "".join(segment.text for segment in segments) == 12 * "a"  # one word that never ends
    assert len(segments) > 1
    [segment], _ = script(talk, endpointing=None)
    assert segment.text == "ab cd efg h"


@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.5])  # less than a chunk, a chunk, several
def test_a_reset_ends_a_segment_and_time_goes_on(seconds: float) -> None:
    segments, _ = script(SPEECH, endpointing=None, reset_after_silence=seconds)
    assert [segment.text for segment in segments] == ["ab c", "de"]
    words = [word for segment in segments for word in segment.words]
    assert [(word.word, round(word.start, 2)) for word in words] == [("ab", 1.8), ("c", 2.4), ("de", 6.0)]
    assert all(one.end <= other.start for one, other in pairwise(segments))


@pytest.mark.parametrize("seconds", [1.2, 2.4])  # three and six chunks
def test_a_reset_in_silence_waits_for_as_much_silence_again(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = []
    original = StreamingRecognizer.restart
    monkeypatch.setattr(
        StreamingRecognizer, "restart", lambda self, stream: restarts.append(stream) or original(self, stream)
    )
    script({}, endpointing=None, reset_after_silence=seconds)
    assert len(restarts) - 1 == 39 // round(seconds / 0.4)  # the first opens the stream


def test_mistakes_are_named(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="--reset-after-silence must be above 0, not 0"):
        recognizer.stream(reset_after_silence=0)
    with pytest.raises(ValueError, match="more than 0 seconds, not -1"):
        Endpointing(silence=-1)
    stream = recognizer.stream()
    stream.finish()
    with pytest.raises(RuntimeError, match="has been finished"):
        stream.accept(torch.zeros(10))
