"""What changes during training: the learning rate and the weights of the losses. Pure functions, no state."""

import math
from dataclasses import dataclass


@dataclass
class OptimConfig:
    """AdamW with gradient clipping; the learning rate is that of :func:`learning_rate`."""

    lr: float = 1e-3
    """Peak learning rate."""
    final_lr_factor: float = 0.02
    """The learning rate at the end of training, as a fraction of the peak."""
    warmup_steps: int = 2000
    """Steps of linear warm-up."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    """For matrices and kernels; biases, norms and other vectors are not decayed."""
    clip_norm: float = 5.0
    """Upper bound of the norm of the per-frame gradient."""


@dataclass
class LossScales:
    """Weights of the three losses in their sum; see :func:`loss_scales`."""

    simple: float = 0.5
    pruned: float = 1.0
    ctc: float = 0.2
    warmup_steps: int = 2000
    """Steps until ``simple`` and ``pruned`` have reached their values."""


def learning_rate(step: int, progress: float, config: OptimConfig) -> float:
    """Linear warm-up in steps times a cosine decay in training progress.

    lr = peak · min(1, (step + 1) / warmup_steps) · (f + (1 - f) · (1 + cos π·progress) / 2), f = final_lr_factor.

    Progress is the share of the planned audio that has been trained on, so the decay is complete at the end of the
    last epoch whatever the batch size or the number of processes; only the warm-up counts steps.

    Args:
        step: optimiser steps taken so far.
        progress: 0 at the start to 1 at the end; values outside are clipped.
        config: peak, warm-up and end.
    """
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return config.lr * warmup * (config.final_lr_factor + (1.0 - config.final_lr_factor) * cosine)


def loss_scales(step: int, config: LossScales) -> tuple[float, float, float]:
    """Weights of (simple, pruned, ctc) at a step.

    The simple loss, which finds the alignment that the pruning needs, falls linearly from 1 to its weight, while the
    pruned loss rises from a tenth of its weight (the schedule of icefall's zipformer recipe).
    """
    done = min(1.0, step / max(config.warmup_steps, 1))
    return 1.0 - done * (1.0 - config.simple), config.pruned * (0.1 + 0.9 * done), config.ctc
