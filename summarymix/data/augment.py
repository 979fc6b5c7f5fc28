"""SpecAugment (Park et al. 2019, arXiv 1904.08779), as in lhotse, with masks that grow with the utterance."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from lhotse.dataset import SpecAugment
from lhotse.dataset.signal_transforms import time_warp
from torch import Tensor

from summarymix.configs import check_least


@dataclass
class SpecAugmentConfig:
    """Strength of the masking."""

    time_warp: int = 80
    """Largest shift of a time warp in feature frames; utterances shorter than twice this are not warped. 0: no warp."""
    freq_masks: int = 2
    """Number of masked frequency bands; 0: none."""
    freq_mask_bins: int = 27
    """Mel bins; masked bands are narrower."""
    time_masks: int = 10
    """Largest number of masked time spans; 0: none."""
    time_mask_frames: int = 100
    """Feature frames; masked spans are shorter."""
    time_mask_fraction: float = 0.15
    """Largest masked fraction of an utterance; short utterances get fewer and shorter spans."""
    probability: float = 0.9
    """Fraction of the utterances that is augmented."""
    warmup_steps: int = 2000
    """Training steps over which ``probability`` grows from 0. With frequency masks from the first step on, training on
    a few hours of speech stays long on the plateau where the model has learnt only the token frequencies."""

    def __post_init__(self) -> None:
        check_least(self, "data.spec_augment.", time_warp=0, freq_masks=0, time_masks=0, warmup_steps=0)
        check_least(self, "data.spec_augment.", freq_mask_bins=1, time_mask_frames=1)
        for name in ("time_mask_fraction", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--data.spec_augment.{name} {getattr(self, name)} must lie in 0…1")


def spec_augment(config: SpecAugmentConfig) -> Callable[[Tensor, Tensor, int, int], list[Tensor]]:
    """Return a function from features (N, T, F), lengths (N,), the training step and the number of views to the views.

    Each view (N, T, F) has its own masks; all share one time warp, so that their frames correspond. Each utterance is
    augmented separately, and its padding is left unchanged. Random numbers come only from the global generators of
    Python, NumPy and PyTorch.
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
            # lhotse fails if the longest allowed span is shorter than one frame.
            mask = with_time if int(length * config.time_mask_fraction) >= 1 else without_time
            for view in views:
                view[i : i + 1, :length] = mask(utterance[None])
        return views

    return augment


def _masks(config: SpecAugmentConfig, time_masks: int) -> SpecAugment:
    # lhotse divides by the number of spans, so 0 spans are replaced by one span of 0 frames.
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
        p=1.0,  # ``probability`` is applied above
        **spans,
    )
