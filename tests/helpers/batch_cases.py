"""Training data of the tiny corpus from the fixture ``prepare``."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from lhotse.cut import Cut

from summarymix.data.config import DataConfig
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import TrainData
from summarymix.encoder.subsampling import output_lengths


def config_for(fbank: Path, **options) -> DataConfig:
    options = {"max_duration": 8.0, "num_buckets": 3, "num_workers": 0, "min_seconds": 0.0, **options}
    return DataConfig(prefix="tiny", manifest_dir=str(fbank), **options)


def train_data(fbank: Path, tokenizer: Tokenizer, seed: int = 0, **options) -> TrainData:
    skipped_path = fbank.parent / "exp" / "skipped-train.tsv"
    return TrainData(config_for(fbank, **options), tokenizer, output_lengths, seed, skipped_path)


def tiny_cuts(fbank: Path) -> list[Cut]:
    return list(read_cuts(cuts_path(fbank, "tiny", "train")))


def rewrite(fbank: Path, change: Callable[[list[Cut]], None]) -> None:
    """Edit the cuts of the manifest with ``change``."""
    cuts = tiny_cuts(fbank)
    change(cuts)
    write_manifest(cuts, cuts_path(fbank, "tiny", "train"))


def ids(batches: Iterable[Batch]) -> list[list[str]]:
    return [batch.cut_ids for batch in batches]


def assert_same(ones: Iterable[Batch], others: Iterable[Batch]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert (one.cut_ids, one.texts, one.tokens) == (other.cut_ids, other.texts, other.tokens)
        assert all(torch.equal(view, same) for view, same in zip(one.views, other.views, strict=True))
        assert torch.equal(one.feature_lengths, other.feature_lengths)
