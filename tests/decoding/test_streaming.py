"""Streaming recognition gives what simulated recognition gives, however streams and their input arrive."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import chunk_configs
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.streaming import FeatureQueue, StreamingRecognizer
from summarymix.encoder.subsampling import features_needed, output_lengths
from summarymix.model import Transducer

TIE = 1e-4


UNK = 1


def make_recognizer(model: Transducer, chunk: ChunkConfig, num_streams: int = 1) -> StreamingRecognizer:
    search = GreedySearch(model, unk_id=UNK, record_margins=True)
    return StreamingRecognizer(search, chunk, num_streams)


@torch.inference_mode()
def simulate(model: Transducer, features: Tensor, chunk: ChunkConfig) -> Hypothesis:
    """Recognise one whole utterance (T, F) under chunk masks, alone."""
    out, lengths = model.encoder(features[None], torch.tensor([features.size(0)]), chunk)
    return GreedySearch(model, unk_id=UNK, record_margins=True).decode(out, lengths)[0]


def make_features(lengths: list[int], seed: int = 0, dim: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator) for length in lengths]


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    """Equal, unless the decision that tells them apart was a tie."""
    assert one.num_frames == other.num_frames
    if one.frames == other.frames and one.tokens == other.tokens:
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-3)
    else:
        assert min(one.margins) < TIE, (one, other)


@settings(max_examples=40)
@given(
    chunk=chunk_configs(12, 5),
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=6),
    num_streams=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_streams_that_come_and_go_equal_simulation(
    stateless_model: Transducer,
    chunk: ChunkConfig,
    lengths: list[int],
    num_streams: int,
    seed: int,
) -> None:
    """Streams enter at random times as slots become free, their features arrive in blocks of random sizes."""
    model, rng = stateless_model, random.Random(seed)
    features = make_features(lengths, seed)
    recognizer = make_recognizer(model, chunk, num_streams)
    waiting = list(range(len(features)))
    running = {}
    results = {}
    while waiting or running:
        if waiting and recognizer.num_free and (not running or rng.random() < 0.5):
            n = waiting.pop(0)
            running[n] = recognizer.open(), features[n]
        for n, (stream, rest) in list(running.items()):
            size = rng.choice([0, 1, 5, 4 * (chunk.chunk_size or 1), 100])
            if not stream.finished:
                stream.accept_features(rest[:size])
                running[n] = stream, rest[size:]
                if size >= rest.size(0) and rng.random() < 0.7:  # sometimes the end is known only later
                    stream.finish()
        recognizer.step()
        for n, (stream, _) in list(running.items()):
            if recognizer.done(stream):
                results[n] = stream.hypothesis
                recognizer.close(stream)
                del running[n]
    assert recognizer.num_free == num_streams
    for n, utterance in enumerate(features):
        assert_same(results[n], simulate(model, utterance, chunk))


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
@pytest.mark.parametrize(("left_chunks", "lookahead"), [(-1, 0), (0, 0), (2, 0), (2, 1), (-1, 4)])
def test_every_length_around_chunk_boundaries(
    any_model: Transducer, chunk_size: int, left_chunks: int, lookahead: int
) -> None:
    """Shorter than a frame, than a chunk, on a boundary, a feature before and after it."""
    chunk = ChunkConfig(chunk_size, left_chunks, min(lookahead, chunk_size))
    boundaries = [features_needed(k * chunk_size + ahead) for k in (0, 1, 2, 3) for ahead in (0, chunk.lookahead)]
    lengths = sorted({max(b + d, 0) for b in boundaries for d in (-4, -1, 0, 1, 4)} | {0, 6, 7, 60})
    features = make_features(lengths)
    recognizer = make_recognizer(any_model, chunk, num_streams=5)
    results = dict(recognizer.decode_all(enumerate(features)))
    assert sorted(results) == list(range(len(features)))
    assert sum(len(h.tokens) for h in results.values()) > output_lengths(sum(lengths)) / 5
    for n, utterance in enumerate(features):
        assert results[n].num_frames == output_lengths(utterance.size(0))
        assert_same(results[n], simulate(any_model, utterance, chunk))


@pytest.mark.parametrize("lookahead", [0, 3])
def test_simulation_of_a_ragged_batch_equals_streams(any_model: Transducer, lookahead: int) -> None:
    chunk = ChunkConfig(8, 2, lookahead)
    features = make_features([150, 3, 90, 200, 35, 0])
    lengths = torch.tensor([f.size(0) for f in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=50.0)
    with torch.inference_mode():
        out, out_lengths = any_model.encoder(padded, lengths, chunk)
    simulated = GreedySearch(any_model, unk_id=UNK, record_margins=True).decode(out, out_lengths)
    streamed = dict(make_recognizer(any_model, chunk, 6).decode_all(enumerate(features)))
    for n, hypothesis in enumerate(simulated):
        assert_same(streamed[n], hypothesis)


def test_a_used_slot_leaves_no_trace(any_model: Transducer) -> None:
    first, second = make_features([173, 120])
    recognizer = make_recognizer(any_model, ChunkConfig(4, -1))
    stream = recognizer.open()
    stream.accept_features(first)
    while recognizer.step():
        pass
    assert stream.hypothesis.tokens
    recognizer.close(stream)  # abandoned before its end, with features left
    [(_, reused)] = recognizer.decode_all([("second", second)])
    [(_, fresh)] = make_recognizer(any_model, ChunkConfig(4, -1)).decode_all([("second", second)])
    assert reused == fresh


def test_a_stream_begins_anew_when_restarted(any_model: Transducer) -> None:
    chunk = ChunkConfig(4, -1)
    [features] = make_features([173])
    recognizer = make_recognizer(any_model, chunk, num_streams=2)
    recognizer.open()
    stream = recognizer.open()
    stream.accept_features(features)
    for _ in range(5):
        recognizer.step()
    first = stream.hypothesis
    recognizer.restart(stream)
    recognizer.restart(stream)  # which changes nothing
    stream.finish()
    while recognizer.step():
        pass
    assert (first.num_frames, len(first.tokens) > 0) == (20, True)
    # With the last chunk, of 16 features, once more.
    assert_same(stream.hypothesis, simulate(any_model, features[64:], chunk))


@pytest.mark.parametrize("block", [1, 777, 5000, 100_000])
def test_audio_in_blocks_equals_the_whole_recording(stateless_model: Transducer, block: int) -> None:
    """L4 and L6 together: samples in blocks of any size give the tokens of features of the whole recording."""
    extractor = FbankExtractor(FbankOptions(num_mel_bins=16))
    samples = torch.randn(4000 if block == 1 else 41_234, generator=torch.Generator().manual_seed(2)) * 0.1
    chunk = ChunkConfig(8, 2)
    expected = simulate(stateless_model, extractor.extract(samples), chunk)
    assert len(expected.tokens) > 1
    recognizer = make_recognizer(stateless_model, chunk)
    recognizer.extractor = extractor
    for length in (0, 50, 500):  # none at all, and too little for a frame of features or of the encoder
        stream = recognizer.open()
        stream.accept_samples(samples[:length])
        stream.finish()
        assert recognizer.done(stream)
        recognizer.close(stream)
    stream = recognizer.open()
    for part in samples.split(block):
        stream.accept_samples(part if block % 2 else part.numpy())
        recognizer.step()
    stream.finish()
    while not recognizer.done(stream):
        recognizer.step()
    assert_same(stream.hypothesis, expected)


def test_features_of_all_streams_are_computed_together(stateless_model: Transducer) -> None:
    """One call a step, with the same tokens as for each stream alone."""
    extractor = FbankExtractor(FbankOptions(num_mel_bins=16))
    chunk = ChunkConfig(8, 2)
    generator = torch.Generator().manual_seed(3)
    recordings = [0.1 * torch.randn(n, generator=generator) for n in (41_234, 20_000, 33_333, 900)]
    recognizer = make_recognizer(stateless_model, chunk, num_streams=len(recordings))
    recognizer.extractor = extractor
    calls: list[int] = []
    compute = extractor._windows_to_fbank
    extractor._windows_to_fbank = lambda samples: calls.append(len(samples)) or compute(samples)
    streams = [recognizer.open() for _ in recordings]
    for begin in range(0, 41_234, 5000):
        for stream, samples in zip(streams, recordings, strict=True):
            stream.accept_samples(samples[begin : begin + 5000])
        assert calls == []  # nothing is computed before the step
        decoded = recognizer.step()
        assert len(calls) == (1 if decoded else 0)
        calls.clear()
    for stream in streams:
        stream.finish()
    while recognizer.step():
        pass
    for stream, samples in zip(streams, recordings, strict=True):
        assert recognizer.done(stream)
        assert_same(stream.hypothesis, simulate(stateless_model, extractor.extract(samples), chunk))


def test_results_arrive_while_the_input_does(stateless_model: Transducer) -> None:
    [features] = make_features([400])
    chunk = ChunkConfig(8, 2)
    recognizer = make_recognizer(stateless_model, chunk)
    stream = recognizer.open()
    seen: list[int] = []
    for block in features.split(20):
        stream.accept_features(block)
        while recognizer.step():
            tokens = list(stream.hypothesis.tokens)
            assert tokens[: len(seen)] == seen  # what has been said is never taken back
            seen = tokens
        assert stream.queue.num_frames < features_needed(8)  # only what is still needed is kept
        assert not recognizer.done(stream)
    stream.finish()
    recognizer.step()
    assert recognizer.done(stream)
    hypothesis = stream.hypothesis
    assert len(hypothesis.tokens) > len(seen) > 0
    assert len(hypothesis.log_probs) == len(hypothesis.frames) == len(hypothesis.tokens)


def test_a_long_stream_keeps_little(stateless_model: Transducer) -> None:
    """Ten minutes in one stream: what is kept does not grow, and the last frame has its time."""
    recognizer = make_recognizer(stateless_model, ChunkConfig(64, -1))
    recognizer.search.record_margins = False
    stream = recognizer.open()
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        stream.accept_features(torch.randn(1000, 16, generator=generator))
        while recognizer.step():
            pass
        kept = sum(block.untyped_storage().nbytes() for block in stream.queue._blocks)
        assert kept <= 4 * 16 * (1000 + features_needed(64))
    stream.finish()
    recognizer.step()
    assert recognizer.done(stream)
    assert stream.hypothesis.num_frames == output_lengths(60_000)
    assert 595 < 0.04 * stream.hypothesis.frames[-1] < 600  # seconds


def test_misuse_is_named(stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match="streaming needs a chunk size: give --chunk-ms"):
        make_recognizer(stateless_model, ChunkConfig())
    with pytest.raises(ValueError, match="number of streams must be 1 or more"):
        make_recognizer(stateless_model, ChunkConfig(8), num_streams=0)
    recognizer = make_recognizer(stateless_model, ChunkConfig(8))
    stream = recognizer.open()
    with pytest.raises(RuntimeError, match="all 1 streams are in use"):
        recognizer.open()
    with pytest.raises(RuntimeError, match="all 1 streams are in use"):
        next(recognizer.decode_all([("a", torch.zeros(10, 16))]))
    with pytest.raises(ValueError, match=r"expected features \(frames, 16\), got \(5, 80\)"):
        stream.accept_features(torch.zeros(5, 80))
    with pytest.raises(RuntimeError, match="features only"):
        stream.accept_samples(torch.zeros(100))
    stream.finish()
    with pytest.raises(RuntimeError, match="has been finished"):
        stream.accept_features(torch.zeros(5, 16))
    recognizer.close(stream)
    with pytest.raises(RuntimeError, match="has been closed"):
        recognizer.close(stream)


@given(st.lists(st.integers(0, 30), max_size=10), st.integers(1, 20), st.integers(0, 20))
def test_queue_hands_out_overlapping_chunks(sizes: list[int], advance: int, overlap: int) -> None:
    frames = torch.arange(sum(sizes))[:, None]
    queue = FeatureQueue()
    for block in frames.split(sizes):
        queue.append(block)
    begin = 0
    while queue.num_frames:
        assert queue.num_frames == len(frames) - begin
        expected = frames[begin : begin + advance + overlap]
        assert torch.equal(queue.take(advance + overlap, advance), expected)
        begin += advance
