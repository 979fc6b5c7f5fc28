"""Everything that a training run can be told."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from summarymix.chunking import ChunkConfig, DynamicChunkConfig
from summarymix.data.config import DataConfig
from summarymix.model import LossOptions, ModelConfig
from summarymix.training.precision import Precision
from summarymix.training.schedule import LossScales, OptimConfig


@dataclass
class TrainConfig:
    """A training run.

    Args:
        exp_dir: folder of checkpoints and logs. The same command with the same folder continues a run that was stopped.
        init_from: start a new run from the weights of another one (fine-tuning): a checkpoint, for its weights as they
            are, or the folder of a run, for the weights that decoding uses. Optimiser and schedules begin anew; the
            normalisation of features is taken along. In an exp_dir with checkpoints the run continues from those.
        reinit_vocab: with init_from, take another token table: weights of tokens that both tables have are taken
            along, those of others begin anew.
        seed: of weights, batches, augmentation, chunk sizes and dropout.
        num_epochs: passes over the training data.
        max_steps: end earlier, after so many optimiser steps.
        precision: of the model; the loss is always computed in float32. fp16 takes a GPU.
        accumulate: batches whose gradients are summed before a step, on each process.
        scan_memory: before training, find out whether the largest batches fit into memory; null: on a GPU.
        model: sizes of the network; model.vocab_size 0 is taken from the token table.
        data: where the data is, how it is batched and augmented.
        chunk: distribution of chunk size and left context, drawn for each batch.
        loss: options of the pruned RNN-T loss.
        scales: weights of the losses.
        optim: learning rate, its schedule, and the optimiser.
        validation: fixed settings for the losses on the dev data: pairs of chunk in ms (null: offline) and left context
            in chunks (-1: unlimited).
        valid_every_steps: validate every so many steps as well as at the end of each epoch.
        save_every_steps: also save within epochs; only the newest of these checkpoints is kept.
        keep_last_k: keep the checkpoints of this many last epochs. Averaging over avg epochs takes more than avg.
        keep_best_k: and of this many epochs with the lowest dev loss, mean of the validation settings.
        average_period: steps between two samples of the running mean of the weights.
        log_every_steps: steps between two lines of the log.
        tensorboard: write tensorboard events into exp_dir/tensorboard.
        max_bad_steps: stop after so many steps in a row without a finite gradient.
        divergence_patience: stop after so many steps in a row in which the smoothed loss was far above its best; null:
            never.
    """

    exp_dir: Path = Path("exp")
    init_from: Path | None = None
    reinit_vocab: bool = False
    seed: int = 42
    num_epochs: int = 30
    max_steps: int | None = None
    precision: Precision = "fp32"
    accumulate: int = 1
    scan_memory: bool | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    chunk: DynamicChunkConfig = field(default_factory=DynamicChunkConfig)
    loss: LossOptions = field(default_factory=LossOptions)
    scales: LossScales = field(default_factory=LossScales)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: list[tuple[int | None, int]] = field(default_factory=lambda: [(None, -1), (640, -1), (320, 2)])
    valid_every_steps: int | None = None
    save_every_steps: int = 1000
    keep_last_k: int = 20
    keep_best_k: int = 5
    average_period: int = 100
    log_every_steps: int = 50
    tensorboard: bool = True
    max_bad_steps: int = 10
    divergence_patience: int | None = 500

    def __post_init__(self) -> None:
        counts = ("num_epochs", "accumulate", "save_every_steps", "keep_last_k", "average_period", "log_every_steps")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} must be at least 1")
        if self.divergence_patience is not None and self.divergence_patience < 1:
            raise ValueError(f"--divergence_patience {self.divergence_patience} must be at least 1, or null")
        if self.optim.name == "auto":
            is_zipformer = self.model.encoder == "zipformer"
            self.optim = replace(self.optim, name="scaled_adam" if is_zipformer else "muon")
        if self.reinit_vocab and self.init_from is None:
            raise ValueError("--reinit_vocab is for fine-tuning: give --init_from as well")
        if not self.validation or not self.data.dev:
            raise ValueError("--validation and --data.dev need at least one entry: they choose the best checkpoints")
        for setting in self.validation:
            ChunkConfig.from_ms(*setting)
