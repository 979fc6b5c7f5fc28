"""Silence around training utterances, and utterances joined with pauses, for recognition of long recordings.

Corpus utterances are tightly trimmed. A model trained only on them misrecognises the pauses of a recording. Silence is
planned before utterances are batched, so that batches have the intended duration, and added to lhotse's cuts when they
are loaded.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.utils import compute_num_frames
from numpy.typing import NDArray
from torch import Tensor

from summarymix.data.features import ENERGY_FLOOR, SILENCE, FbankExtractor

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


@dataclass
class Utterances:
    """The utterances of an epoch: cuts one after another, some of them joined, some with silence.

    Args:
        cuts: numbers of the cuts, (n,).
        first: place in ``cuts`` of the first cut of each utterance, and the end, (m + 1,).
        seconds: durations, silence included, (m,).
        pauses: seconds of silence after each cut, if another one follows in its utterance, (n,).
        padding: seconds of silence before and after each utterance, (m, 2); NaN for none.
    """

    cuts: NDArray[np.int32]
    first: NDArray[np.int32]
    seconds: NDArray[np.float64]
    pauses: NDArray[np.float64] | None = None
    padding: NDArray[np.float64] | None = None

    @classmethod
    def plain(cls, cuts: NDArray[np.int32], seconds: NDArray[np.float64]) -> "Utterances":
        """One utterance for each cut."""
        return cls(cuts, np.arange(len(cuts) + 1, dtype=np.int32), seconds)

    def cuts_of(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """The cuts in some utterances."""
        first, sizes = self.first[numbers], self.first[numbers + 1] - self.first[numbers]
        ends = np.cumsum(sizes)
        return self.cuts[np.repeat(first - ends + sizes, sizes) + np.arange(sizes.sum())]

    def select(self, numbers: NDArray[np.int32]) -> "list[Utterance]":
        """Some of the utterances."""
        if self.pauses is None or self.padding is None:
            return [Utterance([cut]) for cut in self.cuts[numbers].tolist()]
        selected = []
        for number in numbers.tolist():
            part = slice(self.first[number], self.first[number + 1])
            padding = None if np.isnan(self.padding[number, 0]) else self.padding[number].tolist()
            selected.append(Utterance(self.cuts[part].tolist(), self.pauses[part][:-1].tolist(), padding))
        return selected


class Utterance(NamedTuple):
    """One of :class:`Utterances`: numbers of cuts, seconds between them, seconds before and after."""

    cuts: list[int]
    pauses: Sequence[float] = ()
    padding: Sequence[float] | None = None


class Sizes(NamedTuple):
    """Columns of an index that decide which cuts can be joined."""

    seconds: NDArray[np.float64]
    needed: NDArray[np.int32]  # encoder frames
    first: NDArray[np.int32]  # tokens
    last: NDArray[np.int32]
    sample_rate: NDArray[np.int32]


def plan_silence(
    cuts: NDArray[np.int32],
    sizes: Sizes,
    config: SilenceConfig,
    fits: Callable[[NDArray[np.float64], NDArray[np.int32]], NDArray[np.bool_]],
    rng: np.random.Generator,
) -> Utterances:
    """Join neighbouring cuts, and put silence around some utterances.

    Args:
        cuts: numbers of the cuts in random order, (n,).
        sizes: their sizes, each (n,).
        config: silence options.
        fits: tells by seconds and needed encoder frames which utterances can be used for training; others are not made.
        rng: random numbers.
    """
    pauses = rng.uniform(0, config.max_pause, len(cuts))
    joins = rng.random(len(cuts)) < config.join_probability  # to the cut before
    joins[1:] &= sizes.sample_rate[1:] == sizes.sample_rate[:-1]  # a feature matrix has one sample rate
    # The utterance that would begin at each cut, for all cuts at a time.
    seconds, needed, end = sizes.seconds.copy(), sizes.needed.copy(), np.arange(1, len(cuts) + 1)
    growing = np.arange(len(cuts))
    while len(growing):
        growing = growing[end[growing] < len(cuts)]
        growing = growing[joins[end[growing]]]
        added = end[growing]
        longer = np.round(_whole_frames(seconds[growing] + pauses[added - 1]) + sizes.seconds[added], 8)
        repeats = sizes.last[added - 1] == sizes.first[added]  # CTC needs a blank between equal tokens
        more = needed[growing] + sizes.needed[added] + repeats
        fit = fits(longer, more)
        growing = growing[fit]
        seconds[growing], needed[growing] = longer[fit], more[fit]
        end[growing] += 1
    begins, ends, begin = [], end.tolist(), 0
    while begin < len(cuts):
        begins.append(begin)
        begin = ends[begin]
    seconds, needed = seconds[begins], needed[begins]
    padding = rng.uniform(0, config.max_pause, (len(begins), 2))
    padding[:, 0] = np.round(padding[:, 0], 2)
    padded = _whole_frames(seconds + padding.sum(1))
    chosen = (rng.random(len(begins)) < config.probability) & fits(padded, needed)
    padding[~chosen] = np.nan
    first = np.array([*begins, len(cuts)], np.int32)
    return Utterances(cuts, first, np.where(chosen, padded, seconds), pauses, padding)


def with_silence(utterance: Utterance, cuts: Sequence[Cut], config: SilenceConfig, rng: random.Random) -> Cut:
    """Make an utterance of its cuts.

    Args:
        utterance: its silence.
        cuts: its cuts.
        config: silence options.
        rng: random numbers for the noise in the silence.
    """
    joined = cuts[0]
    for pause, cut in zip(utterance.pauses, cuts[1:], strict=True):
        joined = _pad(joined, "right", pause, config, rng).append(cut).with_id(f"{joined.id}+{cut.id}")
    if utterance.padding is None:
        return joined
    before, after = utterance.padding
    return _pad(_pad(joined, "left", before, config, rng), "right", after, config, rng)


def _pad(cut: Cut, direction: str, seconds: float, config: SilenceConfig, rng: random.Random) -> Cut:
    noise = [rng.uniform(*config.noise_db), rng.randrange(100 * _NOISE_SECONDS)]
    duration = cut.duration + seconds
    # On the right up to a whole frame, so that features and audio are joined at the same place.
    duration = round(duration if direction == "left" else float(_whole_frames(duration)), 8)
    return cut.pad(
        duration, pad_feat_value=SILENCE, direction=direction, preserve_id=True, pad_value_dict={_NOISE: noise}
    )


def _whole_frames(seconds: Any) -> Any:
    return np.ceil(np.round(100 * seconds, 6)) / 100


class WhiteNoise:
    """Adds white noise to the silence in loaded or computed features. It draws no random numbers."""

    def __init__(self, extractor: FbankExtractor) -> None:
        samples = torch.randn(
            _NOISE_SECONDS * extractor.options.sample_rate, generator=torch.Generator().manual_seed(0)
        )
        self._energies = extractor.extract(samples)[: 100 * _NOISE_SECONDS].exp()  # (T, F), at 0 dB

    def fill(self, features: Tensor, cut: Cut) -> None:
        """Add noise to the silence in the features (T, F) of ``cut``, in place."""
        for track in cut.tracks if isinstance(cut, MixedCut) else ():
            if not isinstance(track.cut, PaddingCut) or _NOISE not in (track.cut.custom or {}):
                continue
            level, first = track.cut.custom[_NOISE]
            begin = compute_num_frames(track.offset, 0.01, cut.sampling_rate)
            silence = features[begin : round(100 * (track.offset + track.cut.duration))]  # (t, F)
            noise = self._energies[torch.arange(first, first + len(silence)) % len(self._energies)]
            silence[:] = (silence.exp() - ENERGY_FLOOR + 10 ** (level / 10) * noise).clamp(min=ENERGY_FLOOR).log()
