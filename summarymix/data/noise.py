"""Noise mixed into training utterances: lhotse's CutMix, with random numbers of its own for each batch."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, MixTrack
from lhotse.dataset import CutMix
from lhotse.utils import fastcopy

from summarymix.data.cuts import utterances
from summarymix.data.manifests import read_cuts


@dataclass
class NoiseConfig:
    """Noise to train with."""

    manifest: str | None = None
    """Cuts of noise, such as data/fbank/musan_cuts.jsonl.gz; null: none is mixed in."""
    probability: float = 0.5
    """Part of the utterances that get noise."""
    snr: tuple[float, float] = (10.0, 20.0)
    """Lowest and highest ratio of the utterance's energy to that of its noise, in dB."""

    def summary(self) -> str:
        """What is mixed in, in a few words."""
        if self.manifest is None:
            return "no noise mixed in (--data.noise.manifest)"
        low, high = self.snr
        return f"noise of {self.manifest} in {self.probability:.0%} of them, {low:g} to {high:g} dB below"


class NoiseMixer:
    """Mixes noise into batches of cuts: their manifests only, the data are mixed when they are loaded."""

    def __init__(self, config: NoiseConfig, seed: int, on_the_fly: bool, sample_rate: int, num_features: int) -> None:
        """
        Args:
            config: what to mix, with ``config.manifest`` given.
            seed: of what is drawn.
            on_the_fly: whether audio is mixed, or else stored features: their energies are added, which is what the
                audio's would be without interference, and the ratio is that of the energies in the filter bank.
            sample_rate: to which audio is resampled in Hz.
            num_features: of the utterances.

        Raises:
            FileNotFoundError: there is no such manifest.
            ValueError: it is empty or lacks what is to be mixed, or an option is out of range.
        """
        assert config.manifest is not None
        low, high = config.snr
        if not 0 <= config.probability <= 1 or low > high:
            raise ValueError(
                f"--data.noise.probability {config.probability} has to lie in 0…1, and "
                f"--data.noise.snr [{low}, {high}] has to be a range"
            )
        path = Path(config.manifest)
        if not path.is_file():
            raise FileNotFoundError(
                f"No manifest of noise {path}: run ./prepare.sh --musan true, correct --data.noise.manifest, or leave "
                "it out to train without noise"
            )
        self._config = config
        self._seed = seed
        self._on_the_fly = on_the_fly
        self._sample_rate = sample_rate
        # Transcripts are those of the utterances, whatever is said in the background.
        self._noise: list[Cut] = [cut.drop_supervisions() for cut in read_cuts(path)]
        if not self._noise:
            raise ValueError(f"{path} is empty: prepare the noise anew, or leave --data.noise.manifest out")
        if on_the_fly:
            self._noise = [cut.drop_features() for cut in self._noise]
        elif unfit := next((cut for cut in self._noise if cut.num_features != num_features), None):
            raise ValueError(
                f"The noise {unfit.id} of {path} has {unfit.num_features or 'no'} features instead of {num_features}: "
                "compute them with local/compute_fbank.py --noise-windows 10, or set --data.on_the_fly true"
            )

    def mix(self, cuts: CutSet, epoch: int, batch: int) -> CutSet:
        """The batch with noise in some of its cuts, whose ids, durations and transcripts stay.

        What is drawn depends on the seed, ``epoch`` and ``batch``, the number of the batch, alone.
        """
        rng = random.Random(f"{self._seed} {epoch} {batch}")
        # CutMix shuffles all its noise for each batch. This is enough for cuts four times as long as the noise, and
        # for longer ones it is used again.
        noise = rng.sample(self._noise, min(len(self._noise), 4 * len(cuts)))
        if self._on_the_fly:
            cuts = cuts.map(self._audio_alone)
            noise = [self._resampled(cut) for cut in noise]
        mix = CutMix(
            CutSet.from_cuts(noise),
            snr=self._config.snr,
            p=self._config.probability,
            pad_to_longest=False,
            preserve_id=True,
            seed=rng,
        )
        return mix(cuts) if self._on_the_fly else mix(cuts).map(_by_mean_energy).to_eager()

    def _audio_alone(self, cut: Cut) -> Cut:
        return self._resampled(cut.drop_features())

    def _resampled(self, cut: Cut) -> Cut:
        return cut if cut.sampling_rate == self._sample_rate else cut.resample(self._sample_rate)


def _by_mean_energy(cut: Cut) -> Cut:
    """Mend the ratios of stored features, which lhotse takes of sums over frames: half as much noise, twice as loud."""
    if not isinstance(cut, MixedCut):
        return cut
    reference = utterances(cut)[0]

    def mended(track: MixTrack) -> MixTrack:
        if track.snr is None:
            return track
        return fastcopy(track, snr=track.snr + 10 * math.log10(reference.num_frames / track.cut.num_frames))

    return fastcopy(cut, tracks=[mended(track) for track in cut.tracks])
