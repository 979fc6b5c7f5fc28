"""The training data: selection of the cuts, and their batches.

lhotse's sampler draws the batches in the main process, from manifests alone, and the noise for them is drawn there as
well. Loading follows and draws no random numbers, so resuming skips batches without reading audio.
"""

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lhotse
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

from summarymix.configs import plain
from summarymix.data.batches_per_rank import share
from summarymix.data.config import DataConfig
from summarymix.data.cut_filter import CutProblems
from summarymix.data.cuts import transcript
from summarymix.data.leftovers import fill_batches
from summarymix.data.loading import Batch, BatchLoader, load_batches
from summarymix.data.noise import NoiseMixer
from summarymix.data.silence import WithSilence
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer

# Options without influence on the batches. Places and splits count by the cuts in them.
_NOT_BATCHING = (
    "prefix",
    "manifest_dir",
    "shar_dir",
    "lang_dir",
    "train",
    "dev",
    "num_workers",
    "feature_backend",
    "spec_augment",
    "noise",
)


class TrainData:
    """The training splits. The constructor reads the manifests once and selects the cuts."""

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        output_lengths: Callable[[int], int],
        seed: int,
        skipped_path: Path,
    ) -> None:
        """
        Args:
            config: data options.
            tokenizer: turns transcripts into token ids.
            output_lengths: number of encoder frames for a number of feature frames.
            seed: seed of shuffling, noise and silence.
            skipped_path: list of the skipped cuts. Cuts that prove unreadable later are listed next to it, in
                ``*-unreadable.tsv``.

        Raises:
            FileNotFoundError: a manifest is missing.
            ValueError: a cut occurs twice, or no cut is left.
        """
        self.config = config
        self.seed = seed
        self.skipped_path = Path(skipped_path)
        self.skipped_items = SkippedItems()
        self._tokenizer = tokenizer
        self._problems = CutProblems(config, tokenizer, output_lengths)
        self._loader = BatchLoader(config, tokenizer)
        self._noise = None
        if config.noise.manifest is not None:
            self._noise = NoiseMixer(config.noise, seed, config.on_the_fly, config.sample_rate, config.num_mel_bins)
        self._kept: dict[str, int] = {}  # number of cuts of each split
        durations = self._select()
        self._skipped_ids = {item.id for item in self.skipped_items.items}
        self.num_cuts = len(durations)
        self.total_seconds = sum(durations)
        if config.silence.enabled:
            durations = [cut.duration for cut in self._cuts(config.silence.first_epoch)]
        self._duration_bins = _duration_bins(durations, config.num_buckets)

    @property
    def skipped(self) -> dict[str, int]:
        """Number of skipped cuts by reason."""
        return self.skipped_items.counts

    def batching(self) -> dict[str, Any]:
        """Everything that determines an epoch's batches, besides its number and the processes: names and values."""
        return {
            "data": {name: value for name, value in plain(self.config).items() if name not in _NOT_BATCHING},
            "seed": self.seed,
            "lhotse": lhotse.__version__,
            "training cuts": f"{self.num_cuts} (checksum {self._cuts_checksum})",
        }

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, skip_batches: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches with noise, without SpecAugment, determined by (seed, epoch, rank, world_size).

        Every cut comes once, on one rank, and every rank gets the same number of batches.

        Args:
            epoch: number of the epoch; another epoch has another order.
            rank: number of this process.
            world_size: number of processes.
            skip_batches: number of batches that this rank has consumed before; they are skipped without loading.

        Raises:
            ValueError: there are fewer cuts than ranks.
            RuntimeError: no cut can be read.
        """
        batches: Iterator[CutSet] = itertools.islice(self._batches(epoch, rank, world_size), skip_batches, None)
        if self._noise is not None:
            batches = self._with_noise(self._noise, batches, epoch, skip_batches * world_size + rank, world_size)
        unreadable_path = self.skipped_path.with_name(
            f"{self.skipped_path.stem}-unreadable{f'-rank{rank}' if world_size > 1 else ''}.tsv"
        )
        unreadable = SkippedItems.read(unreadable_path) if unreadable_path.exists() else SkippedItems()
        yield from load_batches(
            self._loader, batches, self.config.num_workers, self.num_cuts, unreadable, unreadable_path
        )

    def worst_batches(self) -> Iterator[tuple[str, Batch]]:
        """Yield the batches that need most memory, one for each of several reasons.

        They are found from the manifests of the first epoch and of the first epoch with silence; only these batches are
        loaded. A batch that is worst for several reasons comes once.

        Yields:
            The reasons as text, and the batch.
        """
        worst: dict[str, tuple[int, CutSet]] = {}  # reason: size and batch
        epochs = sorted({1, self.config.silence.first_epoch})
        for cuts in itertools.chain.from_iterable(self._batches(epoch, rank=0, world_size=1) for epoch in epochs):
            for reason, size in self._sizes(cuts).items():
                if reason not in worst or size > worst[reason][0]:
                    worst[reason] = size, cuts
        for cuts in {id(cuts): cuts for _, cuts in worst.values()}.values():
            batch, _ = self._loader[cuts]
            if len(batch):
                yield ", ".join(reason for reason, (_, other) in worst.items() if other is cuts), batch

    def _select(self) -> list[float]:
        """Select the training cuts and return their durations in seconds."""
        durations: list[float] = []
        seen: set[str] = set()
        checksum = hashlib.blake2b(digest_size=6)
        for split in self.config.train:
            kept_before = len(durations)
            for cut in self.config.read_cuts(split):
                if cut.id in seen:
                    raise ValueError(
                        f"The cut {cut.id} of {self.config.location(split)} occurs twice: run local/validate_cuts.py"
                    )
                seen.add(cut.id)
                problem = self._problems.for_training(cut)
                if problem is None:
                    durations.append(cut.duration)
                    checksum.update(f"{len(self._kept)} {cut.id} {cut.duration}\n".encode())
                else:
                    self.skipped_items.add(problem)
            self._kept[split] = len(durations) - kept_before
        self.skipped_items.write(self.skipped_path)
        if not durations:
            raise ValueError(
                f"No cut of {', '.join(map(self.config.location, self.config.train))} is left to train on; "
                f"{self.skipped_items.summary()} (listed in {self.skipped_path})"
            )
        self._cuts_checksum = checksum.hexdigest()
        return durations

    def _sizes(self, cuts: CutSet) -> dict[str, int]:
        """Sizes on which the memory of a batch depends, by reason."""
        frames = max(map(self.config.num_frames, cuts))  # after padding
        tokens = max(len(self._tokenizer.encode(transcript(cut, self._tokenizer))) for cut in cuts)
        return {
            "longest utterance": frames,
            "most frames": len(cuts) * frames,
            "most tokens": len(cuts) * tokens,
            "largest lattice": len(cuts) * frames * tokens,
        }

    def _batches(self, epoch: int, rank: int, world_size: int) -> Iterator[CutSet]:
        if self.num_cuts < world_size:
            raise ValueError(f"{self.num_cuts} training cuts cannot be shared among {world_size} processes: use fewer")
        sampler = DynamicBucketingSampler(
            self._cuts(epoch),
            max_duration=self.config.max_duration,
            duration_bins=self._duration_bins,
            buffer_size=self.config.shuffle_buffer,
            shuffle=True,
            seed=self.seed,
            # share() distributes the batches: lhotse's own distribution repeats cuts when few are left at the end.
            rank=0,
            world_size=1,
        )
        sampler.set_epoch(epoch)
        return share(fill_batches((batch for batch in sampler), self.config.max_duration), rank, world_size)

    def _cuts(self, epoch: int) -> CutSet:
        """The training cuts of an epoch."""
        weights = {split: kept for split, kept in self._kept.items() if kept}
        splits = [self.config.read_cuts(split) for split in weights]
        cuts = (
            CutSet.mux(*splits, weights=list(weights.values()), seed=self.seed + epoch)
            if len(splits) > 1
            else splits[0]
        )
        cuts = cuts.filter(self._is_kept)
        silence = self.config.silence
        if not silence.enabled or epoch < silence.first_epoch:
            return cuts
        if silence.join_probability > 0:
            cuts = cuts.shuffle(random.Random(f"{self.seed} {epoch}"), self.config.shuffle_buffer)
        return CutSet(WithSilence(cuts, silence, f"{self.seed} {epoch}", self._fits))

    def _fits(self, cut: Cut) -> bool:
        return self._problems.for_training(cut) is None

    def _with_noise(
        self, noise: NoiseMixer, batches: Iterable[CutSet], epoch: int, first: int, step: int
    ) -> Iterator[CutSet]:
        # Batches of all ranks are numbered together, so that no two get the same noise.
        for number, cuts in zip(itertools.count(first, step), batches, strict=False):
            yield noise.mix(cuts, epoch, number)

    def _is_kept(self, cut: Cut) -> bool:
        return cut.id not in self._skipped_ids


def _duration_bins(durations: list[float], num_buckets: int) -> list[float]:
    """Limits of buckets with about equal total duration."""
    num_buckets = min(num_buckets, len(durations))
    bins = estimate_duration_buckets(durations, num_buckets, _Identity()) if num_buckets > 1 else []
    return bins or [max(durations)]


class _Identity:
    """Makes lhotse's estimate accept durations instead of cuts."""

    def measure_length(self, duration: float) -> float:
        return duration
