"""The optimiser."""

from torch import nn
from torch.optim import AdamW

from summarymix.training.schedule import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW (arXiv 1711.05101) over two groups: matrices and kernels decay, biases, norms and scales do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: one pass over each tensor, on CPU as on GPU.
    return AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas, fused=True)
