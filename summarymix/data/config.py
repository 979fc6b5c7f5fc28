"""The options ``--data.*``: what is read, what of it is left out, and how it is batched."""

from dataclasses import dataclass, field

from lhotse import CutSet
from lhotse.cut import Cut

from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.features import FbankOptions, FeatureBackend
from summarymix.data.manifests import cuts_path, read_cuts
from summarymix.data.noise import NoiseConfig
from summarymix.data.shar import index_location, read_shar
from summarymix.data.silence import SilenceConfig


@dataclass
class DataConfig:
    """What is read, what of it is left out, and how it is batched."""

    prefix: str = "mini"
    """Name of the corpus in the names of its manifests."""
    manifest_dir: str = "data/fbank"
    """Folder of the manifests {prefix}_cuts_{split}.jsonl.gz."""
    shar_dir: str | None = None
    """Folder or URL of the splits as local/export_shar.py writes them, read instead of manifest_dir."""
    lang_dir: str = "data/lang"
    """Folder of bpe.model and tokens.txt."""
    train: list[str] = field(default_factory=lambda: ["train"])
    """Splits to train on."""
    dev: list[str] = field(default_factory=lambda: ["dev"])
    """Splits to validate on."""

    max_duration: float = 200.0
    """Seconds of audio in a batch, for each process."""
    num_buckets: int = 30
    """Groups of similar duration from which batches are drawn; fewer if there are fewer cuts."""
    shuffle_buffer: int = 20000
    """Cuts held ready for drawing. Larger shuffles better and needs more memory."""
    num_workers: int = 2
    """Processes that load data; 0 loads in the main process. It does not change the batches."""

    on_the_fly: bool = False
    """Compute features from the audio while training, instead of reading those of the manifests."""
    feature_backend: FeatureBackend = "lhotse"
    """What computes features on the fly."""
    sample_rate: int = 16000
    """Sample rate of the audio in Hz; on the fly, other audio is resampled to it."""
    num_mel_bins: int = 80
    """Number of features."""

    min_seconds: float = 0.3
    """Shorter utterances are not trained on."""
    max_seconds: float = 20.0
    """Longer utterances are not trained on."""
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    """Masking of features in training."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise mixed into the training utterances."""
    silence: SilenceConfig = field(default_factory=SilenceConfig)
    """Silence around the training utterances, and between some that are joined."""

    def fbank_options(self) -> FbankOptions:
        """The features' definition."""
        return FbankOptions(self.sample_rate, self.num_mel_bins, self.feature_backend)

    def location(self, split: str) -> str:
        """Where the cuts of a split are."""
        if self.shar_dir is not None:
            return index_location(self.shar_dir, split)
        return str(cuts_path(self.manifest_dir, self.prefix, split))

    def read_cuts(self, split: str) -> CutSet:
        """Open the cuts of a split lazily.

        Raises:
            FileNotFoundError: there is no such split.
            ValueError: it has been exported without what is needed.
        """
        if self.shar_dir is not None:
            return read_shar(self.shar_dir, split, "recording" if self.on_the_fly else "features")
        return read_cuts(cuts_path(self.manifest_dir, self.prefix, split))

    def num_frames(self, cut: Cut) -> int:
        """The feature frames that a cut has, or will have when they are computed."""
        if not self.on_the_fly and cut.has_features:
            return cut.num_frames
        return self.fbank_options().num_frames(round(cut.duration * self.sample_rate))
