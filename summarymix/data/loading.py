"""Loading of cuts into batches of tensors, optionally in worker processes. Unreadable cuts are skipped and listed."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import LOG_EPSILON, fastcopy
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from summarymix.data.config import DataConfig
from summarymix.data.cuts import (
    features_file,
    load_audio,
    noise_in,
    parts,
    transcript,
    unreadable_cut,
    utterances,
    without_noise,
)
from summarymix.data.features import FbankExtractor, with_tail
from summarymix.data.shar import Contents, place_in_shar, read_data, with_data
from summarymix.data.silence import WhiteNoise
from summarymix.data.skipped import Skipped, SkippedItems, separate
from summarymix.data.tokens import Tokenizer

# If this many cuts or pieces of noise, and more than this share of them so far, cannot be read, the cause is not a few
# bad files.
FAILURES_THAT_ARE_FATAL = 50
FATAL_SHARE = 0.05
# A bad piece of noise counts again whenever it is mixed in.
FATAL_SHARE_OF_NOISE = 0.5


@dataclass
class Batch:
    """A batch of utterances on the CPU; empty if none of its cuts could be read."""

    features: Tensor  # (N, T, F) float32, padded with log(1e-10); in training with masks
    feature_lengths: Tensor  # (N,) int64
    tokens: list[list[int]]
    texts: list[str]
    cut_ids: list[str]
    seconds: float  # duration of the utterances, without padding and added silence
    tail_frames: int = 0  # silence behind each utterance, the last of its feature_lengths
    other_views: list[Tensor] = field(default_factory=list)  # the features with other masks
    num_read: int = 0  # cuts of the manifest in the batch; several may be joined to one utterance
    num_unreadable: int = 0  # cuts that the batch lacks because they could not be read
    num_noise: int = 0  # pieces of noise mixed into the cuts of the batch, also unreadable ones
    num_unreadable_noise: int = 0  # pieces of noise that could not be mixed in because they could not be read

    def __len__(self) -> int:
        return len(self.cut_ids)

    @property
    def views(self) -> list[Tensor]:
        """The features with each choice of masks."""
        return [self.features, *self.other_views]

    def pin_memory(self) -> "Batch":
        """Move the tensors to memory from which a GPU copies while it computes; DataLoader calls this."""
        return replace(
            self,
            features=self.features.pin_memory(),
            feature_lengths=self.feature_lengths.pin_memory(),
            other_views=[view.pin_memory() for view in self.other_views],
        )


class BatchLoader(Dataset[tuple[Batch, list[Skipped]]]):
    """Loads the cuts of a batch. Unreadable cuts and unreadable noise are left out of it and returned as a list."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sample_rate = config.sample_rate
        self._num_mel_bins = config.num_mel_bins
        self._tail_frames = config.tail_frames
        self._extractor = FbankExtractor(config.fbank_options()) if config.on_the_fly else None
        self._white_noise = None
        if config.silence.enabled:
            self._white_noise = WhiteNoise(self._extractor or FbankExtractor(config.fbank_options()))

    def __getitem__(self, cuts: CutSet) -> tuple[Batch, list[Skipped]]:
        chosen = list(cuts)  # cuts with noise are made while they are iterated over
        contents = read_data(chosen)
        unreadable_noise: list[Skipped] = []
        read, unreadable = separate(one for cut in chosen for one in self._load(cut, contents, unreadable_noise))
        features = [matrix for _, matrix in read]
        texts = [transcript(cut, self._tokenizer) for cut, _ in read]
        batch = Batch(
            features=pad_sequence(features, batch_first=True, padding_value=LOG_EPSILON)
            if features
            else torch.zeros(0, 0, self._num_mel_bins),
            feature_lengths=torch.tensor([len(matrix) for matrix in features], dtype=torch.int64),
            tokens=[self._tokenizer.encode(text) for text in texts],
            texts=texts,
            cut_ids=[cut.id for cut, _ in read],
            seconds=sum((sum(utterance.duration for utterance in utterances(cut)) for cut, _ in read), 0.0),
            tail_frames=self._tail_frames,
            num_read=sum(len(utterances(cut)) for cut, _ in read),
            num_unreadable=len(unreadable),
            num_noise=sum(len(noise_in(cut)) for cut in chosen),
            num_unreadable_noise=len(unreadable_noise),
        )
        return batch, [*unreadable.items, *unreadable_noise]

    def _load(
        self, cut: Cut, contents: Contents, unreadable_noise: list[Skipped]
    ) -> list[tuple[Cut, Tensor] | Skipped]:
        """Load a cut and its features (T, F), or return its problem.

        If noise cannot be read, the cut is loaded without any. Of joined utterances, the readable ones remain.

        Args:
            cut: the cut.
            contents: its data, if they are in tar files.
            unreadable_noise: list to which its noise that cannot be read is added.
        """
        try:
            return [(cut, self._features(with_data(cut, contents)))]
        # The exception for a broken file depends on format and library; its message goes into the list.
        except Exception as error:
            if noise := [problem for one in noise_in(cut) if (problem := self._problem_of_noise(one)) is not None]:
                unreadable_noise += noise
                return self._load(without_noise(cut), contents, unreadable_noise)
            spoken = utterances(cut)
            if len(spoken) > 1:
                loaded = [one for part in spoken for one in self._load(part, contents, unreadable_noise)]
                if any(isinstance(one, Skipped) for one in loaded):
                    return loaded
            remedy = "compute them again (stage 2 of prepare.sh)"
            if self._extractor is not None:
                remedy = "restore the file, then run local/validate_cuts.py"
            return [self._unreadable(part, "", error, remedy) for part in spoken]

    def _problem_of_noise(self, noise: Cut) -> Skipped | None:
        """The problem of noise that cannot be read; None if it can."""
        try:
            self._features(noise)
        except Exception as error:
            remedy = "restore the file, or prepare the noise again (stage 5 of ./prepare.sh --musan true)"
            # lhotse gives truncated noise a new id each time.
            return self._unreadable(fastcopy(noise, id=noise.recording_id), "noise ", error, remedy)
        return None

    def _features(self, cut: Cut) -> Tensor:
        if self._extractor is not None:
            if cut.sampling_rate != self._sample_rate:
                cut = cut.resample(self._sample_rate)
            features = self._extractor.extract(load_audio(cut))
        elif cut.has_features:
            features = with_tail(torch.from_numpy(cut.load_features()).float(), self._tail_frames)
        else:
            raise ValueError("the manifest has no features: set --data.on_the_fly true, or compute the features")
        if features.shape[1] != self._num_mel_bins:
            raise ValueError(f"{features.shape[1]} mel bins instead of {self._num_mel_bins}: see --data.num_mel_bins")
        if not torch.isfinite(features).all():
            raise ValueError("some features are infinite or NaN")
        if self._white_noise is not None:
            self._white_noise.fill(features, cut)
        return features  # (T, F)

    def _unreadable(self, cut: Cut, kind: str, error: Exception, remedy: str) -> Skipped:
        data = "features" if self._extractor is None else "audio"
        places = [str(place) for part in parts(cut) if (place := place_in_shar(part))]
        if data == "features" and not places:
            places = [str(features_file(part)) for part in parts(cut) if part.has_features]
        return unreadable_cut(cut, kind + data, error, remedy, places)


def load_batches(
    loader: Dataset[tuple[Batch, list[Skipped]]],
    batches: Iterable[Any],
    num_workers: int,
    num_cuts: int,
    unreadable: SkippedItems,
    listing: Path | None = None,
) -> Iterator[Batch]:
    """Load batches in turn.

    Args:
        loader: loads one batch.
        batches: what ``loader`` needs for each batch.
        num_workers: processes that load ahead; 0 loads in this one.
        num_cuts: upper bound of the number of cuts in all batches.
        unreadable: list to which each unreadable cut, and each unreadable recording of noise, is added once.
        listing: file to which ``unreadable`` is written at the end and whenever it has grown by a tenth.

    Raises:
        OSError: more than a few cuts, or pieces of noise, cannot be read.
    """
    data_loader = DataLoader(
        loader,
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_stop_signals,
        # By default a DataLoader draws from the global generator, which training reseeds for each batch.
        generator=torch.Generator().manual_seed(0),
    )
    listed = {(item.id, item.file) for item in unreadable.items}  # two corpora may have the same id
    num_written = len(unreadable)
    num_cuts_seen = num_unreadable = num_noise = num_unreadable_noise = 0
    loaded = iter(data_loader)
    try:
        for batch, failures in loaded:
            num_cuts_seen += batch.num_read + batch.num_unreadable
            num_unreadable += batch.num_unreadable
            num_noise += batch.num_noise
            num_unreadable_noise += batch.num_unreadable_noise
            for item in failures:
                if (item.id, item.file) not in listed:
                    unreadable.add(item)
                    listed.add((item.id, item.file))
            if listing is not None and len(unreadable) > 1.1 * num_written:
                unreadable.write(listing)
                num_written = len(unreadable)
            num_fatal = min(FAILURES_THAT_ARE_FATAL, num_cuts)
            if num_unreadable >= num_fatal and num_unreadable > FATAL_SHARE * num_cuts_seen:
                remedy = "run ./prepare.sh again. Relative paths start in the recipe's folder: run the command there"
                raise _too_many_unreadable(num_unreadable, f"{num_cuts_seen} cuts", failures[0], listing, remedy)
            if (
                num_unreadable_noise >= FAILURES_THAT_ARE_FATAL
                and num_unreadable_noise > FATAL_SHARE_OF_NOISE * num_noise
            ):
                raise _too_many_unreadable(
                    num_unreadable_noise,
                    f"{num_noise} pieces of noise",
                    failures[-1],
                    listing,
                    "prepare the noise again (stage 5 of ./prepare.sh --musan true). Relative paths start in the "
                    "folder of the recipe that has prepared the noise: if that is another one, give --data.noise.dir",
                )
            yield batch
    finally:
        _end_workers(loaded)
        if listing is not None and len(unreadable) > num_written:
            unreadable.write(listing)


def _end_workers(loaded: Iterator[Any]) -> None:
    """End the processes of a DataLoader, also those stuck in a slow read, for they ignore SIGTERM."""
    if workers := getattr(loaded, "_workers", None):
        loaded._shutdown_workers()  # type: ignore[attr-defined]
        for worker in workers:
            if worker.is_alive():
                worker.kill()


def _too_many_unreadable(count: int, seen: str, example: Skipped, listing: Path | None, remedy: str) -> OSError:
    where = f" All are listed in {listing}." if listing else ""
    return OSError(
        f"{count} of the first {seen} could not be read, for example {example.id}, {example.file}: {example.detail}."
        f"{where} Restore the files, or {remedy}"
    )


def _ignore_stop_signals(worker: int) -> None:
    """Batch systems and Ctrl-C signal workers too, but the main process needs them until it has saved."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(item: Any) -> Any:
    return item
