"""BiasNorm against its formula."""

import pytest
import torch
from torch import Tensor, nn

from summarymix.blocks.bias_norm import BiasNorm


def make(bias: float = 1.0, log_scale: float = 0.3, dim: int = 6) -> BiasNorm:
    norm = BiasNorm(dim).double()
    norm.bias.data = bias * torch.randn(dim, dtype=torch.float64)
    norm.log_scale.data.fill_(log_scale)
    return norm


def by_definition(norm: BiasNorm, x: Tensor) -> Tensor:
    rms = ((x - norm.bias) ** 2).mean(dim=-1).sqrt()
    return x / rms[..., None] * norm.log_scale.exp()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(3, 7, 6), (5, 6), (1, 1, 6)])
def test_values_and_gradients_are_those_of_the_formula(training, shape):
    norm = make().train(training)
    x = (3 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn_like(x)
    y, expected = norm(x), by_definition(norm, x)
    torch.testing.assert_close(y, expected, rtol=1e-7, atol=0)
    inputs = [x, *norm.parameters()]
    for got, want in zip(
        torch.autograd.grad(y, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_gradients_are_derivatives_with_the_floor_too(size):
    norm = make(bias=size)
    x = (size * torch.randn(2, 3, 6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, *norm.parameters()), eps=1e-6 * size)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_of_zeros_and_equal_to_the_bias_are_finite(training, dtype):
    norm = BiasNorm(6).train(training)
    with torch.no_grad():
        norm.bias[:] = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 0.0])
        x = torch.stack([torch.zeros(6), norm.bias, torch.ones(6)]).to(dtype).requires_grad_()
        for bias in (norm.bias.clone(), torch.zeros(6)):
            norm.bias.copy_(bias)
            with torch.enable_grad():
                y = norm(x)
                grads = torch.autograd.grad(y.float().square().sum(), [x, *norm.parameters()])
            assert torch.equal(y[0], torch.zeros(6, dtype=dtype))
            assert all(t.isfinite().all() for t in (y, *grads))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_at_the_end_alone(training, dtype):
    norm = BiasNorm(512).train(training)
    x = (100 * torch.randn(4, 512)).to(dtype).requires_grad_()
    upstream = torch.randn(4, 512).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    y.backward(upstream)
    assert y.dtype == dtype
    assert x.grad.dtype == dtype
    assert norm.bias.grad.dtype == norm.log_scale.grad.dtype == torch.float32
    wide = x.detach().float().requires_grad_()
    expected = norm(wide)
    torch.testing.assert_close(y, expected.to(dtype), rtol=1e-6, atol=0)
    if training:
        (by_x,) = torch.autograd.grad(expected, wide, upstream.float())
        torch.testing.assert_close(x.grad, by_x.to(dtype), rtol=1e-6, atol=1e-7)


def test_scaling_the_input_changes_the_output_by_the_bias_alone():
    norm = make(bias=0.0)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(norm(x), norm(10 * x), rtol=1e-6, atol=0)
    norm = make(bias=10.0)
    assert (norm(10 * x).norm() / norm(x).norm()) > 2


@pytest.mark.parametrize("sign", [1, -1])
def test_log_scale_stays_near_its_limit_while_the_loss_pulls_it_out(sign):
    torch.manual_seed(0)
    norm = BiasNorm(6)
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.01)
    x = torch.randn(4, 6)
    for _ in range(250):
        optimizer.zero_grad()
        (-sign * norm(x).square().mean().log()).backward()
        optimizer.step()
    assert sign * norm.log_scale.item() == pytest.approx(1.5, abs=0.4)


def test_training_keeps_its_input_and_a_number_per_frame():
    kept: list[Tensor] = []
    norm, x = BiasNorm(64), torch.randn(2, 5, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x)
    others = [t for t in kept if t.data_ptr() not in (x.data_ptr(), norm.bias.data_ptr(), norm.log_scale.data_ptr())]
    assert [tuple(t.shape) for t in others] == [(10, 1)]


def test_can_be_exported():
    model, x = nn.Sequential(nn.Linear(6, 6), BiasNorm(6)).eval(), torch.randn(2, 3, 6)
    for exported in (torch.export.export(model, (x,)).module(), torch.jit.trace(model, x)):
        torch.testing.assert_close(exported(x), model(x))
