"""Regularisers: what they add to gradients, against autograd of their penalties, and where it leads."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretend_gpu import GPU, PretendGpu
from torch import Tensor, nn

from summarymix.blocks.regularizers import Balancer, Whiten, limit_value
from summarymix.blocks.scheduled import Scheduled, find_scheduled, set_progress

SHAPE = (3, 20, 6)  # (N, T, D)
VALID = torch.arange(20) < torch.tensor([20, 7, 13])[:, None]


def gradient(module, x: Tensor, upstream: Tensor, *args) -> Tensor:
    """Of Σ upstream·module(x) by x."""
    x = x.detach().clone().requires_grad_()
    y = module(x, *args)
    assert torch.equal(y, x)
    return torch.autograd.grad(y, x, upstream)[0]


def balancer_penalty(x: Tensor, shares: tuple[float, float], sizes: tuple[float, float]) -> Tensor:
    """Of all channels of the frames x (frames, D)."""
    normal = torch.distributions.Normal(0.0, 1.0)
    low, high = normal.icdf(torch.tensor(shares, dtype=torch.float64))
    ratio = x.mean(0) / x.var(0, correction=0).sqrt()
    rms = x.square().mean(0).sqrt()
    smallest, largest = math.sqrt(math.pi / 2) * rms.new_tensor(sizes)
    of_ratios = (low - ratio).relu() + (ratio - high).relu()
    return (of_ratios + (smallest / rms).log().relu() + (rms / largest).log().relu()).sum()


def whiteness(x: Tensor) -> Tensor:
    """E[λ²]/E[λ]² of the frames x (frames, D), by eigenvalues."""
    x = x - x.mean(0)
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x))
    return eigenvalues.square().mean() / eigenvalues.mean().square()


def penalty_gradient(penalty, x: Tensor, valid: Tensor) -> Tensor:
    """Of penalty(valid frames of x) by those."""
    frames = x[valid].detach().requires_grad_()
    return torch.autograd.grad(penalty(frames), frames)[0]


def sample(seed: int, means: float = 1.0) -> tuple[Tensor, Tensor]:
    """x with channels of all kinds, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    mean, log_size = torch.randn(2, SHAPE[-1], dtype=torch.float64, generator=generator)
    return (x + means * mean) * log_size.exp(), upstream


@given(st.integers(0, 10**6), st.booleans())
def test_balancer_adds_the_direction_of_its_penalty(seed, masked):
    x, upstream = sample(seed)
    valid = VALID if masked else torch.ones_like(VALID)
    shares, sizes = (0.3, 0.8), (0.7, 1.5)
    got = gradient(Balancer(6, *shares, *sizes, grad_scale=0.04, prob=1.0), x, upstream, *([VALID] * masked))
    d = penalty_gradient(lambda frames: balancer_penalty(frames, shares, sizes), x, valid)
    d = 0.04 * d / d.square().mean(0).sqrt().clamp(min=1e-12)
    expected = upstream.clone()
    expected[valid] += upstream[valid].abs() * d
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10**6), st.booleans())
def test_whiten_adds_the_gradient_of_its_measure(seed, masked):
    x, upstream = sample(seed)
    valid = VALID if masked else torch.ones_like(VALID)
    limit = 1.5
    got = gradient(Whiten(limit, prob=1.0, grad_scale=0.1), x, upstream, *([VALID] * masked))
    expected = upstream.clone()
    if whiteness(x[valid]) > limit:
        d = penalty_gradient(whiteness, x, valid)
        expected[valid] += 0.1 * d * upstream.norm() / d.norm()
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("limit", [1.0, 1.5, 5.9])
def test_whiten_does_not_wait_for_a_gpu(limit):
    x, upstream = sample(0)
    module = Whiten(limit, prob=1.0, grad_scale=0.1)
    expected = gradient(module, x, upstream, VALID)
    with PretendGpu() as gpu:
        given = [value.to(GPU) for value in (x, upstream, VALID)]
        gpu.waits.clear()
        assert torch.equal(gradient(module, *given).cpu(), expected)
        assert [wait for wait in gpu.waits if wait.startswith("summarymix")] == []


BALANCERS = [Balancer(6, 0.0, 1.0, 0.0, 100.0, prob=1.0), Balancer(6, 0.01, 0.99, 0.01, 50.0, prob=1.0)]


@pytest.mark.parametrize("module", [*BALANCERS, Whiten(5.9, prob=1.0)])
def test_within_the_ranges_gradients_are_not_touched(module):
    x, upstream = sample(0, means=0.1)
    assert torch.equal(gradient(module, x, upstream), upstream)
    assert torch.equal(gradient(module, x, upstream, VALID), upstream)


@pytest.mark.parametrize("module", [Balancer(6, 0.6, 1.0, 5.0, 9.0, prob=1.0), Whiten(1.0, prob=1.0)])
def test_padded_frames_have_no_part_in_it(module):
    x, upstream = sample(1)
    other = x.masked_fill(~VALID[..., None], 1e6)
    first, second = gradient(module, x, upstream, VALID), gradient(module, other, upstream, VALID)
    assert torch.equal(first, second)
    assert torch.equal(first[~VALID], upstream[~VALID])
    assert not torch.equal(first[VALID], upstream[VALID])
    assert torch.equal(gradient(module, x, upstream, torch.zeros_like(VALID)), upstream)


def descend(module, x: Tensor, measure, steps: int = 300, lr: float = 0.05) -> list[Tensor]:
    """The measure before and after descent along nothing but noise of mean 0 and what the module makes of it."""
    generator = torch.Generator().manual_seed(0)
    values = [measure(x)]
    for _ in range(steps):
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        for sign in (1, -1):
            x = x - lr * gradient(module, x, sign * noise)
        values.append(measure(x))
    return values


@pytest.mark.parametrize(
    ("options", "measure", "start"),
    [
        ({"min_positive": 0.4}, lambda x: (x > 0).double().mean(dim=(0, 1)), -1.0),
        ({"max_positive": 0.6}, lambda x: -(x > 0).double().mean(dim=(0, 1)), 1.0),
        ({"min_abs": 1.2}, lambda x: x.abs().mean(dim=(0, 1)), 0.0),
        ({"max_abs": 0.4}, lambda x: -x.abs().mean(dim=(0, 1)), 0.0),
    ],
)
def test_balancer_moves_each_channel_towards_its_range(options, measure, start):
    x = torch.randn(4, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + start
    bounds = {"min_positive": 0.0, "max_positive": 1.0, "min_abs": 0.0} | options
    before, *_, after = descend(Balancer(3, **bounds, grad_scale=0.1, prob=1.0), x, measure)
    assert (after > before + 0.1).all()
    (limit,) = options.values()
    assert (after > (limit if "min" in next(iter(options)) else -limit) - 0.1).all()


def test_whiten_moves_the_covariance_towards_its_limit_and_leaves_means_alone():
    x, _ = sample(4)
    before, *_, after = descend(Whiten(1.5, prob=1.0, grad_scale=0.1), x, lambda x: whiteness(x.flatten(0, 1)))
    assert before > 3
    assert after < 1.7
    upstream = torch.randn_like(x)
    added = gradient(Whiten(1.0, prob=1.0), x, upstream) - upstream
    torch.testing.assert_close(added.sum(dim=(0, 1)), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-7])
@pytest.mark.parametrize("module", [Balancer(6, 0.4, 0.6, 0.2, 2.0, prob=1.0), Whiten(1.0, prob=1.0)])
def test_constant_channels_do_no_harm(module, value):
    """Nothing more is added than ever; their rounding errors are not taken for a signal."""
    upstream = torch.randn(SHAPE)
    got = gradient(module, torch.full(SHAPE, value).mul_(1 + 1e-7 * torch.randn(SHAPE)), upstream)
    assert (got - upstream).norm() <= 0.05 * upstream.norm()


@pytest.mark.parametrize("value", [1.0, 0.01749374, 777.7])
def test_a_dead_channel_is_pushed_back(value):
    """Constant and positive, where half should be negative: all its elements get a gradient downwards."""
    upstream = torch.randn(SHAPE)
    module = Balancer(6, 0.4, 0.6, 0.0, 1000.0, grad_scale=0.04, prob=1.0)
    got = gradient(module, torch.full(SHAPE, value), upstream)
    torch.testing.assert_close(got, upstream + 0.04 * upstream.abs(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("module", [Balancer(6, 0.6, 1.0, 5.0, 9.0, prob=1.0), Whiten(1.0, prob=1.0)])
def test_statistics_are_in_float32_under_autocast(module):
    x, upstream = (t.bfloat16() for t in sample(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradient(module, x, upstream)
    assert got.dtype == torch.bfloat16
    expected = gradient(module, x.double(), upstream.double())
    torch.testing.assert_close(got, expected.bfloat16(), rtol=8e-3, atol=0)


@pytest.mark.parametrize("module", [Balancer(6, 0.6, 1.0, 5.0, 9.0, prob=1.0), Whiten(1.0, prob=1.0)])
def test_in_eval_mode_it_is_not_there(module):
    x = sample(0)[0].requires_grad_()
    module.eval()
    state = torch.get_rng_state()
    assert module(x) is x
    assert limit_value(x, -0.1, 0.1, training=False) is x
    assert torch.equal(torch.get_rng_state(), state)
    module.train()
    assert module(x) is not x
    assert module(x.detach()).grad_fn is None
    assert not module.state_dict()


def acts(module: nn.Module, times: int = 400) -> list[bool]:
    x = sample(0)[0].requires_grad_()
    return [module(x) is not x for _ in range(times)]


@pytest.mark.parametrize("make", [lambda prob: Balancer(6, prob=prob), lambda prob: Whiten(2.0, prob=prob)])
def test_batches_are_drawn_with_the_scheduled_probability_and_again_the_same(make):
    module = make(Scheduled((0, 0.5), (8000, 0.1)))
    torch.manual_seed(0)
    first = acts(module)
    assert 160 < sum(first) < 240
    torch.manual_seed(0)
    assert acts(module) == first
    set_progress(find_scheduled(module), 8000)
    assert 20 < sum(acts(module)) < 60


def test_limits_of_a_balancer_are_scheduled():
    x, upstream = sample(0)
    module = Balancer(6, 0.0, 1.0, Scheduled((0, 0.0), (10, 50.0)), prob=1.0)
    assert torch.equal(gradient(module, x, upstream), upstream)
    set_progress(find_scheduled(module), 10)
    assert not torch.equal(gradient(module, x, upstream), upstream)


def test_limit_value_reverses_what_leads_further_out():
    x = torch.tensor([-2.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0])
    upstream = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 0.0])
    expected = torch.tensor([-1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 0.0])
    assert torch.equal(gradient(lambda x: limit_value(x, -1.0, 1.0, prob=1.0), x, upstream), expected)


def test_limit_value_keeps_a_parameter_at_its_bound():
    torch.manual_seed(0)
    p = nn.Parameter(torch.tensor([0.0, 0.0, 0.5]))
    optimizer = torch.optim.SGD([p], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (limit_value(p, -1.0, 1.0) - torch.tensor([7.0, -7.0, 0.2])).abs().sum().backward()
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([1.0, -1.0, 0.2]), rtol=0, atol=0.5)


def test_what_does_not_fit_is_refused():
    x = torch.zeros(SHAPE, requires_grad=True)
    with pytest.raises(ValueError, match=r"Balancer of 5 channels.*\(3, 20, 6\)"):
        Balancer(5, prob=1.0)(x)
    with pytest.raises(ValueError, match=r"whitening_limit 0\.5 must be at least 1"):
        Whiten(0.5)
