"""What changes during training: the learning rate and the weights of the losses. Pure functions, no state."""

import math
from dataclasses import dataclass
from typing import Literal

EDEN_WARMUP_START = 0.1
OPTIONS_OF = {
    "muon": ("lr", "weight_decay", "clip_norm"),
    "adamw": ("lr", "weight_decay", "clip_norm"),
    "scaled_adam": ("base_lr", "clipping_scale"),
    "cosine": ("warmup_steps", "final_lr_factor"),
    "eden": ("ref_duration", "warmup_batches", "lr_batches", "lr_epochs"),
}


@dataclass
class OptimConfig:
    """The optimiser and its learning rate, which is that of :func:`learning_rate`."""

    name: Literal["auto", "muon", "adamw", "scaled_adam"] = "auto"
    """Muon, AdamW, or the Zipformer's ScaledAdam; auto: the last for the zip-style encoder, Muon for others."""
    schedule: Literal["auto", "cosine", "eden"] = "auto"
    """Course of the learning rate; auto: eden for scaled_adam, cosine for others."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay, per step, of the averages of gradients and of their squares."""

    lr: float = 1e-3
    """Muon, AdamW: peak learning rate."""
    weight_decay: float = 0.01
    """Muon, AdamW: for matrices and kernels; biases, norms and other vectors are not decayed."""
    clip_norm: float = 5.0
    """Muon, AdamW: upper bound of the norm of the per-frame gradient."""
    base_lr: float = 0.045
    """ScaledAdam: peak learning rate, a relative change per step and so much larger than AdamW's."""
    clipping_scale: float = 2.0
    """ScaledAdam: upper bound of the gradient's norm, as a multiple of its median over some steps before."""

    warmup_steps: int = 2000
    """cosine: steps of linear warm-up."""
    final_lr_factor: float = 0.02
    """cosine: the learning rate at the end of training, as a fraction of the peak."""
    ref_duration: float = 600.0
    """eden: seconds of audio that make a batch, whatever the batches are in fact."""
    warmup_batches: float = 500.0
    """eden: such batches of linear warm-up."""
    lr_batches: float = 7500.0
    """eden: such batches after which the learning rate begins to fall."""
    lr_epochs: float = 3.5
    """eden: epochs after which the learning rate begins to fall; its unit is the training data as prepared, copies at
    other speeds included."""

    def __post_init__(self) -> None:
        for name in ("ref_duration", "lr_batches", "lr_epochs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--optim.{name} {getattr(self, name)} must be above 0")

    @property
    def is_eden(self) -> bool:
        """Whether the learning rate takes the course of :func:`eden_factor`; else that of :func:`cosine_factor`."""
        return self.schedule == "eden" or (self.schedule == "auto" and self.name == "scaled_adam")

    @property
    def peak_lr(self) -> float:
        """The learning rate that the schedule's factor is of."""
        return self.base_lr if self.name == "scaled_adam" else self.lr

    def without_effect(self) -> list[str]:
        """Options that have been set and are those of another optimiser or schedule."""
        used = self.name, "eden" if self.is_eden else "cosine"
        used_options = {option for owner in used for option in OPTIONS_OF[owner]}
        unused = {option: None for options in OPTIONS_OF.values() for option in options if option not in used_options}
        return [
            f"--optim.{option} {getattr(self, option)}"
            for option in unused
            if getattr(self, option) != getattr(OptimConfig, option)
        ]


@dataclass
class LossScales:
    """Weights of the losses in their sum; see :func:`loss_scales`."""

    simple: float = 0.5
    pruned: float = 1.0
    ctc: float = 0.2
    consistency: float = 0.0
    """Weight of the divergence between two outputs of the CTC head (CR-CTC, arXiv 2410.05101, where it is a fifth of
    the CTC loss's). Above 0 each batch is encoded twice, each time with its own masks and chunks. A step takes the time
    and the memory of two batches."""
    consistency_after: int = 0
    """Steps before the consistency loss starts; until then batches are encoded once."""
    warmup_steps: int = 2000
    """Steps until ``simple`` and ``pruned`` have reached their values."""

    def num_views(self, step: float = math.inf) -> int:
        """How often the batches of a step are encoded; without ``step`` how often at most."""
        return 2 if self.consistency > 0 and step >= self.consistency_after else 1


def learning_rate(step: int, seconds: float, epochs: float, progress: float, config: OptimConfig) -> float:
    """The learning rate of a step, by :func:`cosine_factor` or :func:`eden_factor`.

    Args:
        step: optimiser steps taken so far.
        seconds: of audio in them, that of all processes.
        epochs: passes over the training data in them, with fractions.
        progress: share of the whole training done, from 0 to 1.
        config: peak and course.
    """
    factor = eden_factor(seconds, epochs, config) if config.is_eden else cosine_factor(step, progress, config)
    return config.peak_lr * factor


def cosine_factor(step: int, progress: float, config: OptimConfig) -> float:
    """Linear warm-up in steps times a cosine decay in training progress.

    min(1, (step + 1) / warmup_steps) · (f + (1 - f) · (1 + cos π·progress) / 2), f = final_lr_factor.

    Progress is the share of the planned audio that has been trained on, so the decay is complete at the end of the
    last epoch whatever the batch size or the number of processes; only the warm-up counts steps. Progress outside of 0
    to 1 is clipped.
    """
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warmup * (config.final_lr_factor + (1.0 - config.final_lr_factor) * cosine)


def eden_factor(seconds: float, epochs: float, config: OptimConfig) -> float:
    """The Eden schedule of icefall's zipformer recipe (arXiv 2310.11230, section 3.5).

    ((b² + B²) / B²)^-¼ · ((e² + E²) / E²)^-¼ · w(b), B = lr_batches, E = lr_epochs, with b batches and e epochs done,
    fractions included, where w rises linearly from 0.1 to 1 over warmup_batches. It does not depend on when training
    ends.

    icefall counts b in steps, so its rates suit the batches that they were tuned with, and a user with one GPU, or
    with sixteen, gets another course over the data. Here b = seconds / ref_duration is counted in audio: the course is
    the same for the same audio, however it is split into steps and processes. To follow a recipe of icefall, set
    ref_duration to the audio of its steps, max-duration times world-size: 4000 for its zipformer of 66 M.
    """
    batches = seconds / config.ref_duration
    done = min(1.0, batches / config.warmup_batches) if config.warmup_batches > 0 else 1.0
    warmup = EDEN_WARMUP_START + (1.0 - EDEN_WARMUP_START) * done
    in_batches = (1.0 + (batches / config.lr_batches) ** 2) ** -0.25
    in_epochs = (1.0 + (epochs / config.lr_epochs) ** 2) ** -0.25
    return in_batches * in_epochs * warmup


def loss_scales(step: int, config: LossScales) -> tuple[float, float, float, float]:
    """Weights of (simple, pruned, ctc, consistency) at a step.

    The simple loss, which finds the alignment that the pruning needs, falls linearly from 1 to its weight, while the
    pruned loss rises from a tenth of its weight (the schedule of icefall's zipformer recipe).
    """
    done = min(1.0, step / max(config.warmup_steps, 1))
    return 1.0 - done * (1.0 - config.simple), config.pruned * (0.1 + 0.9 * done), config.ctc, config.consistency
