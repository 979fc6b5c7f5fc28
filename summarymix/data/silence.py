"""Silence around training utterances, and utterances joined with pauses, for models that will hear long recordings.

Utterances of a corpus are cut closely. A model that has heard nothing else takes the pauses of a recording for
something that it is not. Both are done with lhotse's cuts: what is drawn is in the manifests before batches are made
of them, so that batches have the duration that they are meant to have.
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

# The features of digital silence are the logarithm of this: no energy is less. (lhotse pads with log(1e-10), which no
# audio has.)
_FLOOR = torch.finfo(torch.float32).eps
SILENCE = math.log(_FLOOR)
_NOISE_SECONDS = 10
_NOISE = "white_noise"  # in the custom data of a silence: its level in dB and the first frame


@dataclass
class SilenceConfig:
    """Silence to train with."""

    probability: float = 0.0
    """Part of the utterances, joined or not, that get silence before and after."""
    join_probability: float = 0.0
    """Part of the utterances that are joined to the one before, with silence in between, as long as the whole lasts no
    longer than data.max_seconds."""
    max_pause: float = 1.0
    """Longest silence in seconds; all lengths from 0 on are as likely."""
    first_epoch: int = 1
    """Epoch from which on silence is added. Little data may not be enough for a model to learn from long utterances; it
    learns what silence is once it knows words."""
    noise_db: tuple[float, float] = (-100.0, -50.0)
    """Lowest and highest level of the white noise in it, in dB relative to full scale; at -100 there is hardly any."""

    def __post_init__(self) -> None:
        probabilities = self.probability, self.join_probability
        if not all(0 <= p <= 1 for p in probabilities) or self.max_pause < 0 or self.noise_db[0] > self.noise_db[1]:
            raise ValueError(
                f"--data.silence.probability {self.probability} and join_probability {self.join_probability} have to "
                f"lie in 0…1, max_pause {self.max_pause} has to be 0 or more, and noise_db {self.noise_db} a range"
            )

    @property
    def enabled(self) -> bool:
        """Whether there is anything to do."""
        return self.probability > 0 or self.join_probability > 0

    def summary(self) -> str:
        """What is added, in a few words."""
        if not self.enabled:
            return "no silence added (--data.silence.probability)"
        low, high = self.noise_db
        return (
            f"silence of up to {self.max_pause:g} s around {self.probability:.0%} of them, {self.join_probability:.0%} "
            f"joined, with noise at {low:g} to {high:g} dB, from epoch {self.first_epoch} on"
        )


class WithSilence:
    """Cuts with silence around some and others joined, as a lazy manifest.

    Args:
        cuts: in a random order, because neighbours are joined.
        config: what to add.
        seed: of what is drawn; another one for each epoch.
        fits: whether a cut can be trained on. What would not be is not made.
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
                # The features of one matrix have one sample rate.
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
            # What follows begins with a frame then, and features and audio are joined at the same place.
            duration = math.ceil(round(100 * (cut.duration + seconds), 6)) / 100
        return cut.pad(
            round(duration, 8),
            pad_feat_value=SILENCE,
            direction=direction,
            preserve_id=True,
            pad_value_dict={_NOISE: noise},
        )


class WhiteNoise:
    """Fills silence with its noise, once features have been loaded or computed. It draws no random numbers."""

    def __init__(self, extractor: FbankExtractor) -> None:
        samples = torch.randn(
            _NOISE_SECONDS * extractor.options.sample_rate, generator=torch.Generator().manual_seed(0)
        )
        self._energies = extractor.extract(samples).exp()  # (T, F), of level 0 dB

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
