"""Making and restoring the optimiser."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from summarymix.blocks.mixing import GroupedLinear
from summarymix.training.muon import Muon
from summarymix.training.scaled_adam import ScaledAdam
from summarymix.training.schedule import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Make the optimiser of ``config`` for the parameters of ``model``.

    AdamW (arXiv 1711.05101) has two groups: parameters with more than one axis decay, biases and norms do not. Muon
    updates the encoder's linear maps and leaves the rest to AdamW: kernels, predictor, joiner and output layers.
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
    """The trainable weights of the linear maps in ``module``, each (…, m, n)."""
    linear = (part for part in module.modules() if isinstance(part, nn.Linear | GroupedLinear))
    return [part.weight for part in linear if part.weight.requires_grad]


def restore_optimizer(optimizer: Optimizer, path: Path, checkpoint: dict[str, Any], config: OptimConfig) -> None:
    """Load the state of a checkpoint into ``optimizer``, with the options of ``config``.

    Raises:
        ValueError: the checkpoint has the state of another optimiser.
    """
    name = checkpoint["config"]["optim"].get("name", "adamw")
    if name != config.name:
        raise ValueError(
            f"{path} was trained with --optim.name {name}, and {config.name} cannot continue it. Give the same "
            "optimiser, or start a new run from its weights with --init_from and another --exp_dir"
        )
    # All options but the learning rate, which the schedule sets before each step.
    kept = optimizer.defaults.keys() - {"lr"}
    options = [{option: group[option] for option in kept} for group in optimizer.param_groups]
    optimizer.load_state_dict(checkpoint["optimizer"])
    for group, of_config in zip(optimizer.param_groups, options, strict=True):
        group.update(of_config)


def clip_factor(grad_norm: float, config: OptimConfig) -> float:
    """The factor that clips a gradient of this norm; 1 for ScaledAdam, which clips by itself."""
    return 1.0 if config.name == "scaled_adam" else min(1.0, config.clip_norm / (grad_norm + 1e-6))
