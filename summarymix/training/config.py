"""Configuration of a training run."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from summarymix.chunking import ChunkConfig, DynamicChunkConfig
from summarymix.configs import check_least
from summarymix.data.config import DataConfig
from summarymix.model import LossConfig, ModelConfig
from summarymix.training.precision import Precision
from summarymix.training.schedule import LossScales, OptimConfig


@dataclass
class TrainConfig:
    """Configuration of a training run."""

    exp_dir: Path = Path("exp")
    """Folder of checkpoints and logs. The same command with the same folder continues a stopped run."""
    init_from: Path | None = None
    """Start a new run from the weights of another one (fine-tuning): a checkpoint, or the folder of a run for the
    weights that decoding uses. Feature normalisation is taken over; optimiser and schedules start afresh. If exp_dir
    has checkpoints, the run continues from them instead."""
    reinit_vocab: bool = False
    """With init_from, accept another token table: tokens in both tables keep their weights, the others are
    initialised."""
    seed: int = 42
    """Seed of weights, batches, augmentation, chunk sizes and dropout."""
    num_epochs: int = 30
    """Passes over the training data."""
    max_steps: int | None = None
    """End after this many optimiser steps, if that is earlier; the learning rate's cosine schedule ends there too.
    Within an epoch, this ends the epoch, too; the same command with more steps, or without this option, continues it
    with another schedule. To pause a run, press Ctrl-C instead: the same command continues it."""
    precision: Precision = "fp32"
    """Precision of the model; the loss is always computed in float32. tf32 is float32 whose products have ten bits of
    mantissa; tf32 and fp16 need a GPU."""
    compile: bool = False
    """Fuse the many small operations of the zip-style encoder's activations, norms and regularisers into a few kernels,
    with torch.compile: for GPUs, which otherwise wait for launches. Needs Triton, or a C++ compiler on a CPU."""
    accumulate: int = 1
    """Batches whose gradients are summed before a step, on each process."""
    scan_memory: bool | None = None
    """Check before training whether the largest batches fit into memory; null: on a GPU, at the start of a run and when
    its options or batches have changed."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Encoder, predictor and joiner."""
    data: DataConfig = field(default_factory=DataConfig)
    """Training and dev data, batches and augmentation."""
    chunk: DynamicChunkConfig = field(default_factory=DynamicChunkConfig)
    """Distribution of chunk size and left context, sampled for each batch."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Pruned RNN-T loss."""
    scales: LossScales = field(default_factory=LossScales)
    """Weights of the losses."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and learning rate schedule."""
    validation: list[tuple[int | None, int]] = field(default_factory=lambda: [(None, -1), (640, -1), (320, 2)])
    """Settings of the losses on the dev data: pairs of chunk in ms (null: offline) and left context in chunks (-1:
    unlimited)."""
    valid_every_steps: int | None = None
    """Steps between validations, in addition to the one after each epoch; null: only after epochs."""
    save_every_steps: int = 1000
    """Steps between checkpoints within an epoch; only the newest of them is kept."""
    keep_last_k: int = 20
    """Number of last epochs whose checkpoints are kept. Averaging over N epochs needs N + 1 of them."""
    keep_best_k: int = 5
    """Number of best epochs whose checkpoints are kept too, by dev loss averaged over the validation settings."""
    average_period: int = 100
    """Steps between samples of the weights' running mean."""
    log_every_steps: int = 50
    """Steps between lines of the log."""
    tensorboard: bool = True
    """Write tensorboard events to exp_dir/tensorboard."""
    max_bad_steps: int = 10
    """Stop after this many steps in a row that were skipped: without a finite gradient, or nothing could be read."""
    divergence_patience: int | None = 500
    """Stop after this many steps in a row with the smoothed loss far above its best; null: never."""

    def __post_init__(self) -> None:
        check_least(self, num_epochs=1, max_steps=1, accumulate=1, valid_every_steps=1, save_every_steps=1)
        check_least(self, keep_last_k=1, keep_best_k=0, average_period=1, log_every_steps=1)
        check_least(self, max_bad_steps=1, divergence_patience=1)
        bins = self.data.num_mel_bins
        if self.model.feature_dim not in (0, bins):
            raise ValueError(
                f"--model.feature_dim {self.model.feature_dim} differs from --data.num_mel_bins {bins}, which the "
                "features have: leave it out, or correct --data.num_mel_bins"
            )
        self.model = replace(self.model, feature_dim=bins)
        if self.optim.name == "auto":
            is_zipformer = self.model.encoder == "zipformer"
            self.optim = replace(self.optim, name="scaled_adam" if is_zipformer else "muon")
        if self.compile and self.model.encoder != "zipformer":
            raise ValueError(
                "--compile fuses operations of the zip-style encoder, and a Conformer has none of them: leave it out"
            )
        if self.reinit_vocab and self.init_from is None:
            raise ValueError("--reinit_vocab only applies to fine-tuning: give --init_from as well")
        if not self.validation or not self.data.dev_splits():
            raise ValueError("--validation and --data.dev need at least one entry: they choose the best checkpoints")
        for setting in self.validation:
            ChunkConfig.from_ms(*setting, option="--validation")
