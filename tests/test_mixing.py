"""L0: SummaryMixing against the definition with T×T masks; L2: what depends on what; chunk by chunk against whole."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import dependencies, masked_mean, visibility

from summarymix.attention import RelativeAttention
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.mixing import GroupedLinear, SummaryMixing

DIM, SUMMARY = 6, 8
MODES = ["merged", "full", "lite", "local"]


def make(mode: str) -> SummaryMixing | RelativeAttention:
    torch.manual_seed(1)
    if mode == "attention":
        return RelativeAttention(DIM, 3, 0.0).double()
    return SummaryMixing(DIM, DIM if mode == "lite" else SUMMARY, mode, groups=2).double()


def by_definition(mixing: SummaryMixing, x, lengths, chunk: ChunkConfig):
    """h_t = c([f(x_t); s̄_t]) with the concatenation and the frame-by-frame mean that the module avoids."""
    if mixing.mode == "merged":
        f, s = F.gelu(mixing.merged(x)).split(SUMMARY, dim=-1)
    else:
        f, s = mixing.local and mixing.local(x), mixing.summary and mixing.summary(x)
    if mixing.mode == "local":
        return F.gelu(mixing.combine(f))
    mean = masked_mean(s, visibility(lengths, x.size(1), chunk))
    return mean if mixing.mode == "lite" else F.gelu(mixing.combine(torch.cat([f, mean], dim=-1)))


chunks = st.builds(ChunkConfig, st.one_of(st.none(), st.integers(1, 9)), st.integers(-1, 5))


@given(st.sampled_from(MODES), st.lists(st.integers(1, 23), min_size=1, max_size=4), chunks)
def test_equals_the_definition_for_any_grid_and_any_batch(mode, lengths, chunk):
    mixing = make(mode)
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), chunk)
    x = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    got = mixing(x, grid)
    expected = by_definition(mixing, x, lengths, ChunkConfig(grid.chunk_size, chunk.left_chunks))
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@given(st.sampled_from([*MODES, "attention"]), st.integers(1, 23), st.integers(1, 9), st.integers(-1, 5))
def test_chunk_by_chunk_equals_the_whole(mode, length, chunk_size, left_chunks):
    assume(mode != "attention" or left_chunks >= 0)
    mixing = make(mode)
    chunk = ChunkConfig(chunk_size, left_chunks)
    x = torch.randn(2, length, DIM, dtype=torch.float64)
    grid = ChunkGrid(torch.tensor([length, length]), length, chunk)
    whole = mixing(grid.pad(x), grid)[:, :length]
    state, out = mixing.init_state(2, chunk), []
    for start in range(0, length, chunk_size):
        part = x[:, start : start + chunk_size]
        valid = part.size(1)
        part = F.pad(part, (0, 0, 0, chunk_size - valid), value=7.0)  # what stands behind the end must not matter
        part_grid = ChunkGrid(torch.tensor([valid, valid]), chunk_size, ChunkConfig())
        y, new_state = mixing.step(part, part_grid, state)
        assert {k: v.shape for k, v in new_state.items()} == {k: v.shape for k, v in state.items()}
        state = new_state
        out.append(y[:, :valid])
    torch.testing.assert_close(torch.cat(out, dim=1), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", [*MODES, "attention"])
@pytest.mark.parametrize("left_chunks", [-1, 0, 1, 2])
def test_dependency_matrix_is_the_visibility(mode, left_chunks):
    mixing = make(mode)
    chunk = ChunkConfig(3, left_chunks)
    grid = ChunkGrid(torch.tensor([10]), 12, chunk)
    expected = visibility([10], 12, chunk)[0] if mode != "local" else torch.zeros(12, 12, dtype=torch.bool)
    if mode not in ("lite", "attention"):  # each frame depends on itself through f, a padded one too
        expected |= torch.eye(12, dtype=torch.bool)
    assert torch.equal(dependencies(lambda x: mixing(x, grid), torch.randn(1, 12, DIM, dtype=torch.float64)), expected)


def test_gradients_flow_to_every_parameter_and_match_the_definition():
    mixing = make("merged")
    chunk = ChunkConfig(4, 1)
    grid = ChunkGrid(torch.tensor([10, 5]), 12, chunk)
    x = torch.randn(2, 12, DIM, dtype=torch.float64)
    parameters = list(mixing.parameters())
    got = torch.autograd.grad((mixing(x, grid) * grid.valid[..., None]).square().sum(), parameters)
    expected = torch.autograd.grad(
        (by_definition(mixing, x, [10, 5], chunk) * grid.valid[..., None]).square().sum(), parameters
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_the_mean_is_taken_in_float32_under_autocast():
    """In bfloat16 a running count stops at 256, and sums of thousands of frames lose their digits."""
    mixing = SummaryMixing(DIM, SUMMARY, "merged")
    x = torch.randn(1, 5000, DIM)
    grid = ChunkGrid(torch.tensor([5000]), 5000, ChunkConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = mixing.project(x)[1]
        got = mixing.step(x, grid, mixing.init_state(1, ChunkConfig()))[1]
    assert values.dtype == torch.bfloat16
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
