"""Dev and test data: every utterance that can be decoded, in a fixed order."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet

from summarymix.data.config import DataConfig
from summarymix.data.cut_filter import CutProblems
from summarymix.data.cuts import occurs_twice, transcript
from summarymix.data.loading import Batch, BatchLoader, load_batches
from summarymix.data.sampling import fill
from summarymix.data.skipped import separate
from summarymix.data.tokens import Coverage, Tokenizer
from summarymix.encoder.subsampling import FEATURE_SECONDS


class EvalData:
    """A dev or test split in a fixed order, batched by duration. Every cut that can be decoded is kept."""

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        split: str,
        output_lengths: Callable[[Any], Any],
        max_duration: float | None = None,
        for_loss: bool = False,
        rank: int = 0,
        world_size: int = 1,
        listing: Path | None = None,
    ) -> None:
        """
        Args:
            config: data options.
            tokenizer: turns transcripts into token ids; unknown characters become ``<unk>``.
            split: name of the split, of another corpus SPLIT@PREFIX.
            output_lengths: number of encoder frames for a number of feature frames.
            max_duration: seconds of audio in a batch; None: as in training.
            for_loss: also leave out cuts whose loss is undefined, as in training. Long utterances are kept.
            rank: number of this process; each process loads its share of the batches alone.
            world_size: number of processes.
            listing: list of the skipped cuts, written when there is one; an earlier list is removed.

        Raises:
            FileNotFoundError: the manifest is missing.
            ValueError: a cut occurs twice, none is left, or its features are others than configured.
        """
        self.config = config
        self.split = split
        self._loader = BatchLoader(config, tokenizer)
        self._rank, self._world_size = rank, world_size
        self._num_unreadable = 0
        problems = CutProblems(config, tokenizer, output_lengths)
        problem = problems.for_loss if for_loss else problems.for_decoding
        kept, self.skipped_items = separate(problem(cut) or cut for cut in config.open(split))
        self._listing = listing
        if listing is not None:
            listing.unlink(missing_ok=True)
            if len(self.skipped_items):
                self.skipped_items.write(listing)
        if not kept:
            raise ValueError(f"No cut of {config.location_of(split)} can be evaluated; {self.skipped_items.summary()}")
        config.check_features(kept[0], split)
        self.durations = {cut.id: cut.duration for cut in kept}
        if len(self.durations) < len(kept):
            repeated, _ = Counter(cut.id for cut in kept).most_common(1)[0]
            raise occurs_twice(repeated, config.location_of(split))
        # Cuts of equal duration are sorted by id, so that the order does not depend on the manifest.
        self._cuts = sorted(kept, key=lambda cut: (cut.duration, cut.id))
        self.num_cuts = len(kept)
        seconds = np.array([cut.duration for cut in self._cuts]) + FEATURE_SECONDS * config.tail_frames
        numbers = np.arange(self.num_cuts, dtype=np.int32)
        self._batches = list(fill(numbers, seconds, max_duration or config.max_duration))
        self.texts = [transcript(cut, tokenizer) for cut in kept]
        self.coverage = Coverage(tokenizer)
        """Words of the transcripts that the tokens can and cannot write."""
        for text in self.texts:
            self.coverage.add(text)
        self.total_seconds = sum(self.durations.values())

    @property
    def skipped(self) -> dict[str, int]:
        """Number of cuts left out so far, by reason; unreadable cuts are found during iteration."""
        return self.skipped_items.counts

    @property
    def num_unreadable(self) -> int:
        """Number of this process's cuts that could not be read in the last iteration."""
        return self._num_unreadable

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over this process's batches, from the shortest utterances to the longest.

        Raises:
            OSError: this process cannot read more than a few of its cuts.
        """
        self._num_unreadable = 0
        batches = [
            CutSet.from_cuts(self._cuts[i] for i in numbers)
            for numbers in self._batches[self._rank :: self._world_size]
        ]
        workers = self.config.num_workers
        for batch in load_batches(self._loader, batches, workers, self.num_cuts, self.skipped_items, self._listing):
            self._num_unreadable += batch.num_unreadable
            if len(batch):
                yield batch
