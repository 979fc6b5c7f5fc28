"""Muon against the singular value decomposition, torch's own Muon, and AdamW."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from summarymix.training.muon import RMS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(5, 3, 8), (1, 8, 3), (2, 6, 6), (4, 7), (2, 3, 4, 9)])
def test_singular_values_become_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    s = s.clamp(min=0.02 * float(torch.linalg.matrix_norm(x).max()))
    made = orthogonal(u * s[..., None, :] @ vh)
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    core = u.mT @ made @ vh.mT  # diagonal where the vectors are the same
    values = core.diagonal(dim1=-2, dim2=-1)
    assert float((core - torch.diag_embed(values)).abs().max()) < 1e-9
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_size_of_the_gradient_does_not_matter_and_zeros_stay() -> None:
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(orthogonal(1e-12 * x), orthogonal(x))
    assert not orthogonal(torch.zeros(2, 4, 6)).any()


def reference_step(weights: list[Tensor], grads: list[list[Tensor]], lr: float, decay: float) -> list[Tensor]:
    """Muon by its formula, one matrix at a time."""
    weights = [weight.clone() for weight in weights]
    averages = [torch.zeros_like(weight) for weight in weights]
    for step in grads:
        for i, grad in enumerate(step):
            averages[i] = 0.95 * averages[i] + 0.05 * grad
            direction = orthogonal(0.05 * grad + 0.95 * averages[i])
            weights[i] = (1 - lr * decay) * weights[i] - lr * RMS * max(grad.shape[-2:]) ** 0.5 * direction
    return weights


def test_steps_are_those_of_the_formula_whatever_other_matrices_there_are() -> None:
    shapes = [(4, 6), (6, 4), (4, 6), (2, 3, 5), (4, 6)]
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    grads = [[torch.randn_like(weight) for weight in weights] for _ in range(4)]
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    unused = nn.Parameter(torch.ones(4, 6, dtype=torch.float64))
    optimizer = Muon([*parameters, unused], [], lr=0.1, weight_decay=0.3)
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = grad
        optimizer.step()
    for parameter, expected in zip(parameters, reference_step(weights, grads, 0.1, 0.3), strict=True):
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-9, rtol=0)
    assert bool((unused == 1).all())


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_steps_are_those_of_torch_up_to_its_bfloat16() -> None:
    weight = torch.randn(16, 32)
    mine, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizers = [
        Muon([mine], [], lr=0.01, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        mine.grad = torch.randn_like(weight)
        theirs.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (mine - weight).detach()
    assert float((mine - theirs).detach().norm()) < 0.05 * float(moved.norm())


def test_everything_else_takes_the_steps_of_adamw() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Conv1d(4, 4, 3), nn.LayerNorm(4)).double()
    reference = nn.Sequential(nn.Embedding(5, 4), nn.Conv1d(4, 4, 3), nn.LayerNorm(4)).double()
    reference.load_state_dict(model.state_dict())
    mine = Muon([], model.parameters(), lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)
    groups = [
        {"params": [p for p in reference.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in reference.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.95))
    for _ in range(5):
        for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        mine.step()
        theirs.step()
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, atol=1e-12, rtol=1e-12)


def test_a_restored_state_continues_alike() -> None:
    def make() -> tuple[list[nn.Parameter], Muon]:
        parameters = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))]
        return parameters, Muon(parameters[:1], parameters[1:], lr=0.1)

    grads = [[torch.randn(3, 4), torch.randn(3)] for _ in range(4)]
    whole, optimizer = make()
    for i, step in enumerate(grads):
        if i == 2:
            weights, state = [p.detach().clone() for p in whole], deepcopy(optimizer.state_dict())
            resumed, other = make()
            for parameter, weight in zip(resumed, weights, strict=True):
                parameter.data.copy_(weight)
            other.load_state_dict(state)
        for parameters, taking in [(whole, optimizer), (resumed, other)] if i >= 2 else [(whole, optimizer)]:
            for parameter, grad in zip(parameters, step, strict=True):
                parameter.grad = grad.clone()
            taking.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
