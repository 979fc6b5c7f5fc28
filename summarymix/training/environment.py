"""Versions, devices and backends of a run, for the terminal and the log."""

import torch

from summarymix import optional_k2
from summarymix.distributed import World
from summarymix.loss import loss_backend
from summarymix.model import LossConfig
from summarymix.training.config import TrainConfig


def environment(config: TrainConfig, world: World) -> dict[str, str | int]:
    """Versions, devices and chosen backends, by name."""
    device = world.device
    name = f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})" if device.type == "cuda" else device.type
    backend = config.data.feature_backend
    return {
        "torch": torch.__version__,
        "device": name,
        "precision": config.precision,
        "world_size": world.size,
        "threads": torch.get_num_threads(),
        "accumulate": config.accumulate,
        "loss": _loss(config.loss, device),
        "features": f"computed on the fly by {backend}" if config.data.on_the_fly else "as stored",
        "optimizer": f"{config.optim.name}, peak rate {config.optim.peak_lr:g}",
    }


def _loss(options: LossConfig, device: torch.device) -> str:
    """The loss backend and the reason for it.

    Raises:
        ImportError: k2 was requested but cannot be used.
    """
    chosen = loss_backend(options.backend, device, options.fastemit)
    module, reason = optional_k2.load()
    if chosen == "k2":
        return f"k2 {getattr(module, '__version__', 'of unknown version')}"
    if options.backend == "native":
        return "native, as requested"
    if module and options.fastemit:
        return "native, because k2 has no FastEmit"
    return f"native, because k2 cannot be used: {reason or f'it was built without support for {device.type}'}"
