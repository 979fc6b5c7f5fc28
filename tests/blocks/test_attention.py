"""L0: attention against its definition, pair by pair; what must not be seen; the streaming state."""

import math

import pytest
import torch
from contract import whole
from hypothesis import given
from hypothesis import strategies as st
from reference import chunk_configs, places, visibility

from summarymix.blocks import attention
from summarymix.blocks.attention import RelativeAttention, by_frame, remember_frames, sinusoids
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import state_bytes

DIM = 12


def make(num_heads: int = 2, dropout: float = 0.0) -> RelativeAttention:
    torch.manual_seed(1)
    return RelativeAttention(DIM, num_heads, dropout).double()


def sinusoid(distance: int):
    angles = [distance / 10000 ** (2 * i / DIM) for i in range(DIM // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)


def by_definition(module: RelativeAttention, x, sees, chunk=None):
    """Head by head, frame by frame, one pair of frames at a time; zero where a frame sees nothing."""
    times = [time for _, time, _ in places(x.size(1), chunk or ChunkConfig())]
    query, key = module.weights.projection(x).split(DIM, dim=-1)
    value = module.values.projection(x)
    content_bias, position_bias = module.weights.content_bias, module.weights.position_bias
    num_heads, width = content_bias.shape
    weight = module.weights.position_projection.weight
    mixed = torch.zeros_like(x)
    for n, t in sees.any(-1).nonzero().tolist():
        seen = sees[n, t].nonzero().flatten().tolist()
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = [
                (query[n, t, part] + content_bias[head]) @ key[n, u, part]
                + (query[n, t, part] + position_bias[head]) @ (weight @ sinusoid(times[t] - times[u]))[part]
                for u in seen
            ]
            weights = (torch.stack(scores) / width**0.5).softmax(0)
            mixed[n, t, part] = sum(w * value[n, u, part] for w, u in zip(weights, seen, strict=True))
    return module.values.out(mixed)


@pytest.mark.parametrize("left_chunks", [-1, 0, 1, 2, 3, 40])
def test_look_ahead_takes_no_memory_for_chunks_that_do_not_exist(left_chunks: int) -> None:
    """Three chunks of four frames with two ahead: the last one sees two others at most."""
    grid = ChunkGrid(torch.tensor([12]), 12, ChunkConfig(4, left_chunks, 2))
    frames, _ = remember_frames(grid, torch.zeros(1, 0, 4, 1), torch.randn(1, 18, 1))
    seen = 2 if left_chunks < 0 else min(left_chunks, 2)
    assert frames.shape == (3, 4 * seen + 6, 1)


chunks = st.one_of(st.builds(ChunkConfig, st.none(), st.integers(-1, 4)), chunk_configs(6, 4))


@torch.no_grad()
@given(st.sampled_from([1, 2, 3, 6]), st.lists(st.integers(0, 11), min_size=1, max_size=3), chunks)
def test_equals_the_definition_for_any_grid_and_any_batch(num_heads, lengths, chunk):
    module = make(num_heads)
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), chunk)
    x = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    chunk = ChunkConfig(grid.own_size, chunk.left_chunks, chunk.lookahead)
    expected = by_definition(module, x, visibility(lengths, grid.num_frames, chunk), chunk)
    got = whole(module, x, grid)
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)
    assert got.isfinite().all()


@torch.no_grad()
def test_float32_is_close_to_the_definition():
    module = make()
    x = torch.randn(1, 67, DIM)
    chunk = ChunkConfig(8, 3)
    grid = ChunkGrid(torch.tensor([67]), 67, chunk)
    expected = by_definition(module, x.double(), visibility([67], 67, chunk))
    torch.testing.assert_close(
        whole(module.float(), grid.spread(x), grid)[:, :67].double(), expected, rtol=0, atol=1e-4
    )


@given(st.integers(1, 7), st.integers(0, 9), st.integers(1, 8))
def test_by_frame_is_the_column_of_the_distance(num_queries, num_before, chunk_size):
    """Only up to the last column: what lies beyond it is later than the chunk."""
    num_keys = num_before + num_queries
    by_distance = torch.randn(2, 3, num_queries, num_keys + chunk_size, dtype=torch.float64, requires_grad=True)
    got = by_frame(by_distance, num_keys)
    expected = got.detach().clone()
    coefficients = torch.randn_like(expected)
    gradient = torch.zeros_like(by_distance)
    for q in range(num_queries):
        for u in range(num_keys):
            distance = num_before + q - u
            column = num_keys - distance
            if column < num_keys + chunk_size:
                expected[:, :, q, u] = by_distance[:, :, q, column]
                gradient[:, :, q, column] = coefficients[:, :, q, u]
            else:
                coefficients[:, :, q, u] = 0
    assert torch.equal(got, expected)
    (got * coefficients).sum().backward()
    assert torch.equal(by_distance.grad, gradient)


def test_sinusoids_keep_their_digits_far_away_and_in_half_precision():
    """In bfloat16, 1001 is 1000."""
    distances = torch.arange(5000, -5000, -1)
    exact = torch.stack([sinusoid(distance) for distance in distances.tolist()])
    torch.testing.assert_close(sinusoids(distances, DIM, torch.float64), exact, rtol=0, atol=1e-9)
    torch.testing.assert_close(sinusoids(distances, DIM, torch.float32).double(), exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(sinusoids(distances, DIM, torch.bfloat16).double(), exact, rtol=0, atol=5e-3)


def test_layers_share_the_sinusoids_of_a_grid(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return sinusoids(*arguments)

    monkeypatch.setattr(attention, "sinusoids", counted)
    module = make()
    grid = ChunkGrid(torch.tensor([7]), 7, ChunkConfig(2))
    x = torch.randn(1, 8, DIM, dtype=torch.float64)
    whole(module, whole(module, x, grid), grid)
    assert len(calls) == 1
    whole(module, torch.randn(1, 6, DIM, dtype=torch.float64), ChunkGrid(torch.tensor([6]), 6, ChunkConfig(2)))
    assert len(calls) == 2


@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(3, 1)])
def test_gradients_are_right(chunk):
    """By finite differences, in every parameter and the input; the second utterance is empty."""
    module = make()
    grid = ChunkGrid(torch.tensor([7, 0]), 7, chunk)
    x = torch.randn(2, grid.num_frames, DIM, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def function(x, *values):
        arguments = x, grid, module.init_state(2, ChunkConfig(grid.chunk_size, min(chunk.left_chunks, 0)))
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), arguments)[0][0, :7]

    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(2, 0), ChunkConfig(2)])
def test_what_is_not_finite_in_the_padding_is_not_seen(chunk):
    """The last frames of the second utterance and all of the third see nothing; neither they nor NaN spread NaN."""
    module = make()
    grid = ChunkGrid(torch.tensor([8, 3, 0]), 8, chunk)
    clean = torch.randn(3, 8, DIM, dtype=torch.float64) * grid.valid[..., None]
    x = clean.masked_fill(~grid.valid[..., None], math.nan).requires_grad_()
    out = whole(module, x, grid)
    assert out.isfinite().all()
    torch.testing.assert_close(out[grid.valid], whole(module, clean, grid)[grid.valid], rtol=0, atol=1e-12)
    out.sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad.isfinite().all()
    assert not x.grad[~grid.valid].any()


def test_dropout_is_for_training_only():
    module = make(dropout=0.5)
    grid = ChunkGrid(torch.tensor([8]), 8, ChunkConfig())
    x = torch.randn(1, 8, DIM, dtype=torch.float64)
    assert not torch.equal(whole(module, x, grid), whole(module, x, grid))
    module.eval()
    torch.testing.assert_close(whole(module, x, grid), whole(make(), x, grid))


def test_state_is_the_left_context():
    module = make()
    state = module.float().init_state(3, ChunkConfig(4, 2))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "key": (3, 2, 4, DIM),
        "value": (3, 2, 4, DIM),
        "valid": (3, 2, 4, 1),
    }
    assert not any(tensor.any() for tensor in state.values())
    assert state_bytes(state) == 4 * 2 * 4 * (2 * DIM + 1)
    assert state_bytes(module.init_state(1, ChunkConfig(4, 0))) == 0
    assert module.bfloat16().init_state(1, ChunkConfig(4, 2))["key"].dtype == torch.float32


def test_padding_in_the_middle_of_a_stream_is_not_seen_later():
    """What stood behind the end of a partial chunk, or in a chunk without a valid frame, does not matter."""
    module = make()
    x = torch.randn(2, 3, 4, DIM, dtype=torch.float64)
    lengths = [torch.tensor([4, 1]), torch.tensor([2, 0]), torch.tensor([4, 4])]
    outputs = []
    for noise in (0.0, 100.0):
        state = module.init_state(2, ChunkConfig(4, 2))
        for i, valid in enumerate(lengths):
            grid = ChunkGrid(valid, 4, ChunkConfig(4, 0))
            out, state = module(x[:, i] + noise * ~grid.valid[..., None], grid, state)
        outputs.append(out)
        assert state["valid"].sum((1, 2, 3)).tolist() == [6, 4]
    assert torch.equal(*outputs)


def test_the_chunk_size_of_a_stream_cannot_change():
    module = make()
    with pytest.raises(ValueError, match="cannot stream without a chunk size"):
        module.init_state(1, ChunkConfig(None, 2))
    state = module.init_state(1, ChunkConfig(4, 0))
    x = torch.randn(1, 5, DIM, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"began with chunks of 4 frames, .* start a new state for chunks of 5 frames"):
        module(x, ChunkGrid(torch.tensor([5]), 5, ChunkConfig(5, 0)), state)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim 12 cannot have 5 heads"):
        RelativeAttention(12, 5, 0.0)
    with pytest.raises(ValueError, match="even dim"):
        RelativeAttention(9, 3, 0.0)
