"""L1: the split chunk convolution against its definition; L2 and the contract for the whole module."""

import pytest
import torch
from contract import check_contract, whole
from hypothesis import given
from hypothesis import strategies as st
from reference import chunk_configs, dependencies, places
from small_pieces import piece_sizes, pieces_of

from summarymix.blocks.convolution import ChunkConvolution, ConvolutionModule, correlate_rows, depthwise
from summarymix.chunking import ChunkConfig, ChunkGrid

DIM = 3


def by_definition(convolution: ChunkConvolution, u, lengths, chunk: ChunkConfig):
    """y_t = b + Σ_j w_j u_{t+j} over valid frames of no later chunk, one term at a time. With look-ahead, a frame
    before the chunk is the one that its own chunk has computed."""
    y = convolution.bias.expand_as(u).clone()
    frames = places(u.size(1), chunk)
    for n, length in enumerate(lengths):
        for t, (here, time, _) in enumerate(frames):
            for q, (there, other, is_own) in enumerate(frames):
                j = other - time
                seen = here == there or (there < here and is_own and other < here * chunk.chunk_size)
                if seen and other < length and abs(j) <= convolution.reach:
                    y[n, t] = y[n, t] + convolution.weight[:, convolution.reach + j] * u[n, q]
    return y


def random_parameters(module):
    for parameter in module.parameters():
        parameter.data.normal_()
    return module


chunk_sizes = st.integers(1, 9)
kernels = st.sampled_from([3, 5, 9, 15])
batches = st.lists(st.integers(1, 20), min_size=1, max_size=3)


@given(batches, st.one_of(st.just(ChunkConfig()), chunk_configs()), kernels)
def test_equals_the_definition(lengths, chunk, kernel):
    convolution = random_parameters(ChunkConvolution(DIM, kernel).double())
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), chunk)
    u = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    got = whole(convolution, u, grid)
    expected = by_definition(convolution, u, lengths, ChunkConfig(grid.own_size, -1, chunk.lookahead))
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@pytest.mark.parametrize("taps", [1, 8])
def test_the_form_for_gpus_equals_the_form_for_cpus(taps):
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 20, 6), (6, taps), (6,))]
    expected, got = depthwise(*inputs), correlate_rows(*inputs)
    assert got.is_contiguous()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    upstream = torch.randn_like(got)
    for a, b in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(1), ChunkConfig(4), ChunkConfig(4, -1, 3)])
def test_gradients_match_the_definition(chunk, kernel):
    convolution = random_parameters(ChunkConvolution(DIM, kernel).double())
    grid = ChunkGrid(torch.tensor([10, 7]), 10, chunk)
    u = torch.randn(2, grid.num_frames, DIM, dtype=torch.float64, requires_grad=True)
    inputs = [u, *convolution.parameters()]
    got = torch.autograd.grad(whole(convolution, u, grid)[grid.valid].square().sum(), inputs)
    expected_y = by_definition(convolution, u, [10, 7], ChunkConfig(grid.own_size, -1, chunk.lookahead))
    expected = torch.autograd.grad(expected_y[grid.valid].square().sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_gradients_in_half_precision():
    """Under autocast the backward pass computes as the forward one did."""
    convolution = random_parameters(ChunkConvolution(DIM, 5))
    grid = ChunkGrid(torch.tensor([10, 7]), 10, ChunkConfig(4))
    u = torch.randn(2, 12, DIM, requires_grad=True)
    inputs = [u, convolution.weight, convolution.bias]
    expected = torch.autograd.grad(whole(convolution, u, grid).sin().sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = whole(convolution, u, grid)
    assert out.dtype == torch.bfloat16
    got = torch.autograd.grad(out.float().sin().sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.2)


@given(batches, chunk_configs(), kernels, piece_sizes)
def test_contract(lengths, chunk, kernel, piece):
    torch.manual_seed(0)
    module = random_parameters(ConvolutionModule(DIM, kernel, dropout=0.1).double().eval())
    state = module.init_state(2, chunk)
    assert state["cache"].shape == (2, kernel // 2, DIM)
    with pieces_of(piece):
        check_contract(module, DIM, lengths, chunk)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_dependency_matrix_is_the_theory(chunk_size):
    """Neither a later chunk nor a padded frame, which is silenced before the convolution, reaches a valid frame."""
    length, total, kernel = 10, 12, 7
    module = ConvolutionModule(DIM, kernel, dropout=0.0).double()
    grid = ChunkGrid(torch.tensor([length]), total, ChunkConfig(chunk_size))
    moved = dependencies(lambda x: whole(module, x, grid), torch.randn(1, total, DIM, dtype=torch.float64))
    for t in range(total):
        for u in range(total):
            near = abs(t - u) <= kernel // 2 and u // grid.chunk_size <= t // grid.chunk_size
            assert moved[t, u] == (near and u < length), (t, u)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"kernel_size 4 .* must be odd and at least 3"):
        ChunkConvolution(2, 4)
