"""L0: SummaryMixing against the definition with T×T masks; L2: what depends on what; the contract of one forward."""

import math

import pytest
import torch
import torch.nn.functional as F
from contract import check_contract, whole
from hypothesis import given
from hypothesis import strategies as st
from reference import chunk_configs, decay_weights, dependencies, masked_mean, visibility
from small_pieces import piece_sizes, pieces_of

from summarymix.blocks.attention import RelativeAttention
from summarymix.blocks.mixing import (
    FullMixing,
    GroupedLinear,
    LiteMixing,
    LocalOnly,
    MergedMixing,
    MixingConfig,
    SeenMean,
    SummaryMixing,
    make_mixer,
)
from summarymix.chunking import ChunkConfig, ChunkGrid

DIM, SUMMARY = 6, 8
MODES = ["merged", "full", "lite", "local"]


def make(mode: str, decay_seconds: float | None = None) -> SummaryMixing | RelativeAttention:
    torch.manual_seed(1)
    makers = {
        "merged": lambda: MergedMixing(DIM, SUMMARY, decay_seconds),
        "full": lambda: FullMixing(DIM, SUMMARY, 2, decay_seconds),
        "lite": lambda: LiteMixing(DIM, decay_seconds),
        "local": lambda: LocalOnly(DIM, SUMMARY),
        "attention": lambda: RelativeAttention(DIM, 3, 0.0),
    }
    return makers[mode]().double()


def by_definition(mixing: SummaryMixing, x, lengths, chunk: ChunkConfig, frame_ms=40, decay_seconds=None):
    """h_t = c([f(x_t); s̄_t]) with the concatenation and the frame-by-frame mean that the module avoids."""
    if isinstance(mixing, MergedMixing):
        f, s = F.gelu(mixing.merged(x)).chunk(2, dim=-1)
    elif isinstance(mixing, FullMixing):
        f, s = mixing.local(x), mixing.summary(x)
    elif isinstance(mixing, LiteMixing):
        s = mixing.summary(x)
    else:
        return F.gelu(mixing.combine(mixing.local(x)))
    weights = 1.0
    if decay_seconds is not None:
        weights = decay_weights(x.size(1), chunk, frame_ms, decay_seconds)
    mean = masked_mean(s, visibility(lengths, x.size(1), chunk), weights)
    if isinstance(mixing, LiteMixing):
        return mean
    return F.gelu(F.linear(torch.cat([f, mean], dim=-1), mixing.combine.weight, mixing.combine.bias))


@st.composite
def kinds(draw, modes=tuple(MODES)):
    """A mode, and a decay where it has a mean."""
    mode = draw(st.sampled_from(modes))
    has_mean = mode in ("merged", "full", "lite")
    return mode, draw(st.sampled_from([None, 0.01, 0.3, 1000.0])) if has_mean else None


chunk_sizes, lefts = st.integers(1, 9), st.integers(-1, 5)
chunks = st.one_of(st.builds(ChunkConfig, st.none(), lefts), chunk_configs())
durations = st.sampled_from([40, 20, 160])


@given(kinds(), st.lists(st.integers(1, 23), min_size=1, max_size=4), chunks, durations, piece_sizes)
def test_equals_the_definition_for_any_grid_and_any_batch(kind, lengths, chunk, frame_ms, piece):
    mixing = make(*kind)
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), chunk, frame_ms=frame_ms)
    x = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    with pieces_of(piece):
        got = whole(mixing, x, grid)
    chunk = ChunkConfig(grid.own_size, chunk.left_chunks, chunk.lookahead)
    expected = by_definition(mixing, x, lengths, chunk, frame_ms, kind[1])
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@given(
    kinds([*MODES, "attention"]),
    st.lists(st.integers(0, 23), min_size=1, max_size=3),
    chunk_configs(),
    durations,
)
def test_contract(kind, lengths, chunk, frame_ms):
    check_contract(make(*kind), DIM, lengths, chunk, frame_ms)


def test_decay_goes_by_the_time_that_passed_when_the_chunk_size_changes():
    """Chunks of 4, 4, 2 and 3 frames, with unlimited context and with two chunks of it, against weights written down by
    hand: a chunk decays by the duration of each later chunk and of the current one."""
    sizes, tau = [4, 4, 2, 3], 0.4
    mean = SeenMean(DIM, tau)
    values = torch.randn(1, sum(sizes), DIM, dtype=torch.float64)
    for left in (-1, 2):
        state = mean.init_state(1, ChunkConfig(4, left), values)
        for part in values.split(sizes, dim=1):
            grid = ChunkGrid(torch.tensor([part.size(1)]), part.size(1), ChunkConfig(part.size(1), 0))
            got, state = mean(part, grid, state)
        ends = torch.tensor(sizes).cumsum(0).tolist()  # 4, 8, 10, 13
        total, count = torch.zeros(DIM, dtype=torch.float64), 0.0
        for i, (end, size) in enumerate(zip(ends, sizes, strict=True)):
            if left < 0 or i >= 3 - left:
                weight = math.exp(-(13 - end) * 0.04 / tau)
                total += weight * values[0, end - size : end].sum(0)
                count += weight * size
        torch.testing.assert_close(got[0, 0], total / max(count, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("mode", "decay"), [*((mode, None) for mode in [*MODES, "attention"]), ("merged", 2.0)], ids=str
)
@pytest.mark.parametrize("left_chunks", [-1, 0, 1, 2])
def test_dependency_matrix_is_the_visibility(mode, decay, left_chunks):
    mixing = make(mode, decay)
    chunk = ChunkConfig(3, left_chunks)
    grid = ChunkGrid(torch.tensor([10]), 12, chunk)
    expected = visibility([10], 12, chunk)[0] if mode != "local" else torch.zeros(12, 12, dtype=torch.bool)
    if mode not in ("lite", "attention"):  # each frame depends on itself through f, a padded one too
        expected |= torch.eye(12, dtype=torch.bool)
    x = torch.randn(1, 12, DIM, dtype=torch.float64)
    assert torch.equal(dependencies(lambda x: whole(mixing, x, grid), x), expected)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_gradients_flow_to_every_parameter_and_match_the_definition(decay):
    mixing = make("merged", decay)
    chunk = ChunkConfig(4, 1)
    grid = ChunkGrid(torch.tensor([10, 5]), 12, chunk)
    x = torch.randn(2, 12, DIM, dtype=torch.float64)
    parameters = list(mixing.parameters())
    got = torch.autograd.grad((whole(mixing, x, grid) * grid.valid[..., None]).square().sum(), parameters)
    by_hand = by_definition(mixing, x, [10, 5], chunk, decay_seconds=decay)
    expected = torch.autograd.grad((by_hand * grid.valid[..., None]).square().sum(), parameters)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_the_mean_is_taken_in_float32_under_autocast():
    """In bfloat16 a running count stops at 256, and sums of thousands of frames lose their digits."""
    mixing = MergedMixing(DIM, SUMMARY)
    means = []
    mixing.mean.register_forward_hook(lambda module, inputs, out: means.append((inputs[0], out[0])))
    x = torch.randn(1, 5000, DIM)
    grid = ChunkGrid(torch.tensor([5000]), 5000, ChunkConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixing(x, grid, mixing.init_state(1, ChunkConfig()))
    [(values, mean)] = means
    assert values.dtype == torch.bfloat16
    assert mean.dtype == state["sum"].dtype == state["count"].dtype == torch.float32
    torch.testing.assert_close(state["sum"], values.double().sum(1).float(), rtol=1e-5, atol=1e-3)
    assert state["count"].item() == 5000


def test_grouped_linear_is_block_diagonal():
    linear = GroupedLinear(6, 4, 2)
    dense = torch.block_diag(*linear.weight)  # (6, 4)
    x = torch.randn(5, 6)
    torch.testing.assert_close(linear(x), x @ dense + linear.bias)
    with pytest.raises(ValueError, match="4 groups do not divide both 6 and 8 features"):
        GroupedLinear(6, 8, 4)


def test_mixing_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"mixing\.mode .mean. is unknown: choose merged"):
        make_mixer(MixingConfig("mean"), 4, 4, 2, 0.0)
    with pytest.raises(ValueError, match="summary_dim 8 must be dim 6"):
        make_mixer(MixingConfig("lite"), 6, 8, 2, 0.0)
    for mixing in ("local", "attention"):
        with pytest.raises(ValueError, match=rf"decay_seconds 2.0 does not apply to mixing.mode {mixing}"):
            MixingConfig(mixing, decay_seconds=2.0)
    with pytest.raises(ValueError, match=r"decay_seconds 0.0 must be above 0"):
        MixingConfig(decay_seconds=0.0)


@pytest.mark.parametrize("mode", ["merged", "full", "lite"])
def test_the_decay_of_the_configuration_reaches_the_mean(mode: str) -> None:
    mixer = make_mixer(MixingConfig(mode, decay_seconds=2.0), 8, 8, 2, 0.0)  # type: ignore[arg-type]
    assert mixer.mean.decay_seconds == 2.0  # type: ignore[union-attr]
