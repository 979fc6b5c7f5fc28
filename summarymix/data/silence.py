"""Silence around training utterances, and utterances joined with pauses, for recognition of long recordings.

Corpus utterances are tightly trimmed. A model trained only on them misrecognises the pauses of a recording. Silence is
added to lhotse's cuts before they are batched, so that batches have the intended duration.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.utils import compute_num_frames
from torch import Tensor

from summarymix.data.features import FbankExtractor

# Lowest energy; its logarithm is the feature value of digital silence. (lhotse pads with log(1e-10), which no audio
# reaches.)
_FLOOR = torch.finfo(torch.float32).eps
SILENCE = math.log(_FLOOR)
_NOISE_SECONDS = 10
_NOISE = "white_noise"  # key in the custom data of a silence: noise level in dB, first noise frame


@dataclass
class SilenceConfig:
    """Silence added to training utterances."""

    probability: float = 0.0
    """Fraction of the utterances, joined or not, that gets silence before and after."""
    join_probability: float = 0.0
    """Fraction of the utterances that is joined to the previous one, with silence in between, up to data.max_seconds
    in total."""
    max_pause: float = 1.0
    """Longest silence in seconds; the length is uniform from 0."""
    first_epoch: int = 1
    """First epoch with added silence. With little data, training on long utterances may fail from scratch and work
    once the model recognises words."""
    noise_db: tuple[float, float] = (-100.0, -50.0)
    """Lowest and highest level of white noise in the silence, in dB relative to full scale; -100 is nearly none."""

    def __post_init__(self) -> None:
        probabilities = self.probability, self.join_probability
        if not all(0 <= p <= 1 for p in probabilities) or self.max_pause < 0 or self.noise_db[0] > self.noise_db[1]:
            raise ValueError(
                f"--data.silence.probability {self.probability} and join_probability {self.join_probability} must "
                f"lie in 0…1, max_pause {self.max_pause} must be 0 or more, noise_db {self.noise_db} in ascending order"
            )

    @property
    def enabled(self) -> bool:
        """True if some utterances are padded or joined."""
        return self.probability > 0 or self.join_probability > 0

    def summary(self) -> str:
        """A short description for the log."""
        if not self.enabled:
            return "no silence added (--data.silence.probability)"
        low, high = self.noise_db
        return (
            f"silence of up to {self.max_pause:g} s around {self.probability:.0%} of them, {self.join_probability:.0%} "
            f"joined, with noise at {low:g} to {high:g} dB, from epoch {self.first_epoch} on"
        )


class WithSilence:
    """A lazy manifest in which some cuts are joined and some have silence around them.

    Args:
        cuts: cuts in random order, because neighbours are joined.
        config: silence options.
        seed: random seed; another one for each epoch.
        fits: returns True if a cut can be used for training; others are not made.
    """

    def __init__(self, cuts: CutSet, config: SilenceConfig, seed: str, fits: Callable[[Cut], bool]) -> None:
        self._cuts = cuts
        self._config = config
        self._seed = seed
        self._fits = fits

    def __iter__(self) -> Iterator[Cut]:
        rng = random.Random(self._seed)
        for cut in self._joined(rng):
            padded = cut
            if rng.random() < self._config.probability:
                padded = self._pad(self._pad(cut, "left", rng), "right", rng)
            yield padded if self._fits(padded) else cut

    def _joined(self, rng: random.Random) -> Iterator[Cut]:
        held: Cut | None = None
        for cut in self._cuts:
            if held is not None:
                # A feature matrix has one sample rate.
                if rng.random() < self._config.join_probability and held.sampling_rate == cut.sampling_rate:
                    joined = self._pad(held, "right", rng).append(cut).with_id(f"{held.id}+{cut.id}")
                    if self._fits(joined):
                        held = joined
                        continue
                yield held
            held = cut
        if held is not None:
            yield held

    def _pad(self, cut: Cut, direction: str, rng: random.Random) -> Cut:
        seconds = rng.uniform(0, self._config.max_pause)
        noise = [rng.uniform(*self._config.noise_db), rng.randrange(100 * _NOISE_SECONDS)]
        if direction == "left":
            duration = cut.duration + round(seconds, 2)
        else:
            # Rounded up to a whole frame, so that features and audio are joined at the same place.
            duration = math.ceil(round(100 * (cut.duration + seconds), 6)) / 100
        return cut.pad(
            round(duration, 8),
            pad_feat_value=SILENCE,
            direction=direction,
            preserve_id=True,
            pad_value_dict={_NOISE: noise},
        )


class WhiteNoise:
    """Adds white noise to the silence in loaded or computed features. It draws no random numbers."""

    def __init__(self, extractor: FbankExtractor) -> None:
        samples = torch.randn(
            _NOISE_SECONDS * extractor.options.sample_rate, generator=torch.Generator().manual_seed(0)
        )
        self._energies = extractor.extract(samples).exp()  # (T, F), at 0 dB

    def fill(self, features: Tensor, cut: Cut) -> None:
        """Add noise to the silence in the features (T, F) of ``cut``, in place."""
        for track in cut.tracks if isinstance(cut, MixedCut) else ():
            if not isinstance(track.cut, PaddingCut) or _NOISE not in (track.cut.custom or {}):
                continue
            level, first = track.cut.custom[_NOISE]
            begin = compute_num_frames(track.offset, 0.01, cut.sampling_rate)
            silence = features[begin : round(100 * (track.offset + track.cut.duration))]  # (t, F)
            noise = self._energies[torch.arange(first, first + len(silence)) % len(self._energies)]
            silence[:] = (silence.exp() - _FLOOR + 10 ** (level / 10) * noise).clamp(min=_FLOOR).log()
