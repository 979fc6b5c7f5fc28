"""ScaledAdam against its formulas, and the properties it exists for."""

import io
import logging
import math

import pytest
import torch
from torch import Tensor, nn

from summarymix.training.scaled_adam import ScaledAdam

SHAPES = [(3, 4), (5,), (), (1,), (2, 3, 2), (3, 4), (1, 1)]


class Reference:
    """One tensor after the other, one formula after the other, in float64; clipping on all of them."""

    def __init__(self, values: list[Tensor], lr: float, period: int, clipping_period: int) -> None:
        self.theta = [value.double().clone() for value in values]
        self.delta = [torch.zeros_like(value) for value in self.theta]
        self.v = [torch.zeros_like(value) for value in self.theta]
        self.r = [value.square().mean().sqrt() for value in self.theta]
        self.w = [0.0 for _ in values]
        self.h: list[list[float]] = [[] for _ in values]
        self.norms: list[float] = []
        self.threshold = math.inf
        self.lr, self.period, self.clipping_period = lr, period, clipping_period
        self.clipped = 0
        self.t = 0

    def step(self, gradients: list[Tensor], b1: float = 0.9, b2: float = 0.98, eta: float = 0.1) -> None:
        self.t += 1
        total = 0.0
        for theta, r, g in zip(self.theta, self.r, gradients, strict=True):
            total += float(((eta if theta.numel() == 1 else r) * g).square().sum())
        norm = math.sqrt(total)
        clip = min(1.0, self.threshold / norm)
        self.clipped += clip < 1
        self.norms.append(norm)
        recent = sorted(self.norms[-self.clipping_period :])
        median = recent[(len(recent) - 1) // 2]
        if self.t % self.clipping_period == 0:
            self.threshold = 2.0 * median
        elif self.t in (10, 20, 40) and self.t < self.clipping_period:
            self.threshold = 4.0 * median
        for i, g in enumerate(gradients):
            self.update(i, g * clip, b1, b2, eta)

    def update(self, i: int, g: Tensor, b1: float, b2: float, eta: float) -> None:
        theta = self.theta[i]
        self.v[i] = b2 * self.v[i] + (1 - b2) * g**2
        direction = g / (torch.sqrt(self.v[i] / (1 - b2**self.t)) + 1e-12)
        if theta.numel() == 1:
            self.delta[i] = b1 * self.delta[i] - (1 - b1) * eta * self.lr * direction
            self.theta[i] = (theta + self.delta[i]).clamp(-10, 10)
            return
        self.h[i].append(float((theta * g).sum()))
        size_step = torch.zeros(())
        if self.t % self.period == 0:
            self.r[i] = theta.square().mean().sqrt()
            h = torch.tensor(self.h[i][-self.period :], dtype=torch.float64)
            b = b2**self.period
            self.w[i] = b * self.w[i] + (1 - b) * float((h**2).mean())
            corrected = self.w[i] / (1 - b ** (self.t // self.period))
            size_step = -eta * self.lr * h.sum() / (math.sqrt(corrected) + 1e-12)
            size_step = size_step.clamp(-0.1, 0.1)
            if self.r[i] < 1e-5:
                size_step = size_step.clamp(min=0)
            size_step = torch.minimum(size_step, 3.0 / self.r[i] - 1)
        self.delta[i] = (
            b1 * self.delta[i]
            + (1 - b1) * size_step * theta
            - (1 - b1) * self.lr * self.r[i].clamp(min=1e-5) * direction
        )
        self.theta[i] = theta + self.delta[i]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    values[1] *= 1e-6  # smaller than the least size
    values[4] *= 4.0  # larger than the largest
    return [nn.Parameter(value.to(dtype)) for value in values]


def gradients(step: int) -> list[Tensor]:
    """Noise about a drift, now and then a freak."""
    generator = torch.Generator().manual_seed(step)
    size = {15: 50.0, 33: 1000.0, 77: 30.0}.get(step, 1.0) * math.exp(-step / 30)
    noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [size * (0.3 + value) for value in noise]


@pytest.mark.parametrize("clipping_period", [30, 100])
def test_every_step_is_that_of_the_formulas(clipping_period: int) -> None:
    params = parameters()
    optimizer = ScaledAdam(params, lr=0.05, clipping_update_period=clipping_period)
    reference = Reference([p.detach() for p in params], 0.05, 4, clipping_period)
    for step in range(130):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g.clone()
        optimizer.step()
        reference.step(gradients(step))
        for p, expected in zip(params, reference.theta, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)
        assert all(torch.equal(p.grad, g) for p, g in zip(params, gradients(step), strict=True))
    assert reference.clipped >= 3


def train(params: list[nn.Parameter], scale: float, eps: float = 1e-12) -> list[Tensor]:
    """Minimise a quadratic with noise, the loss times ``scale``; the parameters after it."""
    optimizer = ScaledAdam(params, lr=0.05, eps=eps)
    for step in range(60):
        noise = torch.Generator().manual_seed(step)
        loss = torch.zeros((), dtype=params[0].dtype)
        for p in params:
            loss = loss + (p - torch.randn(p.shape, generator=noise, dtype=p.dtype)).square().sum()
        optimizer.zero_grad()
        (scale * loss).backward()
        optimizer.step()
    return [p.detach().clone() for p in params]


def test_scaling_the_loss_changes_nothing() -> None:
    """Not a bit, for a power of two, as far as ε is out of the way."""
    expected = train(parameters(), 1.0, 1e-30)
    for scale in (2.0**-12, 2.0**12):
        others = train(parameters(), scale, 1e-30)
        assert all(torch.equal(value, other) for value, other in zip(expected, others, strict=True))
    for value, other in zip(train(parameters(), 1.0), train(parameters(), 1e-3), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-8)


def test_scaling_a_parameter_scales_its_steps() -> None:
    """Of w·f(x) with w ten times as large and the inputs a tenth: the same network after each step."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    outputs = []
    for factor in (1.0, 10.0):
        generator = torch.Generator().manual_seed(1)
        w = nn.Parameter(factor * 0.2 * torch.randn(6, 3, generator=generator, dtype=torch.float64))
        optimizer = ScaledAdam([w], lr=0.05)
        for _ in range(50):
            optimizer.zero_grad()
            (x / factor @ w - y).square().sum().backward()
            optimizer.step()
        outputs.append(x / factor @ w.detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("sign", "start"), [(1.0, 0.5), (-1.0, 0.5), (-1.0, 8.0), (-1.0, 1e-7)])
def test_sizes_stay_within_their_limits(sign: float, start: float) -> None:
    """Gradients that do nothing but pull at the size, outwards (-1) or to zero (1)."""
    generator = torch.Generator().manual_seed(0)
    tensor = nn.Parameter(start * torch.randn(40, 10, generator=generator, dtype=torch.float64))
    scalar = nn.Parameter(torch.tensor(9.0, dtype=torch.float64))
    optimizer = ScaledAdam([tensor, scalar], lr=0.05)
    for _ in range(1500):
        tensor.grad = sign * tensor.detach()
        scalar.grad = sign * torch.ones_like(scalar)
        optimizer.step()
        assert abs(float(scalar.detach())) <= 10.0
    rms = float(tensor.detach().square().mean().sqrt())
    # At the upper limit, steps of the elements push out by α and those of the size pull back by 0.1 at most.
    assert 1e-6 < rms < 3.0 * 1.3
    if sign < 0:
        assert rms > 2.0


def test_resumes_bit_by_bit_with_the_record_of_norms() -> None:
    """From a state that was saved between two size steps and before the clipping threshold is taken anew."""

    def run(optimizer: ScaledAdam, params: list[nn.Parameter], steps: range) -> None:
        for step in steps:
            for p, g in zip(params, gradients(step), strict=True):
                p.grad = g.to(p.dtype)
            optimizer.step()

    whole, stopped = parameters(torch.float32), parameters(torch.float32)
    whole_optimizer, stopped_optimizer = (ScaledAdam(p, clipping_update_period=30) for p in (whole, stopped))
    run(whole_optimizer, whole, range(80))
    run(stopped_optimizer, stopped, range(54))
    file = io.BytesIO()
    torch.save(stopped_optimizer.state_dict(), file)
    file.seek(0)
    resumed = [nn.Parameter(p.detach().clone()) for p in stopped]
    resumed_optimizer = ScaledAdam(resumed, clipping_update_period=30)
    resumed_optimizer.load_state_dict(torch.load(file, weights_only=True))
    run(resumed_optimizer, resumed, range(54, 80))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert torch.equal(whole_optimizer.param_groups[0]["norms"], resumed_optimizer.param_groups[0]["norms"])


def test_growing_gradients_are_reported_once_a_period(caplog: pytest.LogCaptureFixture) -> None:
    p = nn.Parameter(torch.ones(4, 4))
    optimizer = ScaledAdam([p], lr=1e-3, clipping_update_period=20)
    with caplog.at_level(logging.WARNING, logger="summarymix"):
        for step in range(120):
            p.grad = torch.full((4, 4), 1.0 if step < 60 else 1.2 ** (step - 60))
            optimizer.step()
    # Steady ones are not, nor those of the period in which they begin to grow and half of them are below the threshold.
    assert len(caplog.records) in (2, 3)
    assert "learning rate" in caplog.text


def test_parameter_without_gradient_stays() -> None:
    used, unused = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4))
    optimizer = ScaledAdam([used, unused])
    for _ in range(6):
        used.grad = torch.ones(3, 2)
        optimizer.step()
    assert torch.equal(unused.detach(), torch.ones(4))
    assert (used < 1).all()


def test_learns_a_linear_map_of_another_size() -> None:
    torch.manual_seed(0)
    x, target = torch.randn(200, 8), torch.randn(8, 3) * 2
    layer = nn.Linear(8, 3)
    optimizer = ScaledAdam(layer.parameters(), lr=0.05)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss = (layer(x) - x @ target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
