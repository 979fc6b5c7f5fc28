"""An optimiser step: the batches it is made of, its sums, and its gradient's norm."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from summarymix.data.loading import Batch

# Values summed over a step's utterances: encoder frames, utterances with non-finite losses, losses, seconds of audio,
# cuts and pieces of noise that could not be read.
LOSSES = ("loss", "simple", "pruned", "ctc", "consistency")
SUMS = ("frames", "left_out", *LOSSES, "seconds", "unreadable", "unreadable_noise")
SKIPPED_SUMS = ("left_out", "seconds", "unreadable", "unreadable_noise")  # those that count of a step that is skipped


@dataclass
class Step:
    """The result of the forward and backward passes of one optimiser step.

    Args:
        group: batches of the step, as read.
        sums: values of SUMS, summed over all processes.
        norm: norm of the gradient of the mean loss per frame.
        finite: for each batch, True for utterances with finite losses, (N,).
    """

    group: list[Batch]
    sums: dict[str, float]
    norm: float
    finite: list[Tensor]

    @property
    def has_bad_losses(self) -> bool:
        """True if an utterance of any process has a non-finite loss."""
        return self.sums["left_out"] > 0

    @property
    def is_finite(self) -> bool:
        """True if the parameters can be updated."""
        return math.isfinite(self.norm) and self.sums["frames"] > 0


def per_frame(sums: dict[str, float]) -> dict[str, float]:
    """Mean losses per encoder frame."""
    frames = max(sums.get("frames", 0.0), 1.0)
    return {name: sums.get(name, 0.0) / frames for name in LOSSES}


def placeholder(num_mel_bins: int, num_views: int) -> Batch:
    """A batch of one second of zeros, for a process whose batch is empty."""
    features = torch.zeros(1, 100, num_mel_bins)
    return Batch(features, torch.tensor([100]), [[]], [""], [""], 0.0, other_views=[features] * (num_views - 1))


def select(batch: Batch, mask: Tensor) -> Batch:
    """The utterances of a batch for which ``mask`` (N,) is true."""
    keep = [i for i, chosen in enumerate(mask[: len(batch)].tolist()) if chosen]
    return replace(
        batch,
        features=batch.features[keep],
        feature_lengths=batch.feature_lengths[keep],
        tokens=[batch.tokens[i] for i in keep],
        texts=[batch.texts[i] for i in keep],
        cut_ids=[batch.cut_ids[i] for i in keep],
        seconds=batch.seconds * len(keep) / max(len(batch), 1),
        other_views=[view[keep] for view in batch.other_views],
    )
