"""The optimiser."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from summarymix.blocks.mixing import GroupedLinear
from summarymix.training.muon import Muon
from summarymix.training.scaled_adam import ScaledAdam
from summarymix.training.schedule import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimiser of ``config`` for the parameters of ``model``.

    AdamW (arXiv 1711.05101) has two groups: matrices and kernels decay, biases, norms and scales do not. Muon takes the
    encoder's linear maps, and leaves the rest to AdamW: kernels, and what reads or makes tokens.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name == "scaled_adam":
        return ScaledAdam(parameters, config.base_lr, config.betas, clipping_scale=config.clipping_scale)
    if config.name == "muon":
        matrices = linear_maps(model.get_submodule("encoder"))
        taken = set(map(id, matrices))
        others = [parameter for parameter in parameters if id(parameter) not in taken]
        return Muon(matrices, others, config.lr, config.betas, weight_decay=config.weight_decay)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: one pass over each tensor, on CPU as on GPU.
    return AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas, fused=True)


def linear_maps(module: nn.Module) -> list[Tensor]:
    """The weights of the linear maps in ``module`` that are trained, (…, m, n) each."""
    linear = (part for part in module.modules() if isinstance(part, nn.Linear | GroupedLinear))
    return [part.weight for part in linear if part.weight.requires_grad]


def restore_optimizer(optimizer: Optimizer, path: Path, checkpoint: dict[str, Any], config: OptimConfig) -> None:
    """Give ``optimizer`` the state it has in a checkpoint; its options are still those of ``config``.

    Raises:
        ValueError: that is the state of another optimiser.
    """
    name = checkpoint["config"]["optim"].get("name", "adamw")
    if name != config.name:
        raise ValueError(
            f"{path} was trained with --optim.name {name}, which {config.name} cannot continue. Give that option, or "
            "start a new run from its weights with --init_from and another --exp_dir"
        )
    # The learning rate is no option: the schedule sets it before each step, and a checkpoint has that of the last one.
    kept = optimizer.defaults.keys() - {"lr"}
    options = [{option: group[option] for option in kept} for group in optimizer.param_groups]
    optimizer.load_state_dict(checkpoint["optimizer"])
    for group, of_config in zip(optimizer.param_groups, options, strict=True):
        group.update(of_config)


def clip_factor(grad_norm: float, config: OptimConfig) -> float:
    """What to multiply a gradient of this norm by before the step; ScaledAdam clips it by itself."""
    return 1.0 if config.name == "scaled_adam" else min(1.0, config.clip_norm / (grad_norm + 1e-6))
