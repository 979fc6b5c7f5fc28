"""Schedules of the learning rate and the loss weights, as pure functions."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from summarymix.configs import check_least
from summarymix.model import LossConfig

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
    """Optimiser and learning rate schedule; see :func:`learning_rate`."""

    name: Literal["auto", "muon", "adamw", "scaled_adam"] = "auto"
    """Optimiser; auto: scaled_adam (the Zipformer's) for the zip-style encoder, muon for the Conformer."""
    schedule: Literal["auto", "cosine", "eden"] = "auto"
    """Learning rate schedule; auto: eden for scaled_adam, cosine for the others."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay per step of the averages of gradients and squared gradients; Muon: only of the parameters that take AdamW's
    steps."""

    lr: float = 1e-3
    """Muon, AdamW: peak learning rate."""
    weight_decay: float = 0.01
    """Muon, AdamW: weight decay of parameters with more than one axis: not of norms and biases, except for attention's,
    which have a row for each head."""
    clip_norm: float = 5.0
    """Muon, AdamW: largest norm of the gradient of the loss per frame; .inf: no limit."""
    base_lr: float = 0.045
    """ScaledAdam: peak learning rate; a relative change per step, so much larger than AdamW's."""
    clipping_scale: float = 2.0
    """ScaledAdam: upper bound of the gradient norm, as a multiple of its median over earlier steps; .inf: none."""

    warmup_steps: int = 2000
    """cosine: steps of linear warm-up."""
    final_lr_factor: float = 0.02
    """cosine: final learning rate as a fraction of the peak."""
    ref_duration: float = 600.0
    """eden: seconds of audio that count as a batch, independent of the size of the real batches."""
    warmup_batches: float = 500.0
    """eden: length of the linear warm-up in such batches."""
    lr_batches: float = 7500.0
    """eden: number of such batches after which the learning rate begins to fall."""
    lr_epochs: float = 3.5
    """eden: number of epochs after which the learning rate begins to fall. An epoch is the training data as prepared,
    including copies at other speeds."""

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clipping_scale", "ref_duration", "lr_batches", "lr_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--optim.{name} {getattr(self, name)} must be above 0")
        check_least(self, "optim.", lr=0, base_lr=0, weight_decay=0, final_lr_factor=0)
        check_least(self, "optim.", warmup_steps=0, warmup_batches=0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"--optim.betas {list(self.betas)} must be from 0 to below 1")

    @property
    def is_eden(self) -> bool:
        """True if :func:`eden_factor` schedules the learning rate; otherwise :func:`cosine_factor` does."""
        return self.schedule == "eden" or (self.schedule == "auto" and self.name == "scaled_adam")

    @property
    def peak_lr(self) -> float:
        """The peak learning rate, which the schedule's factor multiplies."""
        return self.base_lr if self.name == "scaled_adam" else self.lr

    def without_effect(self) -> list[str]:
        """Options that were set but belong to another optimiser or schedule."""
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
    """Weight of the simple loss after warm-up."""
    pruned: float = 1.0
    """Weight of the pruned loss after warm-up."""
    ctc: float = 0.2
    """Weight of the CTC loss."""
    consistency: float = 0.0
    """Weight of the divergence between two outputs of the CTC head (CR-CTC, arXiv 2410.05101, with a fifth of the CTC
    loss's weight). Above 0, each batch is encoded twice with different masks and chunks, so a step takes the time and
    memory of two batches."""
    consistency_after: int = 0
    """Steps before the consistency loss starts; until then batches are encoded once."""
    warmup_steps: int = 2000
    """Steps until ``simple`` and ``pruned`` reach their values."""

    def __post_init__(self) -> None:
        check_least(self, "scales.", simple=0, pruned=0, ctc=0, consistency=0, consistency_after=0, warmup_steps=0)

    def without_effect(self) -> list[str]:
        """Options that were set but need another one."""
        unused = self.consistency_after > 0 and self.consistency == 0
        return [f"--scales.consistency_after {self.consistency_after}"] if unused else []

    def num_views(self, step: float = math.inf) -> int:
        """Number of times that the batches of a step are encoded; without ``step``, the maximum."""
        return 2 if self.consistency > 0 and step >= self.consistency_after else 1


def learning_rate(step: int, seconds: float, epochs: float, progress: float, config: OptimConfig) -> float:
    """The learning rate of a step, by :func:`cosine_factor` or :func:`eden_factor`.

    Args:
        step: optimiser steps taken so far.
        seconds: seconds of audio in these steps, over all processes.
        epochs: passes over the training data in these steps, with fractions.
        progress: fraction of the whole training done, from 0 to 1.
        config: peak and schedule.
    """
    factor = eden_factor(seconds, epochs, config) if config.is_eden else cosine_factor(step, progress, config)
    return config.peak_lr * factor


def cosine_factor(step: int, progress: float, config: OptimConfig) -> float:
    """Linear warm-up in steps times a cosine decay in training progress.

    min(1, (step + 1) / warmup_steps) · (f + (1 - f) · (1 + cos π·progress) / 2), f = final_lr_factor.

    Progress is the fraction of the planned audio, so the decay ends with the last epoch for any batch size and number
    of processes; only the warm-up counts steps. Progress is clipped to the range from 0 to 1.
    """
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warmup * (config.final_lr_factor + (1.0 - config.final_lr_factor) * cosine)


def eden_factor(seconds: float, epochs: float, config: OptimConfig) -> float:
    """The Eden schedule of icefall's zipformer recipe (arXiv 2310.11230, section 3.5).

    ((b² + B²) / B²)^-¼ · ((e² + E²) / E²)^-¼ · w(b), B = lr_batches, E = lr_epochs, with b batches and e epochs done,
    fractions included, where w rises linearly from 0.1 to 1 over warmup_batches. It does not depend on when training
    ends.

    icefall counts b in steps, so its learning rates suit the batch size that they were tuned with, and another number
    of GPUs changes the schedule. Here b = seconds / ref_duration counts audio, so the schedule does not depend on how
    the audio is divided into steps and processes. To follow an icefall recipe, set ref_duration to the audio of its
    steps, max-duration times world-size: 4000 for its zipformer of 66 M.
    """
    batches = seconds / config.ref_duration
    done = min(1.0, batches / config.warmup_batches) if config.warmup_batches > 0 else 1.0
    warmup = EDEN_WARMUP_START + (1.0 - EDEN_WARMUP_START) * done
    in_batches = (1.0 + (batches / config.lr_batches) ** 2) ** -0.25
    in_epochs = (1.0 + (epochs / config.lr_epochs) ** 2) ** -0.25
    return in_batches * in_epochs * warmup


def loss_scales(step: int, config: LossScales) -> tuple[float, float, float, float]:
    """Weights of (simple, pruned, ctc, consistency) at a step.

    The weight of the simple loss, which finds the alignment for the pruning, falls linearly from 1 to its final value,
    while the weight of the pruned loss rises from a tenth of its final value (as in icefall's zipformer recipe).
    """
    done = min(1.0, step / max(config.warmup_steps, 1))
    return 1.0 - done * (1.0 - config.simple), config.pruned * (0.1 + 0.9 * done), config.ctc, config.consistency


def loss_options(step: int, options: LossConfig, scales: LossScales) -> LossConfig:
    """Options of the transducer loss at a step: without the delay penalty until twice the warm-up."""
    return options if step >= 2 * scales.warmup_steps else replace(options, delay_penalty=0.0)
