"""The options ``--data.*``: reading, filtering and batching of the data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from lhotse.cut import Cut
from numpy.typing import ArrayLike, NDArray

from summarymix.configs import check_least
from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.features import FbankOptions, FeatureBackend
from summarymix.data.manifests import CutManifest, CutSource, check_manifest, cuts_path
from summarymix.data.names import check_name
from summarymix.data.noise import NoiseConfig
from summarymix.data.remote_files import is_remote
from summarymix.data.shar import index_location, read_shar
from summarymix.data.silence import SilenceConfig


@dataclass
class CorpusConfig:
    """A corpus to train on: its manifests and splits."""

    prefix: str
    """Name of the corpus in the names of its manifests."""
    dir: str = "."
    """Folder of its recipe, in which the paths of its manifests and Shar exports, and those in them, begin."""
    manifest_dir: str = "data/fbank"
    """Folder of the manifests {prefix}_cuts_{split}.jsonl.gz."""
    shar_dir: str | None = None
    """Folder or URL of an export by local/export_shar.py, read instead of manifest_dir."""
    train: list[str] = field(default_factory=lambda: ["train"])
    """Splits to train on."""
    dev: list[str] = field(default_factory=lambda: ["dev"])
    """Splits to validate on."""
    weight: float = 1.0
    """Passes over its training data in an epoch: 2 for two, 0.1 for a tenth in turn."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"The weight of {self.prefix} is {self.weight:g}: it must be above 0")

    def location(self, split: str) -> str:
        """The path or URL of a split's cuts."""
        if self.shar_dir is not None:
            return index_location(self._in_dir(self.shar_dir), split)
        return str(cuts_path(self._in_dir(self.manifest_dir), self.prefix, split))

    def index_dir(self, split: str) -> Path | None:
        """The folder of a split's index; None for remote cuts."""
        if self.shar_dir is None:
            path = Path(self.location(split))
            return path.with_name(path.name.replace(".jsonl.gz", ".index"))
        if is_remote(self.shar_dir):
            return None
        return Path(self._in_dir(self.shar_dir)) / f"{check_name(split, 'the split')}.index"

    def source(self, split: str, data: Literal["recording", "features"]) -> CutSource:
        """Open the cuts of a split lazily.

        Args:
            split: its name.
            data: what will be read of the cuts.

        Raises:
            FileNotFoundError: the split does not exist.
            ValueError: the Shar export lacks the data.
        """
        if self.shar_dir is not None:
            return read_shar(self._in_dir(self.shar_dir), self.prefix, split, data)
        return CutManifest(check_manifest(self.location(split)), self.dir)

    def _in_dir(self, place: str) -> str:
        return place if is_remote(place) else str(Path(self.dir, place))


@dataclass
class DataConfig(CorpusConfig):
    """Reading, filtering and batching of the data of the recipe's corpus, and of others.

    Splits of other corpora are named ``SPLIT@PREFIX``.
    """

    prefix: str = "mini"
    corpora: list[CorpusConfig] = field(default_factory=list)
    """Other corpora to train and validate on."""
    lang_dir: str = "data/lang"
    """Folder of bpe.model and tokens.txt."""

    max_duration: float = 200.0
    """Seconds of audio in a batch, per process."""
    num_buckets: int = 30
    """Duration buckets from which batches are drawn; fewer if there are fewer cuts."""
    num_workers: int = 2
    """Processes that load data; 0 loads in the main process. The batches do not depend on it."""

    on_the_fly: bool = False
    """Compute features from the audio during training, instead of reading stored features."""
    feature_backend: FeatureBackend = "lhotse"
    """Backend that computes features on the fly."""
    sample_rate: int = 16000
    """Sample rate of the audio in Hz; with on_the_fly, other audio is resampled to it."""
    num_mel_bins: int = 80
    """Mel bins of the features."""

    tail_frames: int = 0
    """Feature frames (10 ms) of silence behind every utterance, in training and recognition. A token takes an encoder
    frame (40 ms), so tightly trimmed words may need more frames than they have."""
    min_seconds: float = 0.1
    """Shortest training utterance in seconds."""
    max_seconds: float = 20.0
    """Longest training utterance in seconds."""
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    """Masking of features in training."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise mixed into the training utterances."""
    silence: SilenceConfig = field(default_factory=SilenceConfig)
    """Silence around training utterances, and between joined ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, "data.", num_buckets=1, num_workers=0, sample_rate=1, num_mel_bins=1, tail_frames=0)
        if not self.max_duration > 0:
            raise ValueError(f"--data.max_duration {self.max_duration:g} must be above 0")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"--data.min_seconds {self.min_seconds:g} must be 0 or more, and --data.max_seconds "
                f"{self.max_seconds:g} no less than it"
            )
        prefixes = [self.prefix, *(corpus.prefix for corpus in self.corpora)]
        if repeated := next((prefix for prefix in prefixes if prefixes.count(prefix) > 1), None):
            raise ValueError(f"Two corpora have the prefix {repeated}: prepare one of them with another --prefix")

    def fbank_options(self) -> FbankOptions:
        """The definition of the features."""
        return FbankOptions(self.sample_rate, self.num_mel_bins, self.feature_backend, self.tail_frames)

    def train_splits(self) -> list[str]:
        """The training splits of all corpora."""
        return [*self.train, *(f"{split}@{corpus.prefix}" for corpus in self.corpora for split in corpus.train)]

    def dev_splits(self) -> list[str]:
        """The dev splits of all corpora."""
        return [*self.dev, *(f"{split}@{corpus.prefix}" for corpus in self.corpora for split in corpus.dev)]

    def find(self, split: str) -> tuple[CorpusConfig, str]:
        """The corpus of a split, and the name of the split in it.

        Raises:
            ValueError: there is no such corpus.
        """
        name, _, prefix = split.partition("@")
        corpora: list[CorpusConfig] = [self, *self.corpora] if prefix else [self]
        for corpus in corpora:
            if corpus.prefix == (prefix or self.prefix):
                return corpus, name
        known = ", ".join(corpus.prefix for corpus in corpora)
        raise ValueError(f"{split}: the model's corpora are {known}; {prefix} is none of them (see --data.corpora)")

    def open(self, split: str) -> CutSource:
        """Open the cuts of a split of any corpus lazily.

        Raises:
            FileNotFoundError: the split does not exist.
            ValueError: there is no such corpus, or the Shar export lacks the features, or with on_the_fly the audio.
        """
        corpus, name = self.find(split)
        return corpus.source(name, "recording" if self.on_the_fly else "features")

    def location_of(self, split: str) -> str:
        """The path or URL of the cuts of a split of any corpus."""
        corpus, name = self.find(split)
        return corpus.location(name)

    def check_features(self, cut: Cut, split: str) -> None:
        """Check that stored features have the configured mel bins and sample rate.

        Args:
            cut: a cut of the split, of which all have the same kind of features.
            split: name of the split.

        Raises:
            ValueError: they differ.
        """
        found = None if self.on_the_fly or not cut.has_features else (cut.num_features, cut.sampling_rate)
        if found is not None and found != (self.num_mel_bins, self.sample_rate):
            raise ValueError(
                f"{self.location_of(split)} has features with {found[0]} mel bins at {found[1]} Hz, the model needs "
                f"{self.num_mel_bins} at {self.sample_rate} Hz: prepare the corpus with these, or correct "
                "--data.num_mel_bins and --data.sample_rate"
            )

    def num_frames(self, cut: Cut) -> int:
        """Number of feature frames of a cut, stored or to be computed, and of its tail."""
        return int(self.frames(cut.duration, cut.num_frames if cut.has_features else -1))

    def frames(self, seconds: ArrayLike, stored: ArrayLike) -> NDArray[np.int64]:
        """Number of feature frames of each cut, stored or to be computed, and of its tail.

        Args:
            seconds: durations.
            stored: numbers of stored frames; -1 without features.
        """
        samples = np.rint(np.multiply(seconds, self.sample_rate)).astype(np.int64)
        computed = self.fbank_options().num_frames(samples)
        return np.where(self.on_the_fly | (np.less(stored, 0)), computed, np.add(stored, self.tail_frames))
