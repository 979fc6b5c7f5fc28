"""Noise mixed into training utterances: lhotse's CutMix, with a separate random generator for each batch."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, MixTrack
from lhotse.dataset import CutMix
from lhotse.utils import fastcopy

from summarymix.data.cuts import utterances
from summarymix.data.manifests import CutManifest


@dataclass
class NoiseConfig:
    """Noise mixed into training utterances."""

    manifest: str | None = None
    """Manifest of noise cuts, such as data/fbank/musan_cuts.jsonl.gz; null: no noise."""
    probability: float = 0.5
    """Fraction of the utterances that gets noise."""
    snr: tuple[float, float] = (10.0, 20.0)
    """Lowest and highest signal-to-noise ratio in dB."""
    dir: str = "."
    """Folder of the recipe that has prepared the noise, in which the manifest's path, and those in it, begin."""

    def summary(self) -> str:
        """A short description for the log."""
        if self.manifest is None:
            return "no noise mixed in (--data.noise.manifest)"
        low, high = self.snr
        place = Path(self.dir, self.manifest)
        return f"noise from {place} in {self.probability:.0%} of them at {low:g} to {high:g} dB SNR"


class NoiseMixer:
    """Mixes noise into the manifests of a batch; the data are mixed when they are loaded."""

    def __init__(self, config: NoiseConfig, seed: int, on_the_fly: bool, sample_rate: int, num_features: int) -> None:
        """
        Args:
            config: noise options; ``config.manifest`` must be given.
            seed: random seed.
            on_the_fly: True to mix audio, False to mix stored features: their energies are added, which equals mixing
                audio without interference, and the SNR is the ratio of filter-bank energies.
            sample_rate: sample rate in Hz to which audio is resampled.
            num_features: number of features of the utterances.

        Raises:
            FileNotFoundError: the manifest does not exist.
            ValueError: the manifest is empty, its features have another dimension, or an option is out of range.
        """
        assert config.manifest is not None
        low, high = config.snr
        if not 0 <= config.probability <= 1 or low > high:
            raise ValueError(
                f"--data.noise.probability {config.probability} must lie in 0…1, and "
                f"--data.noise.snr [{low}, {high}] must be in ascending order"
            )
        path = Path(config.dir, config.manifest)
        if not path.is_file():
            raise FileNotFoundError(
                f"No manifest of noise {path}: run ./prepare.sh --musan true, correct --data.noise.manifest or "
                "--data.noise.dir, or leave them out to train without noise"
            )
        self._config = config
        self._seed = seed
        self._on_the_fly = on_the_fly
        self._sample_rate = sample_rate
        # Speech in the noise is not part of the transcripts.
        self._noise: list[Cut] = [cut.drop_supervisions() for cut in CutManifest(path, config.dir)]
        if not self._noise:
            raise ValueError(f"{path} is empty: prepare the noise again, or leave out --data.noise.manifest")
        if on_the_fly:
            self._noise = [cut.drop_features() for cut in self._noise]
            return
        wanted = sample_rate, num_features
        if unfit := next((cut for cut in self._noise if (cut.sampling_rate, cut.num_features) != wanted), None):
            raise ValueError(
                f"Noise cut {unfit.id} of {path} has {unfit.num_features or 'no'} features at {unfit.sampling_rate} Hz "
                f"instead of {num_features} at {sample_rate} Hz: compute them with local/compute_fbank.py "
                "--noise-windows 10, or set --data.on_the_fly true"
            )

    def mix(self, cuts: CutSet, epoch: int, batch: int) -> CutSet:
        """Mix noise into some cuts of a batch; their ids, durations and transcripts are kept.

        The random choice depends only on the seed, ``epoch`` and ``batch``, the number of the batch.
        """
        rng = random.Random(f"{self._seed} {epoch} {batch}")
        # A sample, because CutMix shuffles all its noise for each batch. Four noise cuts per cut suffice for cuts four
        # times as long as the noise; longer cuts reuse it.
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
    """Correct the SNR of stored features: lhotse sums energies over frames, so half as much noise is twice as loud."""
    if not isinstance(cut, MixedCut):
        return cut
    reference = utterances(cut)[0]

    def corrected(track: MixTrack) -> MixTrack:
        if track.snr is None:
            return track
        return fastcopy(track, snr=track.snr + 10 * math.log10(reference.num_frames / track.cut.num_frames))

    return fastcopy(cut, tracks=[corrected(track) for track in cut.tracks])
