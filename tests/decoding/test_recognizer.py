"""summarymix.load and what it gives: files and streams, in any blocks and at any rate."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recognizer_cases import LETTERS, Script, make_audio, make_recognizer

from summarymix.chunking import ChunkConfig, DynamicChunkConfig
from summarymix.data.features import FbankExtractor
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.recognizer import Endpointing, Recognizer, default_left_chunks
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.words import SPACE, Transcript
from summarymix.encoder.subsampling import output_lengths


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return make_recognizer()


def emissions(*transcripts: Transcript) -> list[tuple[str, float]]:
    return [(token.token, round(token.start, 3)) for one in transcripts for token in one.tokens]


def with_tail(recognizer: Recognizer, tail: int) -> Recognizer:
    fbank = replace(recognizer.extractor.options, tail_frames=tail)
    return Recognizer(recognizer.model, LETTERS, FbankExtractor(fbank), recognizer.left_chunks)


@pytest.mark.parametrize(("chunk_ms", "left", "tail"), [(640, None, 0), (320, 4, 0), (640, -1, 0), (320, None, 30)])
def test_a_file_is_recognised_as_decode_does(
    recognizer: Recognizer, tmp_path: Path, chunk_ms: int, left: int, tail: int
) -> None:
    recognizer = with_tail(recognizer, tail)
    audio = make_audio(23.3)
    soundfile.write(tmp_path / "a.wav", audio, 16000, subtype="FLOAT")
    features = recognizer.extractor.extract(audio)
    chunk = ChunkConfig.from_ms(chunk_ms, 2 if left is None else left)
    batched = StreamingRecognizer(GreedySearch(recognizer.model, unk_id=LETTERS.unk_id), chunk, num_streams=2)
    [(_, expected)] = batched.decode_all([("a", features)])
    assert len(expected.tokens) > 50
    found = recognizer.transcribe(tmp_path / "a.wav", chunk_ms=chunk_ms, left_chunks=left)
    assert [token.token for token in found.tokens] == [LETTERS.tokens[i] for i in expected.tokens]
    assert expected.num_frames == output_lengths(2330 + tail)
    assert [token.start for token in found.tokens] == pytest.approx(
        [min(0.04 * frame, 23.3) for frame in expected.frames]
    )
    assert np.log([token.confidence for token in found.tokens]) == pytest.approx(expected.log_probs, abs=1e-3)
    assert found.text.split() == LETTERS.decode(expected.tokens).split()
    assert (found.start, found.end) == (0, pytest.approx(23.3))
    # Samples are taken as files are.
    assert emissions(recognizer.transcribe(audio, chunk_ms=chunk_ms, left_chunks=left)) == emissions(found)


@pytest.mark.parametrize("tail", [0, 30])
def test_a_short_file_is_decoded_offline_as_a_whole(recognizer: Recognizer, tail: int) -> None:
    recognizer = with_tail(recognizer, tail)
    audio = make_audio(14, seed=1)
    features = recognizer.extractor.extract(audio)[None]
    with torch.inference_mode():
        out, lengths = recognizer.model.encoder(features, torch.tensor([features.size(1)]), ChunkConfig())
    [expected] = recognizer.search.decode(out, lengths)
    assert len(expected.tokens) > 20
    assert expected.num_frames == output_lengths(1400 + tail)
    found = recognizer.transcribe(audio, mode="offline")
    assert [token.token for token in found.tokens] == [LETTERS.tokens[i] for i in expected.tokens]
    assert found.end == 14


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


def test_other_rates_and_channels_give_the_same_words(tmp_path: Path) -> None:
    """Of what speech-like sound below 4 kHz has in common at all rates."""
    recognizer = make_recognizer(sample_rate=8000)
    audio = make_audio(12, rate=8000)
    expected = recognizer.transcribe(audio)
    from lhotse.augmentation.resample import Resample

    higher = Resample(8000, 24000, lowpass_filter_width=64)(audio).numpy()
    soundfile.write(tmp_path / "a.flac", np.stack([higher, np.zeros_like(higher)], 1), 24000)
    found = recognizer.transcribe(tmp_path / "a.flac", channel=0)
    same = set(emissions(expected)) & set(emissions(found))
    assert len(same) > 0.7 * len(expected.tokens) > 15
    soundfile.write(tmp_path / "b.wav", np.stack([audio, audio], 1), 8000, subtype="FLOAT")
    assert emissions(recognizer.transcribe(tmp_path / "b.wav")) == emissions(expected)
    assert recognizer.transcribe(tmp_path / "a.flac", channel=1).tokens != expected.tokens
    for rate in (0, -5):
        with pytest.raises(ValueError, match=f"{rate}"):
            recognizer.stream(sample_rate=rate)


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


def test_left_context_is_limited_where_training_limited_it(recognizer: Recognizer) -> None:
    assert default_left_chunks(DynamicChunkConfig(max_left=8)) == 8
    assert default_left_chunks(DynamicChunkConfig(limited_left_prob=0)) == -1
    assert default_left_chunks(DynamicChunkConfig(full_context_prob=1)) == -1
    audio = make_audio(8)
    by_default = recognizer.transcribe(audio, chunk_ms=320)
    assert emissions(by_default) == emissions(recognizer.transcribe(audio, chunk_ms=320, left_chunks=2))
    assert emissions(by_default) != emissions(recognizer.transcribe(audio, chunk_ms=320, left_chunks=-1))


def test_integers_are_scaled(recognizer: Recognizer) -> None:
    audio = (make_audio(5) * 32768).short()
    assert emissions(recognizer.transcribe(audio)) == emissions(recognizer.transcribe(audio / 32768))
    assert recognizer.transcribe(audio.numpy()).tokens


def test_nothing_gives_nothing(recognizer: Recognizer) -> None:
    for mode in ("streaming", "offline"):
        for length in (0, 10, 500):
            found = recognizer.transcribe(torch.zeros(length), mode=mode)
            assert (found.text, found.words) == ("", [])
            assert found.end == pytest.approx(length / 16000)


def test_mistakes_are_named(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="--chunk-ms 650 is not a multiple"):
        recognizer.stream(chunk_ms=650)
    with pytest.raises(ValueError, match="--reset-after-silence must be above 0, not 0"):
        recognizer.stream(reset_after_silence=0)
    with pytest.raises(ValueError, match="the backend must be auto, torch, onnx or None, not Onnx"):
        Recognizer.load("exp", backend="Onnx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than 0 seconds, not -1"):
        Endpointing(silence=-1)
    with pytest.raises(ValueError, match="streaming or offline, not simulated"):
        recognizer.transcribe(torch.zeros(10), mode="simulated")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"gone.wav: no such file"):
        recognizer.transcribe("gone.wav")
    stream = recognizer.stream()
    stream.finish()
    with pytest.raises(RuntimeError, match="has been finished"):
        stream.accept(torch.zeros(10))


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("offline", {"chunk_ms": 640}),
        ("offline", {"left_chunks": 4}),
        ("offline", {"reset_after_silence": 1.0}),
        ("streaming", {"window_seconds": 30.0}),
        ("streaming", {"overlap_seconds": 4.0}),
    ],
)
def test_options_of_the_other_mode_are_refused(recognizer: Recognizer, mode: str, option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"--{next(iter(option)).replace('_', '-')} has no effect with --mode {mode}"):
        recognizer.transcribe(np.zeros(16000), mode=mode, **option)


def test_channels_in_the_wrong_dimension_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match=r"expected samples \(n,\) or \(n, channels\), got \(1, 16000\): transpose"):
        recognizer.transcribe(torch.zeros(1, 16000))
