"""The parts of the zip-style encoder against their definitions; how they begin, and what is random in training."""

import pytest
import torch
from contract import check_contract, whole
from hypothesis import given
from hypothesis import strategies as st
from reference import chunk_configs, masked_mean, visibility

from summarymix.blocks.attention import AttentionWeights
from summarymix.blocks.mixing import MixingConfig
from summarymix.blocks.regularizers import Balancer, Whiten
from summarymix.blocks.scheduled import find_scheduled, set_progress
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.encoder.zipformer_layer import ZipformerLayer
from summarymix.encoder.zipformer_modules import (
    Bypass,
    GatedAttention,
    GatedSummary,
    UtteranceDropout,
    ZipFeedForward,
    keep_mask,
    scale_initial_weights,
    whitening_limit,
)

DIM, HIDDEN = 6, 5

grids = st.builds(
    lambda lengths, chunk: ChunkGrid(torch.tensor(lengths), max(lengths), chunk),
    st.lists(st.integers(1, 15), min_size=1, max_size=3),
    st.builds(ChunkConfig, st.one_of(st.none(), st.integers(1, 6)), st.integers(-1, 3)),
)


def gated_by(module: GatedSummary | GatedAttention, x, average):
    """W (y ⊙ average of v ⊙ tanh s)."""
    scale, values, gate = module.project(x).split(HIDDEN, dim=-1)
    return module.out(average(values * scale.tanh()) * gate)


def visibility_of(grid):
    lengths = grid.valid.sum(1).tolist()
    return visibility(lengths, grid.num_frames, ChunkConfig(grid.own_size, grid.config.left_chunks))


@given(grids)
def test_gated_summary_is_its_definition(grid):
    module = GatedSummary(DIM, HIDDEN, None).double()
    x = torch.randn(len(grid.valid), grid.num_frames, DIM, dtype=torch.float64)
    sees = visibility(
        grid.valid.sum(1).tolist(), grid.num_frames, ChunkConfig(grid.chunk_size, grid.config.left_chunks)
    )
    expected = gated_by(module, x, lambda values: masked_mean(values, sees))
    torch.testing.assert_close(whole(module, x, grid)[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@given(grids)
def test_gated_attention_weighs_with_the_first_head(grid):
    module, attention = GatedAttention(DIM, HIDDEN).double(), AttentionWeights(DIM, 2, 3, 0.0).double()
    x = torch.randn(len(grid.valid), grid.num_frames, DIM, dtype=torch.float64)
    chunk = ChunkConfig(grid.chunk_size, min(grid.config.left_chunks, 0))
    weights, _ = attention(x, grid, attention.init_state(len(x), chunk))
    sees = visibility(
        grid.valid.sum(1).tolist(), grid.num_frames, ChunkConfig(grid.chunk_size, grid.config.left_chunks)
    )
    first = weights[:, 0] * sees
    expected = gated_by(module, x, lambda values: torch.einsum("ntu,nup->ntp", first, values))
    got, _ = module(x, grid, module.init_state(len(x), chunk), weights)
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


def test_bypass_keeps_a_share_of_each_channel():
    bypass = Bypass(DIM, skip_rate=0.5).eval()
    bypass.scale.data = torch.linspace(0, 1, DIM)
    original, x = torch.randn(2, 3, 4, DIM)
    out = bypass(original, x)
    torch.testing.assert_close(out, (1 - bypass.scale) * original + bypass.scale * x)
    torch.testing.assert_close(out[..., 0], original[..., 0])
    torch.testing.assert_close(out[..., -1], x[..., -1])


def test_bypass_pushes_its_scale_up_to_a_limit_that_falls():
    """The loss wants less of x; below the limit the gradient is turned round in more than half of the calls."""
    torch.manual_seed(0)
    original, x = torch.zeros(1, 1, DIM), torch.ones(1, 1, DIM)
    for batches, scale, is_turned in ((0, 0.5, True), (0, 0.95, False), (20000, 0.5, False), (20000, 0.1, True)):
        bypass = Bypass(DIM)
        set_progress(find_scheduled(bypass), batches)
        bypass.scale.data.fill_(scale)
        for _ in range(200):
            bypass(original, x).sum().backward()
        assert (bypass.scale.grad < 0).all() == is_turned


def test_utterances_are_left_out_at_the_rate_asked_for():
    torch.manual_seed(0)
    x = torch.zeros(4000, 2, DIM)
    mask = keep_mask(x, 0.25)
    assert mask.shape == (4000, 1, 1)
    assert mask.unique().tolist() == [0, 1]
    assert mask.mean().item() == pytest.approx(0.75, abs=0.03)
    assert keep_mask(x, 0.0).all()


def test_dropout_is_of_channels_of_utterances_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout = UtteranceDropout(0.25)
    x = torch.ones(500, 3, 40)
    out = dropout(x)
    assert torch.equal(out[:, 0], out[:, 2])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropout.eval()(x) is x


def make_layer(mixing: str) -> ZipformerLayer:
    return ZipformerLayer(
        dim=DIM,
        feedforward_dim=16,
        kernel_size=5,
        summary_dim=8,
        num_heads=2,
        mixing=MixingConfig(mixing),
        dropout=0.1,
        depth=0.0,
    )


@given(
    st.sampled_from(["merged", "attention", "local"]),
    st.lists(st.integers(1, 15), min_size=1, max_size=3),
    chunk_configs(6, 3),
)
def test_contract_of_the_layer(mixing, lengths, chunk):
    torch.manual_seed(0)
    layer = make_layer(mixing).double().eval()
    for parameter in layer.parameters():  # what begins tiny should count as well
        parameter.data += 0.3 * torch.randn_like(parameter)
    check_contract(layer, DIM, lengths, chunk)


def test_layers_begin_near_the_identity_and_use_all_their_weights():
    """Every parameter of every kind of layer gets a gradient from a batch; scales at their middle."""
    torch.manual_seed(0)
    grid = ChunkGrid(torch.tensor([12, 7]), 12, ChunkConfig(4, 1))
    for mixing in ("merged", "attention", "local"):
        layer = make_layer(mixing)
        set_progress(find_scheduled(layer), 1e6)
        x = torch.randn(2, 12, DIM)
        out = whole(layer, x, grid)
        (out * torch.randn_like(out)).sum().backward()
        assert [name for name, parameter in layer.named_parameters() if parameter.grad is None] == []
        assert out[grid.valid].isfinite().all()


def test_regularisers_do_not_look_at_padding():
    """Gradients of an utterance's weights are those it has alone, whatever stands behind its end."""
    torch.manual_seed(0)
    module = ZipFeedForward(DIM, 8, 0.0)
    module.balancer.prob = module.whiten.prob = 1.0
    x = torch.randn(1, 9, DIM)
    gradients = []
    for noise in (0.0, 100.0):
        grid = ChunkGrid(torch.tensor([6]), 9, ChunkConfig())
        module.zero_grad()
        padded = x + noise * ~grid.valid[..., None]
        module(padded, grid)[grid.valid].square().sum().backward()
        gradients.append(module.expand.weight.grad.clone())
    torch.testing.assert_close(*gradients)
    alone = ChunkGrid(torch.tensor([6]), 6, ChunkConfig())
    module.zero_grad()
    module(x[:, :6], alone).square().sum().backward()
    torch.testing.assert_close(module.expand.weight.grad, gradients[0], rtol=1e-4, atol=1e-5)


def test_small_beginnings():
    linear = torch.nn.Linear(20, 10)
    before = linear.weight.detach().clone()
    scale_initial_weights(linear, 0.05)
    torch.testing.assert_close(linear.weight, 0.05 * before)
    assert linear.bias.abs().max() <= 0.005


def test_dropout_of_an_utterance_is_the_same_in_all_its_frames_without_gradients_too():
    torch.manual_seed(0)
    module = ZipFeedForward(DIM, HIDDEN, 0.5)
    grid = ChunkGrid(torch.tensor([3000]), 3000, ChunkConfig())
    with torch.no_grad():
        out = module(torch.ones(1, 3000, DIM), grid)
    torch.testing.assert_close(out, out[:, :1].expand_as(out))


@pytest.mark.parametrize("mixing", ["merged", "attention"])
def test_every_regulariser_gets_the_mask_of_the_valid_frames(mixing: str) -> None:
    layer = ZipformerLayer(
        dim=6,
        feedforward_dim=16,
        kernel_size=5,
        summary_dim=8,
        num_heads=2,
        mixing=MixingConfig(mixing),  # type: ignore[arg-type]
        dropout=0.1,
        depth=0.0,
    )
    grid = ChunkGrid(torch.tensor([12, 7]), 12, ChunkConfig(4, 1))
    masks: dict[str, object] = {}
    for name, part in layer.named_modules():
        if isinstance(part, Balancer | Whiten):
            masks[name] = None
            part.register_forward_pre_hook(lambda _, inputs, name=name: masks.__setitem__(name, inputs[1]))
    whole(layer, torch.randn(2, 12, 6), grid)
    assert len(masks) > 5
    assert [name for name, mask in masks.items() if mask is not grid.mask] == []


def test_a_bypass_skips_nothing_unless_told_to() -> None:
    bypass = Bypass(6)
    original, x = torch.randn(2, 50, 4, 6)
    torch.testing.assert_close(bypass(original, x), bypass.eval()(original, x))


def test_the_limit_of_whitening_grows_to_its_multiple() -> None:
    holder = torch.nn.Module()
    holder.limit = whitening_limit(5.0, 3.0)
    for batches, expected in ((0, 5.0), (20000, 15.0)):
        set_progress(find_scheduled(holder), batches)
        assert float(holder.limit) == pytest.approx(expected)
