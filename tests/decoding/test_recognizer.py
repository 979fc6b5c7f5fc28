"""summarymix.load and what it gives: transcripts of files and samples, at any rate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recognizer_cases import LETTERS, emissions, make_audio, make_recognizer

from summarymix.chunking import ChunkConfig, DynamicChunkConfig
from summarymix.data.features import FbankExtractor
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.recognizer import Recognizer, default_left_chunks
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.encoder.subsampling import output_lengths


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
    with pytest.raises(ValueError, match="the backend must be auto, torch, onnx or None, not Onnx"):
        Recognizer.load("exp", backend="Onnx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="streaming or offline, not simulated"):
        recognizer.transcribe(torch.zeros(10), mode="simulated")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"gone.wav: no such file"):
        recognizer.transcribe("gone.wav")


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
