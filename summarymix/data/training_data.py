"""The training data: selection of the cuts, and their batches.

The main process plans an epoch from the arrays of an index (:mod:`summarymix.data.index`): which cuts make an
utterance, which utterances a batch. Everything else happens where batches are loaded, in worker processes: parsing of
the cuts, silence, noise, features, SpecAugment. Its random numbers depend on the seed, the epoch and the batch's number
alone.
"""

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from summarymix.configs import plain
from summarymix.data.augment import spec_augment
from summarymix.data.config import DataConfig
from summarymix.data.cut_filter import REASONS, CutProblems
from summarymix.data.index import IndexedCuts, open_cuts
from summarymix.data.loading import Batch, BatchLoader, load_batches
from summarymix.data.noise import NoiseMixer
from summarymix.data.sampling import make_batches, split_last, take, without
from summarymix.data.silence import Sizes, Utterance, Utterances, plan_silence, with_silence
from summarymix.data.skipped import Skipped, SkippedItems, list_of_process, remove_other_lists
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import FEATURE_SECONDS
from summarymix.seeding import number_of, seeded

# Options without influence on the batches. Places and splits count by the cuts in them.
_NOT_BATCHING = (
    "prefix",
    "dir",
    "manifest_dir",
    "shar_dir",
    "lang_dir",
    "train",
    "dev",
    "weight",
    "corpora",
    "num_workers",
    "feature_backend",
    "spec_augment",
    "noise",
)

NO_CUTS = torch.zeros(0, dtype=torch.int64)


class Masks(NamedTuple):
    """SpecAugment of a batch: the optimiser step that decides its strength, and the number of views."""

    step: int
    num_views: int


class TrainData:
    """The training splits. The constructor selects the cuts."""

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        output_lengths: Callable[[Any], Any],
        seed: int,
        skipped_path: Path,
        list_skipped: bool = True,
    ) -> None:
        """
        Args:
            config: data options.
            tokenizer: turns transcripts into token ids.
            output_lengths: number of encoder frames for a number of feature frames, or for a tensor of them.
            seed: seed of shuffling, noise, silence and masks.
            skipped_path: list of the skipped cuts. Cuts that prove unreadable in an epoch are listed next to it, in
                ``*-unreadable.tsv``.
            list_skipped: write the list of the skipped cuts; one of several processes is enough.

        Raises:
            FileNotFoundError: a manifest is missing.
            ValueError: a cut occurs twice, no cut of a split is left, or its features are others than configured.
        """
        self.config = config
        self.seed = seed
        self.skipped_path = Path(skipped_path)
        self._output_lengths = output_lengths
        self._problems = CutProblems(config, tokenizer, output_lengths)
        splits = config.train_splits()
        self._index = open_cuts(config, splits, tokenizer, self.skipped_path.parent)
        columns = (self._index.column(name) for name in ("seconds", "frames", "tokens", "needed"))
        reasons = self._problems.for_training_by_size(*columns)
        counts = {reason: int(count) for reason, count in zip(REASONS, np.bincount(reasons), strict=False) if reason}
        self.skipped = {reason: count for reason, count in sorted(counts.items(), key=lambda item: -item[1]) if count}
        """Number of skipped cuts by reason."""
        self._cuts = np.flatnonzero(reasons == 0).astype(np.int32)
        parts = np.split(self._cuts, np.searchsorted(self._cuts, self._index.starts[1:-1]))
        self._splits = [
            _Split(name, cuts, config.find(name)[0].weight) for name, cuts in zip(splits, parts, strict=True)
        ]
        empty = [config.location_of(split.name) for split in self._splits if not len(split.cuts)]
        if list_skipped or empty:
            skipped = [self._problems.for_training(self._index[i]) for i in np.flatnonzero(reasons).tolist()]
            assert None not in skipped, "the index and the cuts disagree"
            SkippedItems(skipped).write(self.skipped_path)  # type: ignore[arg-type]
        if empty:
            summary = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            raise ValueError(
                f"No cut of {', '.join(empty)} is left to train on; skipped {len(self._index) - len(self._cuts)} of "
                f"{len(self._index)}: {summary} (listed in {self.skipped_path})"
            )
        for split in self._splits:
            config.check_features(self._index[int(split.cuts[0])], split.name)
        per_epoch = sum(split.weight * len(split.cuts) for split in self._splits)
        if per_epoch < 1:
            raise ValueError(f"An epoch has {per_epoch:.2g} utterances: raise --data.weight, or the weights of corpora")
        self.num_cuts = len(self._cuts)
        self.seconds = {
            split.name: split.weight * float(self._index.values("seconds", split.cuts).sum()) for split in self._splits
        }
        """Seconds of audio in an epoch by split."""
        self.total_seconds = sum(self.seconds.values())
        self._loader = TrainLoader(config, tokenizer, self._index, seed)
        self._plan: tuple[tuple[Any, ...], _Plan] | None = None

    def batching(self) -> dict[str, Any]:
        """Everything that determines an epoch's batches, besides its number and the processes: names and values."""
        checksum = hashlib.blake2b(digest_size=6)
        for name in ("id", "seconds"):
            checksum.update(self._index.values(name, self._cuts).tobytes())
        return {
            "data": {name: value for name, value in plain(self.config).items() if name not in _NOT_BATCHING},
            "seed": self.seed,
            "numpy": np.__version__,
            "weights": [split.weight for split in self._splits],
            "training cuts": f"{self.num_cuts} (checksum {checksum.hexdigest()})",
        }

    def epoch(
        self,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        skip_batches: int = 0,
        done: Tensor = NO_CUTS,
        masks: Iterable[Masks] = (),
    ) -> Iterator[Batch]:
        """Yield an epoch's batches, determined by (seed, epoch, rank, world_size, done).

        Every cut comes once (or as its corpus' weight says), on one rank, and every rank gets the same number of
        batches. Some of the last ones may be empty.

        Args:
            epoch: number of the epoch; another epoch has another order.
            rank: number of this process.
            world_size: number of processes.
            skip_batches: number of batches that this rank has consumed before; they are skipped without loading.
            done: cuts of the epoch that are left out, from :meth:`done`.
            masks: SpecAugment of each batch that follows; empty for none.

        Raises:
            OSError: more than a few cuts, or pieces of noise, cannot be read.
        """
        tasks = self.tasks(epoch, rank, world_size, skip_batches, done, masks)
        listing = self.skipped_path.with_name(f"{self.skipped_path.stem}-unreadable.tsv")
        unreadable_path = list_of_process(listing, rank, world_size)
        # Each epoch has its own list, because files may be restored; a resumed one continues it.
        resumed = skip_batches > 0 or len(done) > 0
        if rank == 0 and not resumed:
            remove_other_lists(listing, world_size)
        unreadable = SkippedItems.read(unreadable_path) if resumed and unreadable_path.exists() else SkippedItems()
        yield from load_batches(
            self._loader, tasks, self.config.num_workers, self.num_cuts, unreadable, unreadable_path
        )
        if not len(unreadable):
            unreadable_path.unlink(missing_ok=True)

    def tasks(
        self,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        skip_batches: int = 0,
        done: Tensor = NO_CUTS,
        masks: Iterable[Masks] = (),
    ) -> "Iterator[Task]":
        """Yield the batches of :meth:`epoch` before they are loaded."""
        plan = self._planned(epoch, world_size, done)
        numbers = range(skip_batches * world_size + rank, len(plan.batches), world_size)
        for number, masks_of_batch in zip(numbers, itertools.chain(masks, itertools.repeat(None)), strict=False):
            yield plan.task(epoch, number, masks_of_batch)

    def done(self, epoch: int, world_size: int, num_batches: int, before: Tensor = NO_CUTS) -> Tensor:
        """The cuts of an epoch that are done, as hashes of their ids, int64.

        They remain valid whatever changes: batch size, buckets, number of processes, splits.

        Args:
            epoch: number of the epoch.
            world_size: number of processes.
            num_batches: number of batches that all processes have done together.
            before: cuts done before these batches, which were left out of :meth:`epoch`; they come first in the result.
        """
        if num_batches == 0:  # at an epoch's beginning, which may never come, nothing needs planning
            return before
        plan = self._planned(epoch, world_size, before)
        numbers = np.concatenate(plan.batches[:num_batches])
        return torch.cat([before, torch.from_numpy(self._index.values("id", plan.utterances.cuts_of(numbers)))])

    def worst_batches(self, chunk_sizes: Sequence[int] = ()) -> Iterator[tuple[str, Batch]]:
        """Yield the batches that need most memory, one for each of several reasons.

        They are found from the sizes in the first epoch and in the first epoch with silence; only these batches are
        loaded. A batch that is worst for several reasons comes once.

        Args:
            chunk_sizes: chunk sizes in encoder frames, to whole numbers of which utterances are padded; empty: not at
                all.

        Yields:
            The reasons as text, and the batch.
        """
        worst: dict[str, tuple[int, Task]] = {}  # reason: size and batch
        for epoch in sorted({1, self.config.silence.first_epoch}):
            plan = self._planned(epoch, 1, NO_CUTS)
            utterances, order = plan.utterances, np.concatenate(plan.batches)
            counts = np.array([len(batch) for batch in plan.batches])
            begins = np.cumsum(counts) - counts
            of_cuts = self._index.values("tokens", utterances.cuts)
            tokens = np.add.reduceat(of_cuts, utterances.first[:-1])  # of each utterance
            most = np.maximum.reduceat(tokens[order], begins)  # of each batch, as the following
            longest = np.maximum.reduceat(self._frames(utterances)[order], begins)
            frames = self._output_lengths(torch.from_numpy(longest)).numpy()  # of the encoder
            in_chunks = np.max([-(-frames // size) * size for size in chunk_sizes or (1,)], axis=0)
            sizes = {
                "longest utterance": longest,
                "most frames": counts * longest,
                "most frames in whole chunks": counts * in_chunks,
                "most tokens": counts * most,
                "largest lattice": counts * longest * most,
            }
            for reason, size in sizes.items():
                number = int(size.argmax())
                if reason not in worst or size[number] > worst[reason][0]:
                    worst[reason] = int(size[number]), plan.task(epoch, number, None)
        for number_of_batch, task in {other[:2]: other for _, other in worst.values()}.items():
            batch, _ = self._loader[task]
            if len(batch):
                yield ", ".join(reason for reason, (_, other) in worst.items() if other[:2] == number_of_batch), batch

    def _frames(self, utterances: Utterances) -> NDArray[np.int64]:
        """Feature frames of each utterance."""
        if utterances.pauses is None:
            return self.config.frames(utterances.seconds, self._index.values("frames", utterances.cuts))
        return self.config.frames(utterances.seconds, -1)

    def _planned(self, epoch: int, world_size: int, done: Tensor) -> "_Plan":
        """The utterances and batches of an epoch; the last plan is kept."""
        key = (epoch, world_size, len(done))
        if self._plan is None or self._plan[0] != key:
            self._plan = key, self._make_plan(epoch, world_size, done)
        return self._plan[1]

    def _make_plan(self, epoch: int, world_size: int, done: Tensor) -> "_Plan":
        rng = np.random.default_rng(number_of(self.seed, epoch))
        silence = self.config.silence
        cuts = np.concatenate(
            [take(cuts, weight, epoch, number_of(self.seed, "order", name)) for name, cuts, weight in self._splits]
        )
        if len(done):
            cuts = cuts[without(self._index.values("id", cuts), done.numpy())]
        if silence.enabled and epoch >= silence.first_epoch:
            cuts = rng.permutation(cuts)
            sizes = Sizes(*(self._index.values(name, cuts) for name in Sizes._fields))
            utterances = plan_silence(cuts, sizes, silence, self._fits, rng)
        else:
            utterances = Utterances.plain(cuts, self._index.values("seconds", cuts))
        seconds = utterances.seconds + FEATURE_SECONDS * self.config.tail_frames
        batches = make_batches(seconds, self.config.max_duration, self.config.num_buckets, rng)
        return _Plan(utterances, split_last(batches, world_size))

    def _fits(self, seconds: NDArray[np.float64], needed: NDArray[np.int32]) -> NDArray[np.bool_]:
        no_features, one_token = np.full(len(seconds), -1), np.ones(len(seconds))
        return self._problems.for_training_by_size(seconds, no_features, one_token, needed) == 0


class _Split(NamedTuple):
    """A training split: its name, the numbers of its cuts, and how often each comes in an epoch."""

    name: str
    cuts: NDArray[np.int32]
    weight: float


class Task(NamedTuple):
    """A batch to load."""

    epoch: int
    number: int  # in the epoch, over all processes
    utterances: Sequence[Utterance]
    masks: Masks | None


@dataclass(frozen=True)
class _Plan:
    """The utterances of an epoch, and the numbers of those in each batch; the processes take batches in turn."""

    utterances: Utterances
    batches: list[NDArray[np.int32]]

    def task(self, epoch: int, number: int, masks: Masks | None) -> Task:
        return Task(epoch, number, self.utterances.select(self.batches[number]), masks)


class TrainLoader(Dataset[tuple[Batch, list[Skipped]]]):
    """Loads the batches of training with silence, noise and SpecAugment."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, index: IndexedCuts, seed: int) -> None:
        """
        Args:
            config: data options.
            tokenizer: turns transcripts into token ids.
            index: the cuts.
            seed: seed of silence, noise and masks.
        """
        self._index = index
        self._seed = seed
        self._silence = config.silence
        self._loader = BatchLoader(config, tokenizer)
        self._augment = spec_augment(config.spec_augment)
        self._noise = None
        if config.noise.manifest is not None:
            self._noise = NoiseMixer(config.noise, seed, config.on_the_fly, config.sample_rate, config.num_mel_bins)

    def cuts(self, task: Task) -> list[Cut]:
        """The cuts of a batch, with silence."""
        rng = random.Random(number_of(self._seed, "silence", task.epoch, task.number))
        return [
            with_silence(utterance, [self._index[i] for i in utterance.cuts], self._silence, rng)
            for utterance in task.utterances
        ]

    def __getitem__(self, task: Task) -> tuple[Batch, list[Skipped]]:
        cuts = CutSet.from_cuts(self.cuts(task))
        if self._noise is not None and len(cuts):
            cuts = self._noise.mix(cuts, task.epoch, task.number)
        batch, failures = self._loader[cuts]
        if task.masks is not None:
            with seeded(self._seed, "masks", task.epoch, task.number):
                batch.features, *batch.other_views = self._augment(batch.features, batch.feature_lengths, *task.masks)
        return batch, failures
