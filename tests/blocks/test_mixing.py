"""L0: SummaryMixing against the definition with T×T masks; L2: what depends on what; chunk by chunk against whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import decay_weights, dependencies, masked_mean, visibility
from small_blocks import block_sizes, blocks_of

from summarymix.blocks.attention import RelativeAttention
from summarymix.blocks.make_mixer import MixerConfig, make_mixer
from summarymix.blocks.mixing import GroupedLinear, MixingOptions, SummaryMixing, push, sum_chunks
from summarymix.chunking import ChunkConfig, ChunkGrid

DIM, SUMMARY = 6, 8
MODES = ["merged", "full", "lite", "local"]


def make(mode: str, **options) -> SummaryMixing | RelativeAttention:
    torch.manual_seed(1)
    if mode == "attention":
        return RelativeAttention(DIM, 3, 0.0).double()
    width = DIM if mode == "lite" else SUMMARY
    mixing = SummaryMixing(DIM, width, mode, groups=2, options=MixingOptions(**options)).double()
    if mixing.summary_norm:
        torch.nn.init.normal_(mixing.summary_norm.weight)
        torch.nn.init.normal_(mixing.summary_norm.bias)
    return mixing


def by_definition(mixing: SummaryMixing, x, lengths, chunk: ChunkConfig, frame_ms=40, **options):
    """h_t = c([f(x_t); s̄_t]) with the concatenation and the frame-by-frame mean that the module avoids."""
    options = MixingOptions(**options)
    activation = F.gelu if options.combiner_activation == "gelu" else lambda h: h
    if mixing.mode == "merged":
        f, s, *gate = mixing.merged(x).split(SUMMARY, dim=-1)
        f, s = F.gelu(f), F.gelu(s)
    else:
        f, s = mixing.local and mixing.local(x), mixing.summary and mixing.summary(x)
    if mixing.mode == "local":
        return activation(mixing.combine(f))
    weights = 1.0
    if options.decay_seconds is not None:
        weights = decay_weights(x.size(1), chunk.chunk_size, frame_ms, options.decay_seconds)
    mean = masked_mean(s, visibility(lengths, x.size(1), chunk), weights)
    if options.summary_norm:
        mean = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        mean = mean * mixing.summary_norm.weight + mixing.summary_norm.bias
    if mixing.mode == "lite":
        return mean
    fused = f + gate[0].sigmoid() * mean if options.fusion == "gated" else torch.cat([f, mean], dim=-1)
    return activation(mixing.combine(fused))


@st.composite
def kinds(draw, modes=tuple(MODES)):
    """A mode, and options that it has."""
    mode, options = draw(st.sampled_from(modes)), {}
    if mode in ("merged", "full", "lite"):
        options["summary_norm"] = draw(st.booleans())
        options["decay_seconds"] = draw(st.sampled_from([None, 0.01, 0.3, 1000.0]))
    if mode in ("merged", "full", "local"):
        options["combiner_activation"] = draw(st.sampled_from(["gelu", "none"]))
    if mode == "merged":
        options["fusion"] = draw(st.sampled_from(["concat", "gated"]))
    return mode, options


chunks = st.builds(ChunkConfig, st.one_of(st.none(), st.integers(1, 9)), st.integers(-1, 5))
durations = st.sampled_from([40, 20, 160])


@given(kinds(), st.lists(st.integers(1, 23), min_size=1, max_size=4), chunks, durations, block_sizes)
def test_equals_the_definition_for_any_grid_and_any_batch(kind, lengths, chunk, frame_ms, block):
    mode, options = kind
    mixing = make(mode, **options)
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), chunk, frame_ms=frame_ms)
    x = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    with blocks_of(block):
        got = mixing(x, grid, torch.tanh, lambda x, mixed: x.sin() - mixed)
    chunk = ChunkConfig(grid.chunk_size, chunk.left_chunks)
    expected = x.sin() - by_definition(mixing, x.tanh(), lengths, chunk, frame_ms, **options)
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@given(kinds([*MODES, "attention"]), st.integers(1, 23), st.integers(1, 9), st.integers(-1, 5), durations)
def test_chunk_by_chunk_equals_the_whole(kind, length, chunk_size, left_chunks, frame_ms):
    mode, options = kind
    assume(mode != "attention" or left_chunks >= 0)
    mixing = make(mode, **options)
    chunk = ChunkConfig(chunk_size, left_chunks)
    x = torch.randn(2, length, DIM, dtype=torch.float64)
    grid = ChunkGrid(torch.tensor([length, length]), length, chunk, frame_ms=frame_ms)
    whole = mixing(grid.pad(x), grid)[:, :length]
    state, out = mixing.init_state(2, chunk), []
    for start in range(0, length, chunk_size):
        part = x[:, start : start + chunk_size]
        valid = part.size(1)
        part = F.pad(part, (0, 0, 0, chunk_size - valid), value=7.0)  # what stands behind the end must not matter
        part_grid = ChunkGrid(torch.tensor([valid, valid]), chunk_size, ChunkConfig(), frame_ms=frame_ms)
        y, new_state = mixing.step(part, part_grid, state)
        assert {k: v.shape for k, v in new_state.items()} == {k: v.shape for k, v in state.items()}
        state = new_state
        out.append(y[:, :valid])
    torch.testing.assert_close(torch.cat(out, dim=1), whole, rtol=0, atol=1e-9)


def test_decay_goes_by_the_time_that_passed_when_the_chunk_size_changes():
    """Chunks of 4, 4, 2 and 3 frames, with unlimited context and with two chunks of it, against weights written down by
    hand: a chunk decays by the duration of each later chunk and of the current one."""
    sizes, tau = [4, 4, 2, 3], 0.4
    mixing = make("merged", decay_seconds=tau)
    x = torch.randn(1, sum(sizes), DIM, dtype=torch.float64)
    values = mixing.branches(x)[1][0]
    for left in (-1, 2):
        state = mixing.init_state(1, ChunkConfig(4, left))
        for part in x.split(sizes, dim=1):
            grid = ChunkGrid(torch.tensor([part.size(1)]), part.size(1), ChunkConfig())
            _, new_state = mixing.step(part, grid, state)
            total, _ = push(state["sum"], sum_chunks(mixing.branches, part, grid)[1], mixing.mean.decay(grid))
            state = new_state
        ends = torch.tensor(sizes).cumsum(0).tolist()  # 4, 8, 10, 13
        expected = sum(
            math.exp(-(13 - end) * 0.04 / tau) * values[end - size : end].sum(0)
            for i, (end, size) in enumerate(zip(ends, sizes, strict=True))
            if left < 0 or i >= 3 - left
        )
        torch.testing.assert_close(total[0, 0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "mode", [*MODES, "attention", {"fusion": "gated"}, {"decay_seconds": 2.0}, {"summary_norm": True}], ids=str
)
@pytest.mark.parametrize("left_chunks", [-1, 0, 1, 2])
def test_dependency_matrix_is_the_visibility(mode, left_chunks):
    mixing = make(mode) if isinstance(mode, str) else make("merged", **mode)
    chunk = ChunkConfig(3, left_chunks)
    grid = ChunkGrid(torch.tensor([10]), 12, chunk)
    expected = visibility([10], 12, chunk)[0] if mode != "local" else torch.zeros(12, 12, dtype=torch.bool)
    if mode not in ("lite", "attention"):  # each frame depends on itself through f, a padded one too
        expected |= torch.eye(12, dtype=torch.bool)
    assert torch.equal(dependencies(lambda x: mixing(x, grid), torch.randn(1, 12, DIM, dtype=torch.float64)), expected)


@pytest.mark.parametrize(
    "options", [{}, {"fusion": "gated", "summary_norm": True, "decay_seconds": 0.5, "combiner_activation": "none"}]
)
def test_gradients_flow_to_every_parameter_and_match_the_definition(options):
    mixing = make("merged", **options)
    chunk = ChunkConfig(4, 1)
    grid = ChunkGrid(torch.tensor([10, 5]), 12, chunk)
    x = torch.randn(2, 12, DIM, dtype=torch.float64)
    parameters = list(mixing.parameters())
    got = torch.autograd.grad((mixing(x, grid) * grid.valid[..., None]).square().sum(), parameters)
    expected = torch.autograd.grad(
        (by_definition(mixing, x, [10, 5], chunk, **options) * grid.valid[..., None]).square().sum(), parameters
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_the_mean_is_taken_in_float32_under_autocast(fusion):
    """In bfloat16 a running count stops at 256, and sums of thousands of frames lose their digits."""
    mixing = SummaryMixing(DIM, SUMMARY, "merged", options=MixingOptions(fusion=fusion, summary_norm=True))
    mixing.summary_norm.register_forward_hook(lambda module, inputs, out: normed.append(out))
    normed = []
    x = torch.randn(1, 5000, DIM)
    grid = ChunkGrid(torch.tensor([5000]), 5000, ChunkConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = mixing.branches(x)[1]
        got = mixing.step(x, grid, mixing.init_state(1, ChunkConfig()))[1]
    assert values.dtype == torch.bfloat16
    assert [out.dtype for out in normed] == [torch.float32]
    assert got["sum"].dtype == got["count"].dtype == torch.float32
    torch.testing.assert_close(got["sum"], values.double().sum(1).float(), rtol=1e-5, atol=1e-3)
    assert got["count"].item() == 5000


def test_grouped_linear_is_block_diagonal():
    linear = GroupedLinear(6, 4, 2)
    dense = torch.block_diag(*linear.weight)  # (6, 4)
    x = torch.randn(5, 6)
    torch.testing.assert_close(linear(x), x @ dense + linear.bias)
    with pytest.raises(ValueError, match="4 groups"):
        GroupedLinear(6, 8, 4)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="unknown mixing mode 'mean'"):
        SummaryMixing(4, 4, "mean")
    with pytest.raises(ValueError, match="summary_dim 8 must be dim 6"):
        SummaryMixing(6, 8, "lite")


@pytest.mark.parametrize(
    ("mixing", "options", "message"),
    [
        ("attention", {"summary_norm": True}, "summary_norm True is for mixing merged, full, lite, not for attention"),
        ("attention", {"combiner_activation": "none"}, "combiner_activation none is for"),
        ("attention", {"fusion": "gated"}, "fusion gated is for mixing merged, not for attention"),
        ("attention", {"decay_seconds": 2.0}, "decay_seconds 2.0 is for"),
        ("full", {"fusion": "gated"}, "fusion gated is for mixing merged, not for full"),
        ("lite", {"combiner_activation": "none"}, "not for lite"),
        ("local", {"decay_seconds": 2.0}, "not for local"),
        ("local", {"summary_norm": True}, "not for local"),
        ("merged", {"decay_seconds": 0.0}, "decay_seconds 0.0 must be above 0"),
    ],
)
def test_options_that_a_mixing_does_not_have_are_refused(mixing, options, message):
    make_mixer(MixerConfig(mixing=mixing), 8, 8, 2, 0.0)
    with pytest.raises(ValueError, match=message):
        make_mixer(MixerConfig(mixing=mixing, **options), 8, 8, 2, 0.0)
