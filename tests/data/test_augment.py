import random

import numpy as np
import pytest
import torch

from summarymix.data.augment import SpecAugmentConfig, spec_augment

LATE = 10**6  # after the warm-up


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (lhotse draws from the global generator)
    torch.manual_seed(seed)


def test_padding_stays_and_lengths_do_not_matter_to_others() -> None:
    features = torch.randn(3, 400, 80)
    lengths = torch.tensor([400, 150, 0])
    seed_all(1)
    augmented = spec_augment(SpecAugmentConfig(probability=1.0))(features, lengths, LATE, 1)[0]
    assert augmented.shape == features.shape
    assert torch.equal(augmented[1, 150:], features[1, 150:])
    assert torch.equal(augmented[2], features[2])
    assert not torch.equal(augmented[0], features[0])
    seed_all(1)
    assert torch.equal(spec_augment(SpecAugmentConfig(probability=1.0))(features, lengths, LATE, 1)[0], augmented)


def test_short_utterances_keep_most_of_their_frames() -> None:
    config = SpecAugmentConfig(time_warp=0, freq_masks=0, probability=1.0)
    augment = spec_augment(config)
    for length in [*range(1, 60), 200, 1000, 3000]:
        features = torch.randn(1, length, 80)
        changed = (augment(features, torch.tensor([length]), LATE, 1)[0] != features).any(2).sum().item()
        assert changed <= config.time_mask_fraction * length


def test_nothing_to_do() -> None:
    features = torch.randn(2, 300, 80)
    config = SpecAugmentConfig(time_warp=0, freq_masks=0, time_masks=0, probability=1.0)
    assert torch.equal(spec_augment(config)(features, torch.tensor([300, 300]), LATE, 1)[0], features)


def test_part_of_the_utterances_grows_in_the_warm_up() -> None:
    config = SpecAugmentConfig(time_warp=0, probability=0.8, warmup_steps=1000)
    augment = spec_augment(config)
    features, lengths = torch.randn(200, 100, 80), torch.full((200,), 100)
    seed_all(2)
    parts = [
        float((augment(features, lengths, step, 1)[0] != features).any(2).any(1).float().mean())
        for step in (0, 500, LATE)
    ]
    assert parts[0] == 0
    assert abs(parts[1] - 0.4) < 0.1
    assert abs(parts[2] - 0.8) < 0.1


def test_views_have_masks_of_their_own_and_one_time_warp() -> None:
    features, lengths = torch.randn(4, 400, 80), torch.tensor([400, 400, 300, 0])
    seed_all(3)
    first, second = spec_augment(SpecAugmentConfig(probability=1.0))(features, lengths, LATE, 2)
    for i, length in enumerate(lengths.tolist()[:3]):
        assert not torch.equal(first[i, :length], features[i, :length])
        # Where neither masks they have the same warped frames.
        same = (first[i, :length] == second[i, :length]).float().mean()
        assert 0.1 < same < 1
    warp_alone = SpecAugmentConfig(freq_masks=0, time_masks=0, probability=1.0)
    first, second = spec_augment(warp_alone)(features, lengths, LATE, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], features[0])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("time_warp", -1, "must be at least 0"),
        ("freq_masks", -1, "must be at least 0"),
        ("freq_mask_bins", 0, "must be at least 1"),
        ("time_masks", -1, "must be at least 0"),
        ("time_mask_frames", 0, "must be at least 1"),
        ("time_mask_fraction", 1.5, "must lie in 0…1"),
        ("probability", -0.1, "must lie in 0…1"),
        ("warmup_steps", -1, "must be at least 0"),
    ],
)
def test_options_out_of_range(option: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=rf"--data\.spec_augment\.{option} {value} {message}"):
        SpecAugmentConfig(**{option: value})


@pytest.mark.parametrize("options", [{"time_mask_fraction": 0.0}, {"freq_mask_bins": 1, "time_mask_frames": 1}])
def test_smallest_options(options: dict) -> None:
    features = torch.randn(2, 300, 80)
    augment = spec_augment(SpecAugmentConfig(probability=1.0, **options))
    assert augment(features, torch.tensor([300, 200]), LATE, 1)[0].shape == features.shape
