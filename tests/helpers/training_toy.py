"""A toy task for tests of training: each token is a spectral pattern. As a program, this runs one training.

python training_toy.py EXP_DIR [--die-in-write=N] [--send=SIGNAL --send-in-step=N] [--name=integer of TrainConfig ...]
"""

import itertools
import math
import os
import random
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from summarymix.data.config import DataConfig
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import NO_CUTS, Masks
from summarymix.distributed import join_world
from summarymix.encoder.conformer import ConformerConfig
from summarymix.encoder.zipformer import ZipformerConfig
from summarymix.model import ModelConfig, Transducer
from summarymix.seeding import reseed
from summarymix.training.checkpoint import Progress
from summarymix.training.config import TrainConfig
from summarymix.training.loop import train
from summarymix.training.run import Run
from summarymix.training.schedule import LossScales, OptimConfig

NUM_BINS = 20
LETTERS = "abcde"
EMPTY = Batch(torch.zeros(0, 0, NUM_BINS), torch.zeros(0, dtype=torch.int64), [], [], [], 0.0)
UNREADABLE = replace(EMPTY, num_unreadable=3, num_unreadable_noise=1)
SMALL_ZIP = ZipformerConfig(
    downsampling=(1, 2),
    num_layers=(1, 1),
    dims=(16, 24),
    feedforward_dims=(24, 32),
    kernel_sizes=(5, 5),
    summary_dims=(16, 16),
    num_heads=(2, 2),
)
TOKENIZER = Tokenizer.train([" ".join(LETTERS)], 20, "char")


def toy_config(exp_dir: Path, **changes: Any) -> TrainConfig:
    """Two layers, two epochs of eight batches, with dropout and every kind of checkpoint."""
    options: dict[str, Any] = {
        "exp_dir": exp_dir,
        "num_epochs": 2,
        "model": ModelConfig(
            feature_dim=NUM_BINS,
            conformer=ConformerConfig((4, 4), num_layers=2, dim=16, feedforward_dim=32, kernel_size=5, summary_dim=16),
            predictor_dim=16,
            joiner_dim=16,
            dropout=0.1,
        ),
        "data": DataConfig(num_mel_bins=NUM_BINS),
        "optim": OptimConfig(lr=3e-3, warmup_steps=4),
        "scales": LossScales(warmup_steps=6),
        "save_every_steps": 3,
        "average_period": 2,
        "log_every_steps": 2,
        "tensorboard": False,
    }
    return TrainConfig(**(options | changes))


class ToyData:
    """Batches of three utterances, determined by epoch and batch number.

    Args:
        num_batches: batches per epoch.
        spoil: put one utterance of NaN into batch 1, which lacks another one, only such utterances into batch 3, and
            none into batch 5.
        fail_on_rank: rank of the process that fails in the first epoch.
    """

    def __init__(self, num_batches: int = 8, spoil: bool = False, fail_on_rank: int | None = None) -> None:
        self.num_batches = num_batches
        self.spoil = spoil
        self.fail_on_rank = fail_on_rank
        self.total_seconds = sum(batch.seconds for batch in self.epoch(1))

    def batching(self) -> dict[str, Any]:
        return {"batches": self.num_batches}

    def epoch(
        self,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        skip_batches: int = 0,
        done: torch.Tensor = NO_CUTS,
        masks: Iterable[Masks] = (),
    ) -> Iterator[Batch]:
        numbers = range(rank + skip_batches * world_size, self.num_batches, world_size)
        for number, (_, num_views) in zip(numbers, itertools.chain(masks, itertools.repeat((0, 1))), strict=False):
            if rank == self.fail_on_rank and number > 3:
                raise OSError("this process fails")
            batch = self.batch(epoch, number)
            if self.spoil and epoch > 0:
                batch.features[{1: slice(0, 1), 3: slice(0, 3)}.get(number, slice(0))] = math.nan
                batch = UNREADABLE if number == 5 else replace(batch, num_unreadable=int(number == 1))
            yield replace(batch, other_views=[batch.features.clone() for _ in range(num_views - 1)])

    def done(self, epoch: int, world_size: int, num_batches: int, before: torch.Tensor) -> torch.Tensor:
        return NO_CUTS

    def batch(self, epoch: int, number: int) -> Batch:
        rng = random.Random(f"{epoch} {number}")
        noise = torch.Generator().manual_seed(rng.getrandbits(32))
        texts = [" ".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(3)]
        lengths = [24 + 20 * len(text) for text in texts]
        features = 0.3 * torch.randn(3, max(lengths), NUM_BINS, generator=noise)
        for row, text in zip(features, texts, strict=True):
            for position, letter in enumerate(text.split()):
                begin, low = 12 + 40 * position, 4 * LETTERS.index(letter)
                row[begin : begin + 24, low : low + 4] += 2.0
        return Batch(
            features=features,
            feature_lengths=torch.tensor(lengths),
            tokens=[TOKENIZER.encode(text) for text in texts],
            texts=texts,
            cut_ids=[f"cut-{epoch}-{number}-{i}" for i in range(3)],
            seconds=sum(lengths) / 100,
        )

    def worst_batches(self, chunk_sizes: Sequence[int] = ()) -> Iterator[tuple[str, Batch]]:
        yield "longest utterance", self.batch(1, 0)

    def dev(self) -> list[Batch]:
        """Batches of a small dev split."""
        return [self.batch(-1, number) for number in range(2)]


class ToyDev(list[Batch]):
    """Batches of a dev split that can be read."""

    num_unreadable = 0


def toy_model(config: TrainConfig) -> Transducer:
    """Make the model of ``config``, with weights determined by the seed."""
    reseed(config.seed, "weights")
    config.model.vocab_size = TOKENIZER.vocab_size
    return Transducer(config.model)


def run(config: TrainConfig, data: Any = None) -> tuple[Progress, Transducer]:
    """Train on the toy task, in all processes of the launch."""
    data = data or ToyData()
    model = toy_model(config)
    with join_world() as world:
        dev_data = {"dev": ToyDev(data.dev()[world.rank :: world.size])}
        return train(Run(config, model, TOKENIZER, data, dev_data, world, "toy")), model


def die_in_write(number: int) -> None:
    """Make this process kill itself in the middle of writing its ``number``-th checkpoint."""
    save, writes = torch.save, iter(range(1, 10**9))

    def partial_save(what: object, file: Any) -> None:
        if next(writes) == number:
            file.write(b"half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(what, file)

    torch.save = partial_save


def signal_in(method: str, call: int, number: int) -> None:
    """Make the process (of several, the second) signal itself twice in the ``call``-th call of a method of the run."""
    original, calls = getattr(Run, method), itertools.count(1)

    def signalled(self: Run, *arguments: Any) -> Any:
        if next(calls) == call and os.environ.get("RANK", "1") == "1":
            for _ in range(2):
                os.kill(os.getpid(), number)
        return original(self, *arguments)

    setattr(Run, method, signalled)


if __name__ == "__main__":
    exp_dir = Path(sys.argv[1])
    options = {name: int(value) for name, value in (argument[2:].split("=") for argument in sys.argv[2:])}
    if "die-in-write" in options:
        die_in_write(options.pop("die-in-write"))
    number = options.pop("send", 0)
    for method, option in (("forward_backward", "send-in-step"), ("validate", "send-in-validation")):
        if option in options:
            signal_in(method, options.pop(option), number)
    data = ToyData(spoil=bool(options.pop("spoil", 0)), fail_on_rank=options.pop("fail-on-rank", None))
    run(toy_config(exp_dir, **options), data)
