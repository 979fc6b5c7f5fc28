"""L1: the split chunk convolution against its definition; L2 and streaming for the whole module."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from reference import dependencies
from small_blocks import block_sizes, blocks_of

from summarymix.blocks.convolution import ChunkConvolution, ConvolutionModule, EdgeScaledConvolution
from summarymix.chunking import ChunkConfig, ChunkGrid

DIM = 3


def by_definition(convolution: ChunkConvolution, u, lengths, chunk_size: int):
    """y_t = b + Σ_j w_j u_{t+j} over valid frames of no later chunk, one term at a time."""
    y = convolution.bias.expand_as(u).clone()
    for n, length in enumerate(lengths):
        for t in range(u.size(1)):
            for j in range(-convolution.reach, convolution.reach + 1):
                if 0 <= t + j < length and (t + j) // chunk_size <= t // chunk_size:
                    y[n, t] = y[n, t] + convolution.weight[:, convolution.reach + j] * u[n, t + j]
    return y


def edge_scaled_by_definition(convolution: EdgeScaledConvolution, u, lengths, chunk_size: int):
    """The equation of its docstring, one frame and one tap at a time."""
    kernel = convolution.weight.size(1)
    y = torch.zeros_like(u)
    for n, length in enumerate(lengths):
        for t in range(length):
            start = t - t % chunk_size
            end = min(start + chunk_size, length)
            past = convolution.past_bias
            for j in range(-convolution.reach, 1):
                if t + j >= 0:
                    past = past + convolution.past_weight[:, convolution.reach + j] * u[n, t + j]
            inside = convolution.bias
            for j in range(-convolution.reach, convolution.reach + 1):
                if start <= t + j < end:
                    inside = inside + convolution.weight[:, convolution.reach + j] * u[n, t + j]
            scale = torch.ones(DIM, dtype=u.dtype)
            if t - start < kernel:
                scale = scale + convolution.left_edge[t - start]
            if end - 1 - t < kernel:
                scale = scale + convolution.right_edge[end - 1 - t]
            y[n, t] = past + scale * inside
    return y


def random_parameters(module):
    for parameter in module.parameters():
        parameter.data.normal_()
    return module


KINDS = [(ChunkConvolution, by_definition), (EdgeScaledConvolution, edge_scaled_by_definition)]
chunk_sizes = st.one_of(st.none(), st.integers(1, 9))
kernels = st.sampled_from([3, 5, 9, 15])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), chunk_sizes, kernels, st.sampled_from(KINDS), block_sizes)
def test_equals_the_definition(lengths, chunk_size, kernel, kind, block):
    make, definition = kind
    convolution = random_parameters(make(DIM, kernel).double())
    grid = ChunkGrid(torch.tensor(lengths), max(lengths), ChunkConfig(chunk_size))
    u = torch.randn(len(lengths), grid.num_frames, DIM, dtype=torch.float64)
    with blocks_of(block):
        got = convolution(u, grid, lambda y, u: u.sin() - y, u)
    expected = u.sin() - definition(convolution, u, lengths, grid.chunk_size)
    torch.testing.assert_close(got[grid.valid], expected[grid.valid], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize(("make", "definition"), KINDS)
def test_gradients_match_the_definition(make, definition, chunk_size, kernel):
    convolution = random_parameters(make(DIM, kernel).double())
    grid = ChunkGrid(torch.tensor([10, 7]), 10, ChunkConfig(chunk_size))
    u = torch.randn(2, grid.num_frames, DIM, dtype=torch.float64, requires_grad=True)
    inputs = [u, *convolution.parameters()]
    got = torch.autograd.grad(convolution(u, grid)[grid.valid].square().sum(), inputs)
    expected_y = definition(convolution, u, [10, 7], grid.chunk_size)
    expected = torch.autograd.grad(expected_y[grid.valid].square().sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_gradients_in_half_precision():
    """Under autocast the backward pass computes as the forward one did."""
    convolution = random_parameters(ChunkConvolution(DIM, 5))
    grid = ChunkGrid(torch.tensor([10, 7]), 10, ChunkConfig(4))
    u = torch.randn(2, 12, DIM, requires_grad=True)
    inputs = [u, convolution.weight, convolution.bias]
    expected = torch.autograd.grad(convolution(u, grid).sin().sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(u, grid)
    assert out.dtype == torch.bfloat16
    got = torch.autograd.grad(out.float().sin().sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.2)


def stream(module, x, chunk_size):
    """x (N, T, D) chunk by chunk, noise behind the end."""
    length = x.size(1)
    state, out = module.init_state(x.size(0), ChunkConfig(chunk_size)), []
    for start in range(0, length, chunk_size):
        part = x[:, start : start + chunk_size]
        valid = part.size(1)
        grid = ChunkGrid(torch.tensor([valid] * x.size(0)), chunk_size, ChunkConfig())
        y, state = module.step(F.pad(part, (0, 0, 0, chunk_size - valid), value=7.0), grid, state)
        out.append(y[:, :valid])
    return torch.cat(out, dim=1), state


MODULES = {
    "ConvolutionModule": lambda kernel: ConvolutionModule(DIM, kernel, dropout=0.1),
    "EdgeScaledConvolution": lambda kernel: EdgeScaledConvolution(DIM, kernel),
}


@given(st.integers(1, 20), st.integers(1, 9), kernels, st.sampled_from(list(MODULES)))
def test_chunk_by_chunk_equals_the_whole(length, chunk_size, kernel, name):
    torch.manual_seed(0)
    module = random_parameters(MODULES[name](kernel).double().eval())
    x = torch.randn(2, length, DIM, dtype=torch.float64)
    grid = ChunkGrid(torch.tensor([length, length]), length, ChunkConfig(chunk_size))
    whole = module(grid.pad(x), grid)[:, :length]
    out, state = stream(module, x, chunk_size)
    assert state["cache"].shape == (2, kernel // 2, DIM)
    torch.testing.assert_close(out, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_dependency_matrix_is_the_theory(chunk_size):
    """Neither a later chunk nor a padded frame, which is silenced before the convolution, reaches a valid frame."""
    length, total, kernel = 10, 12, 7
    module = ConvolutionModule(DIM, kernel, dropout=0.0).double()
    grid = ChunkGrid(torch.tensor([length]), total, ChunkConfig(chunk_size))
    moved = dependencies(lambda x: module(x, grid), torch.randn(1, total, DIM, dtype=torch.float64))
    for t in range(total):
        for u in range(total):
            near = abs(t - u) <= kernel // 2 and u // grid.chunk_size <= t // grid.chunk_size
            assert moved[t, u] == (near and u < length), (t, u)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd and at least 3, not 4"):
        ChunkConvolution(2, 4)
