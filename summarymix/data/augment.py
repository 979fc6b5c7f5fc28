"""SpecAugment (Park et al. 2019, arXiv 1904.08779), as in lhotse, with masks that grow with the utterance."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from lhotse.dataset import SpecAugment
from lhotse.dataset.signal_transforms import time_warp
from torch import Tensor


@dataclass
class SpecAugmentConfig:
    """Strength of the masking."""

    time_warp: int = 80
    """Largest shift of a time warp in feature frames; utterances shorter than twice that are not warped. 0: none."""
    freq_masks: int = 2
    """Number of masked frequency bands; 0: none."""
    freq_mask_bins: int = 27
    """Largest width of such a band in features."""
    time_masks: int = 10
    """Largest number of masked time spans; 0: none."""
    time_mask_frames: int = 100
    """Largest length of such a span in feature frames."""
    time_mask_fraction: float = 0.15
    """Largest masked part of an utterance: short ones get fewer and shorter spans."""
    probability: float = 0.9
    """Part of the utterances that are augmented."""
    warmup_steps: int = 2000
    """Training steps over which that part grows from none. With masked frequencies from the first step on, training on
    a few hours stays for long where it knows how frequent each token is, and nothing else."""


def spec_augment(config: SpecAugmentConfig) -> Callable[[Tensor, Tensor, int, int], list[Tensor]]:
    """A function of features (N, T, F), their lengths (N,), the training step and a number of views to as many of them.

    Each view (N, T, F) has masks of its own; the time warp is one, so that their frames belong together. Each utterance
    is augmented by itself, without its padding, which stays as it is. Random numbers come from the global generators of
    Python, NumPy and PyTorch alone.
    """
    with_time = _masks(config, config.time_masks)
    without_time = _masks(config, 0)

    def augment(features: Tensor, lengths: Tensor, step: int, num_views: int) -> list[Tensor]:
        probability = config.probability * min(1.0, step / max(config.warmup_steps, 1))
        views = [features.clone() for _ in range(num_views)]
        for i, length in enumerate(lengths.tolist()):
            if length == 0 or random.random() >= probability:
                continue
            utterance = features[i, :length]  # (T, F)
            if config.time_warp:
                utterance = time_warp(utterance, config.time_warp)
            # lhotse cannot draw a span from less than one frame.
            mask = with_time if int(length * config.time_mask_fraction) >= 1 else without_time
            for view in views:
                view[i : i + 1, :length] = mask(utterance[None])
        return views

    return augment


def _masks(config: SpecAugmentConfig, time_masks: int) -> SpecAugment:
    # lhotse divides by the number of spans, so "none" is one span shorter than one frame.
    spans = (
        {
            "num_frame_masks": time_masks,
            "frames_mask_size": config.time_mask_frames,
            "max_frames_mask_fraction": config.time_mask_fraction,
        }
        if time_masks
        else {"num_frame_masks": 1, "frames_mask_size": 1, "max_frames_mask_fraction": 1.0}
    )
    return SpecAugment(
        time_warp_factor=None,
        num_feature_masks=config.freq_masks,
        features_mask_size=config.freq_mask_bins,
        p=1.0,  # it is drawn above
        **spans,
    )
