"""The options ``--data.*``: reading, filtering and batching of the data."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lhotse.cut import Cut
from numpy.typing import ArrayLike, NDArray

from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.features import FbankOptions, FeatureBackend
from summarymix.data.manifests import CutManifest, CutSource, check_manifest, cuts_path
from summarymix.data.names import check_name
from summarymix.data.noise import NoiseConfig
from summarymix.data.remote_files import is_remote
from summarymix.data.shar import index_location, read_shar
from summarymix.data.silence import SilenceConfig


@dataclass
class DataConfig:
    """Reading, filtering and batching of the data."""

    prefix: str = "mini"
    """Name of the corpus in the names of its manifests."""
    manifest_dir: str = "data/fbank"
    """Folder of the manifests {prefix}_cuts_{split}.jsonl.gz."""
    shar_dir: str | None = None
    """Folder or URL of an export by local/export_shar.py, read instead of manifest_dir."""
    lang_dir: str = "data/lang"
    """Folder of bpe.model and tokens.txt."""
    train: list[str] = field(default_factory=lambda: ["train"])
    """Splits to train on."""
    dev: list[str] = field(default_factory=lambda: ["dev"])
    """Splits to validate on."""

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

    min_seconds: float = 0.3
    """Shortest training utterance in seconds."""
    max_seconds: float = 20.0
    """Longest training utterance in seconds."""
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    """Masking of features in training."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise mixed into the training utterances."""
    silence: SilenceConfig = field(default_factory=SilenceConfig)
    """Silence around training utterances, and between joined ones."""

    def fbank_options(self) -> FbankOptions:
        """The definition of the features."""
        return FbankOptions(self.sample_rate, self.num_mel_bins, self.feature_backend)

    def location(self, split: str) -> str:
        """The path or URL of a split's cuts."""
        if self.shar_dir is not None:
            return index_location(self.shar_dir, split)
        return str(cuts_path(self.manifest_dir, self.prefix, split))

    def index_dir(self, split: str) -> Path | None:
        """The folder of a split's index; None for remote cuts."""
        if self.shar_dir is None:
            path = cuts_path(self.manifest_dir, self.prefix, split)
            return path.with_name(path.name.replace(".jsonl.gz", ".index"))
        return None if is_remote(self.shar_dir) else Path(self.shar_dir) / f"{check_name(split, 'the split')}.index"

    def source(self, split: str) -> CutSource:
        """Open the cuts of a split lazily.

        Raises:
            FileNotFoundError: the split does not exist.
            ValueError: the Shar export lacks the features, or with on_the_fly the audio.
        """
        if self.shar_dir is not None:
            return read_shar(self.shar_dir, split, "recording" if self.on_the_fly else "features")
        return CutManifest(check_manifest(cuts_path(self.manifest_dir, self.prefix, split)))

    def num_frames(self, cut: Cut) -> int:
        """Number of feature frames of a cut, stored or to be computed."""
        return int(self.frames(cut.duration, cut.num_frames if cut.has_features else -1))

    def frames(self, seconds: ArrayLike, stored: ArrayLike) -> NDArray[np.int64]:
        """Number of feature frames of each cut, stored or to be computed.

        Args:
            seconds: durations.
            stored: numbers of stored frames; -1 without features.
        """
        samples = np.rint(np.multiply(seconds, self.sample_rate)).astype(np.int64)
        computed = self.fbank_options().num_frames(samples)
        return np.where(self.on_the_fly | (np.less(stored, 0)), computed, stored)
