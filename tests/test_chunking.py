import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import visibility

from summarymix.blocks.seen_chunks import sum_seen
from summarymix.chunking import ChunkConfig, ChunkGrid, DynamicChunkConfig, default_chunk


def test_milliseconds_must_be_whole_frames():
    assert ChunkConfig.from_ms(640, 4) == ChunkConfig(16, 4)
    assert ChunkConfig.from_ms(None) == ChunkConfig(None, -1)
    assert ChunkConfig(8).chunk_ms == 320
    assert ChunkConfig().chunk_ms is None
    assert ChunkConfig.from_ms(480, 4, 160) == ChunkConfig(12, 4, 4)
    assert str(ChunkConfig(12, 4, 4)) == "chunk 480 ms, left context 4 chunks, look-ahead 160 ms"
    with pytest.raises(ValueError, match=r"--lookahead-ms 100 .* frame of 40 ms; nearest: 80 or 120"):
        ChunkConfig.from_ms(480, 4, 100)
    with pytest.raises(ValueError, match="a look-ahead of -1 frames is impossible"):
        ChunkConfig(8, 0, -1)
    with pytest.raises(ValueError, match=r"--chunk-ms 650 .* 40 ms; nearest: 640 or 680"):
        ChunkConfig.from_ms(650)
    with pytest.raises(ValueError, match=r"nearest: 40$"):
        ChunkConfig.from_ms(0)
    with pytest.raises(ValueError, match="at least one frame"):
        ChunkConfig(0)
    with pytest.raises(ValueError, match="-1 \\(unlimited\\)"):
        ChunkConfig(8, -2)


def test_the_training_law_has_its_shares():
    sampler = DynamicChunkConfig()
    rng = random.Random(0)
    drawn = [sampler.sample(rng) for _ in range(20_000)]
    chunked = [c for c in drawn if c.chunk_size is not None]
    limited = [c for c in chunked if c.left_chunks >= 0]
    assert 1 - len(chunked) / len(drawn) == pytest.approx(0.4, abs=0.02)
    assert len(limited) / len(chunked) == pytest.approx(0.75, abs=0.02)
    assert {c.chunk_size for c in chunked} == set(range(8, 33))
    assert {c.left_chunks for c in limited} == set(range(2, 33))
    assert [sampler.sample(random.Random(5)) for _ in range(3)] == [sampler.sample(random.Random(5)) for _ in range(3)]


@pytest.mark.parametrize("full", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("limited", [0.5, 1.0])
@pytest.mark.parametrize("ahead", [0.0, 1.0])
def test_extremes_bound_what_is_drawn(full: float, limited: float, ahead: float) -> None:
    def padded(chunk: ChunkConfig) -> int:
        size = chunk.chunk_size or 1
        return -(-num_frames // size) * (size + chunk.lookahead)

    sampler = DynamicChunkConfig(full, 7, 13, limited, 1, 4, ahead)
    rng = random.Random(0)
    drawn = {sampler.sample(rng, 2) for _ in range(5000)}
    assert set(sampler.sizes(2)) == {c.chunk_size for c in drawn if c.chunk_size}
    for num_frames in (1, 11, 15, 31, 100):
        extremes = sampler.extremes(num_frames, 2)
        assert max(map(padded, extremes)) == max(map(padded, drawn))
        assert {ChunkConfig()} & drawn == {ChunkConfig()} & {*extremes}
        assert {c.chunk_size for c in extremes} <= {c.chunk_size for c in drawn}
        assert (8 in {c.chunk_size for c in extremes}) == (full < 1)
        assert {c.left_chunks for c in extremes if c.chunk_size} <= {4 if limited == 1 else -1}


def test_full_context_alone_needs_no_chunk_size() -> None:
    sampler = DynamicChunkConfig(full_context_prob=1.0, min_chunk=1, max_chunk=2)
    sampler.check(4)
    assert (list(sampler.sizes(4)), sampler.extremes(10, 4)) == ([], [ChunkConfig()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_left": 40}, r"--chunk\.min_left 40 must be from 0 to --chunk\.max_left, which is 32"),
        ({"min_left": -1}, r"--chunk\.min_left -1 must be from 0"),
        ({"min_chunk": 0}, r"--chunk\.min_chunk 0 must be from 1 to --chunk\.max_chunk, which is 32"),
        ({"max_chunk": 4}, r"--chunk\.min_chunk 8 must be from 1 to --chunk\.max_chunk, which is 4"),
        ({"full_context_prob": 1.5}, r"--chunk\.full_context_prob 1\.5 .* from 0 to 1"),
        ({"limited_left_prob": -0.1}, r"--chunk\.limited_left_prob -0\.1 "),
        ({"lookahead_prob": float("nan")}, r"--chunk\.lookahead_prob nan "),
    ],
)
def test_impossible_distributions_are_refused(options: dict[str, float], message: str) -> None:
    """They would end the training at the first batch that draws them."""
    with pytest.raises(ValueError, match=message):
        DynamicChunkConfig(**options).check(1)
    DynamicChunkConfig(min_left=0, max_left=0, lookahead_prob=1.0).check(1)


@given(
    st.lists(st.integers(0, 23), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(1, 9)),
    st.integers(-1, 5),
    st.integers(0, 5),
)
def test_counts_are_the_rows_of_the_visibility(lengths, chunk_size, left_chunks, more):
    chunk = ChunkConfig(chunk_size, left_chunks)
    grid = ChunkGrid(torch.tensor(lengths), max(lengths) + more, chunk)
    assert grid.num_frames >= max(lengths) + more
    assert grid.num_frames % grid.chunk_size == 0
    expected = visibility(lengths, grid.num_frames, ChunkConfig(grid.chunk_size, left_chunks))  # (N, T, T)
    for past in (torch.zeros(len(lengths), 0, 1), torch.zeros(len(lengths), max(left_chunks, 0), 1)):
        counts, kept = sum_seen(past, grid.counts, left_chunks)  # (N, K, 1)
        if left_chunks >= 0:
            frames = counts.expand(-1, -1, grid.chunk_size).flatten(1)  # (N, T)
            assert torch.equal(frames, expected.sum(-1).float())
            assert kept.size(1) == min(left_chunks, past.size(1) + grid.num_chunks)
        hidden = grid.attention_mask(0) | ~grid.valid[:, None]
        assert torch.equal(hidden, ~expected)
    if left_chunks < 0:
        counts, total = sum_seen(torch.zeros(len(lengths), 1), grid.counts, -1)
        assert torch.equal(counts.expand(-1, -1, grid.chunk_size).flatten(1), expected.sum(-1).float())
        assert torch.equal(total[:, 0], torch.tensor(lengths).float())
    assert torch.equal(grid.valid.sum(1), torch.tensor(lengths))
    assert grid.all_valid == all(length == grid.num_frames for length in lengths)


@pytest.mark.parametrize("multiple", [1, 4])
def test_lookahead_is_drawn_up_to_the_chunk_and_changes_nothing_else(multiple):
    plain, ahead = DynamicChunkConfig(), DynamicChunkConfig(lookahead_prob=0.5)
    drawn = [ahead.sample(random.Random(i), multiple) for i in range(2000)]
    for i, config in enumerate(drawn):
        assert replace(config, lookahead=0) == plain.sample(random.Random(i), multiple)
        assert config.lookahead % multiple == 0
        assert config.lookahead <= (config.chunk_size or 0)
    chunks = [config for config in drawn if config.chunk_size]
    assert sum(config.lookahead > 0 for config in chunks) / len(chunks) == pytest.approx(0.5, abs=0.05)
    assert {config.lookahead for config in chunks} >= {0, multiple, 32}


def test_the_default_of_several_settings_is_near_640_ms_without_lookahead() -> None:
    assert default_chunk([ChunkConfig(16, 2, 4), ChunkConfig(16, 2), ChunkConfig(8, 2)]) == ChunkConfig(16, 2)
