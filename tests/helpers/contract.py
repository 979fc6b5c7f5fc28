"""Check of the contract of all blocks with context (DESIGN: one forward).

Whole utterances, single chunks and several chunks at a time give the same output; slots can be reset and used again.
"""

from collections.abc import Sequence
from itertools import chain, repeat

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import flatten, nest, reset_slots


def whole(block: nn.Module, x: Tensor, grid: ChunkGrid) -> Tensor:
    """Output for whole utterances x (N, T, D) on their grid, from a state without left context."""
    chunk = ChunkConfig(grid.own_size, min(grid.config.left_chunks, 0))
    return block(x, grid, block.init_state(len(x), chunk))[0]


def in_runs(
    block: nn.Module, x: Tensor, lengths: Tensor, chunk: ChunkConfig, sizes: Sequence[int], frame_ms: int = 40
) -> Tensor:
    """Output for streams x (N, T, D) in runs of ``sizes`` chunks; the last size repeats."""
    state = block.init_state(len(x), chunk)
    return _play(block, x, lengths, chunk, sizes, state, frame_ms)


def _play(block, x, lengths, chunk, sizes, state, frame_ms):
    out, start = [], 0
    for size in chain(sizes, repeat(sizes[-1])):
        if start >= x.size(1):
            return torch.cat(out, dim=1)[:, : x.size(1)]
        num_frames = min(size * chunk.chunk_size, x.size(1) - start)
        part = x[:, start : start + num_frames + chunk.lookahead]
        valid = (lengths - start).clamp(0, part.size(1))
        # As in an encoder's step, the state alone limits the left context.
        config = ChunkConfig(chunk.chunk_size, min(chunk.left_chunks, 0), chunk.lookahead)
        grid = ChunkGrid(valid, num_frames, config, frame_ms=frame_ms)
        part = grid.spread(part).masked_fill(~grid.valid[..., None], 7.0)  # frames after the end must not matter
        y, following = block(part, grid, state)
        shapes, old = ({k: v.shape for k, v in flatten(s).items()} for s in (following, state))
        assert chunk.left_chunks < 0 or shapes == old
        state = following
        out.append(grid.own(y))
        start += size * chunk.chunk_size
    raise AssertionError


def check_contract(
    block: nn.Module, width: int, lengths: Sequence[int], chunk: ChunkConfig, frame_ms: int = 40
) -> None:
    """Assert that ``block``, a float64 module, keeps the contract.

    Args:
        block: block with input (N, T, ``width``).
        width: input features.
        lengths: lengths of the utterances in a batch, in frames.
        chunk: chunk configuration with a chunk size.
        frame_ms: duration of a frame.
    """
    x = torch.randn(len(lengths), max(*lengths, 1), width, dtype=torch.float64)
    frames = torch.tensor(lengths)
    grid = ChunkGrid(frames, x.size(1), chunk, frame_ms=frame_ms)
    expected = grid.own(whole(block, grid.spread(x), grid))[:, : x.size(1)]
    valid = grid.own(grid.valid)[:, : x.size(1)]
    for sizes in ([1], [3], [2, 1, 4]):
        got = in_runs(block, x, frames, chunk, sizes, frame_ms)
        torch.testing.assert_close(got[valid], expected[valid], rtol=0, atol=1e-9)

    # A slot used by another stream before.
    config = ChunkConfig(chunk.chunk_size, min(chunk.left_chunks, 0))
    noise = torch.randn(len(lengths), 2 * chunk.chunk_size, width, dtype=torch.float64)
    full = ChunkGrid(torch.full((len(lengths),), noise.size(1)), noise.size(1), config, frame_ms=frame_ms)
    state = flatten(block(noise, full, block.init_state(len(lengths), chunk))[1])
    reset_slots(state, torch.tensor([0]))
    got = _play(block, x, frames, chunk, [1], nest(state), frame_ms)
    torch.testing.assert_close(got[0][valid[0]], expected[0][valid[0]], rtol=0, atol=1e-9)
