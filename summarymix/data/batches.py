"""From manifests to batches: filters, bucketing by duration, sharing between ranks, noise, loading.

Which cuts make up which batch is decided by lhotse's sampler in the main process, from manifests alone, and so is
which noise is mixed into them. Loading happens after that, in worker processes if wanted, and draws no random numbers:
hence any number of workers gives the same batches, and resuming skips batches without touching any audio.
"""

import itertools
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.dataset import DynamicBucketingSampler, SimpleCutSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from lhotse.utils import LOG_EPSILON
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.features import FbankExtractor, FbankOptions, FeatureBackend
from summarymix.data.manifests import cuts_path, read_cuts
from summarymix.data.noise import NoiseConfig, NoiseMixer
from summarymix.data.shar import index_location, place_in_shar, read_shar, with_data
from summarymix.data.silence import SilenceConfig, WhiteNoise, WithSilence, utterances
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.data.tokens import Tokenizer

# If so many cuts fail to load and none before them did, it is not single files that are bad.
FAILURES_THAT_ARE_FATAL = 50


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


@dataclass
class Batch:
    """A batch of utterances on the CPU. It has no utterance at all when none of its cuts could be read."""

    features: Tensor  # (N, T, F) float32, padded with log(1e-10)
    feature_lengths: Tensor  # (N,) int64
    tokens: list[list[int]]
    texts: list[str]
    cut_ids: list[str]
    seconds: float  # of the utterances, padding and silence that was added not counted

    def __len__(self) -> int:
        return len(self.cut_ids)


class TrainData:
    """The training splits. Constructing it reads the manifests once and decides which cuts are trained on."""

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
            config: what to read.
            tokenizer: makes the token ids.
            output_lengths: the encoder's frames for a number of feature frames.
            seed: of shuffling.
            skipped_path: where to list the cuts left out. Those that turn out unreadable later are listed beside it,
                in ``*-unreadable.tsv``.

        Raises:
            FileNotFoundError: a manifest is missing.
            ValueError: a cut occurs twice, or none is left.
        """
        self.config = config
        self.seed = seed
        self.skipped_path = Path(skipped_path)
        self.skipped_items = SkippedItems()
        self.total_seconds = 0.0
        self.num_cuts = 0
        self._tokenizer = tokenizer
        self._output_lengths = output_lengths
        self._loader = _Loader(config, tokenizer)
        self._noise = None
        if config.noise.manifest is not None:
            self._noise = NoiseMixer(config.noise, seed, config.on_the_fly, config.sample_rate, config.num_mel_bins)
        self._kept: dict[str, int] = {}  # cuts of each split
        durations: list[float] = []
        seen: set[str] = set()
        for split in config.train:
            kept_before = self.num_cuts
            for cut in config.read_cuts(split):
                if cut.id in seen:
                    raise ValueError(
                        f"The cut {cut.id} of {config.location(split)} occurs twice: run local/validate_cuts.py"
                    )
                seen.add(cut.id)
                problem = problem_for_training(cut, config, tokenizer, output_lengths)
                if problem is not None:
                    self.skipped_items.add(problem)
                    continue
                durations.append(cut.duration)
                self.num_cuts += 1
            self._kept[split] = self.num_cuts - kept_before
        self.skipped_items.write(self.skipped_path)
        self.total_seconds = sum(durations)
        if self.num_cuts == 0:
            raise ValueError(
                f"No cut of {', '.join(map(config.location, config.train))} is left to train on; "
                f"{self.skipped_items.summary()} (listed in {self.skipped_path})"
            )
        self._skipped_ids = {item.id for item in self.skipped_items.items}
        if config.silence.enabled:
            durations = [cut.duration for cut in self._cuts(config.silence.first_epoch)]
        self._duration_bins = _duration_bins(durations, config.num_buckets)

    @property
    def skipped(self) -> dict[str, int]:
        """Number of cuts left out by reason."""
        return self.skipped_items.counts

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, skip_batches: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, with noise but unmasked; the same for the same (seed, epoch, rank, world_size).

        Every cut comes once, on one rank, and every rank gets the same number of batches.

        Args:
            epoch: number of the epoch; another epoch has another order.
            rank: this process.
            world_size: number of processes.
            skip_batches: batches of this rank that were consumed before; they are skipped without being loaded.

        Raises:
            ValueError: there are fewer cuts than ranks.
            RuntimeError: not a single cut can be read.
        """
        batches: Iterator[CutSet] = itertools.islice(self._batches(epoch, rank, world_size), skip_batches, None)
        if self._noise is not None:
            batches = self._with_noise(self._noise, batches, epoch, skip_batches * world_size + rank, world_size)
        unreadable_path = self.skipped_path.with_name(
            f"{self.skipped_path.stem}-unreadable{f'-rank{rank}' if world_size > 1 else ''}.tsv"
        )
        unreadable = SkippedItems.read(unreadable_path) if unreadable_path.exists() else SkippedItems()
        listed = {item.id for item in unreadable.items}
        num_read, num_failed = 0, 0
        for batch, failures in _load(self._loader, batches, self.config.num_workers):
            num_read += len(batch)
            num_failed += len(failures)
            if any(item.id not in listed for item in failures):
                unreadable.extend(item for item in failures if item.id not in listed)
                listed.update(item.id for item in failures)
                unreadable.write(unreadable_path)
            if num_read == 0 and num_failed >= min(FAILURES_THAT_ARE_FATAL, self.num_cuts):
                raise _nothing_readable(num_failed, failures[-1], unreadable_path)
            yield batch

    def worst_batches(self) -> Iterator[tuple[str, Batch]]:
        """The batches of the first epoch, and of the first one with silence, that take most memory, one for each of
        several reasons.

        They are found from the manifests; only they are loaded. A batch that is worst for several reasons comes once.

        Yields:
            The reasons, in words, and the batch.
        """
        measures: dict[str, Callable[[int, int, int], int]] = {
            "longest utterance": lambda number, frames, tokens: frames,
            "most frames": lambda number, frames, tokens: number * frames,
            "most tokens": lambda number, frames, tokens: number * tokens,
            "largest lattice": lambda number, frames, tokens: number * frames * tokens,
        }
        worst: dict[str, tuple[int, int, CutSet]] = {}
        epochs = sorted({1, self.config.silence.first_epoch})
        batches = itertools.chain.from_iterable(self._batches(epoch, rank=0, world_size=1) for epoch in epochs)
        for i, cuts in enumerate(batches):
            # As padded.
            frames = max(_num_feature_frames(cut, self.config) for cut in cuts)
            tokens = max(len(self._tokenizer.encode(transcript(cut))) for cut in cuts)
            for reason, measure in measures.items():
                size = measure(len(cuts), frames, tokens)
                if reason not in worst or size > worst[reason][0]:
                    worst[reason] = (size, i, cuts)
        reasons: dict[int, list[str]] = {}
        for reason, (_, i, _) in worst.items():
            reasons.setdefault(i, []).append(reason)
        for names in reasons.values():
            batch, _ = self._loader[worst[names[0]][2]]
            if len(batch):
                yield ", ".join(names), batch

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
            # The sharing among ranks is done below: lhotse's own repeats cuts when few are left at the end.
            rank=0,
            world_size=1,
        )
        sampler.set_epoch(epoch)
        return _share(sampler, rank, world_size)

    def _cuts(self, epoch: int) -> CutSet:
        """What is trained on in an epoch."""
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
        return problem_for_training(cut, self.config, self._tokenizer, self._output_lengths) is None

    def _with_noise(
        self, noise: NoiseMixer, batches: Iterable[CutSet], epoch: int, first: int, step: int
    ) -> Iterator[CutSet]:
        # Batches of all ranks are counted together, so that no two get the same noise.
        for number, cuts in zip(itertools.count(first, step), batches, strict=False):
            yield noise.mix(cuts, epoch, number)

    def _is_kept(self, cut: Cut) -> bool:
        return cut.id not in self._skipped_ids


class EvalData:
    """A dev or test split in a fixed order, batched by duration. Everything is kept that can be decoded at all."""

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        split: str,
        output_lengths: Callable[[int], int],
        max_duration: float | None = None,
        for_loss: bool = False,
    ) -> None:
        """
        Args:
            config: what to read.
            tokenizer: makes the token ids; characters that it does not know become ``<unk>``.
            split: name of the split.
            output_lengths: the encoder's frames for a number of feature frames.
            max_duration: seconds of audio in a batch; None: as in training.
            for_loss: also leave out what a loss is not defined for, as in training, except for long utterances.

        Raises:
            FileNotFoundError: the manifest is missing.
            ValueError: nothing of it is left.
        """
        self.config = config
        self.split = split
        self.skipped_items = SkippedItems()
        self._loader = _Loader(config, tokenizer)
        self._max_duration = max_duration or config.max_duration
        kept: list[Cut] = []
        for cut in config.read_cuts(split):
            if for_loss:
                problem = _problem_for_loss(cut, config, tokenizer, output_lengths)
            else:
                num_frames = _num_feature_frames(cut, config)
                problem = _no_encoder_frame(cut, num_frames, output_lengths(num_frames))
            if problem is None:
                kept.append(cut)
            else:
                self.skipped_items.add(problem)
        if not kept:
            raise ValueError(f"No cut of {config.location(split)} can be evaluated; {self.skipped_items.summary()}")
        # Of equal length, by name: the order must not depend on that of the manifest.
        self._cuts = sorted(kept, key=lambda cut: (cut.duration, cut.id))
        self.num_cuts = len(kept)
        self.total_seconds = sum(cut.duration for cut in kept)

    @property
    def skipped(self) -> dict[str, int]:
        """Number of cuts left out so far by reason; unreadable ones are found while iterating."""
        return self.skipped_items.counts

    def __iter__(self) -> Iterator[Batch]:
        """The batches, from the shortest utterances to the longest.

        Raises:
            RuntimeError: not a single cut can be read.
        """
        sampler = SimpleCutSampler(
            CutSet.from_cuts(self._cuts), max_duration=self._max_duration, shuffle=False, rank=0, world_size=1
        )
        listed = {item.id for item in self.skipped_items.items}
        num_read = 0
        for batch, failures in _load(self._loader, sampler, self.config.num_workers):
            self.skipped_items.extend(item for item in failures if item.id not in listed)
            num_read += len(batch)
            if num_read == 0 and len(failures) >= min(FAILURES_THAT_ARE_FATAL, self.num_cuts):
                raise _nothing_readable(len(failures), failures[-1], None)
            if len(batch):
                yield batch


def problem_for_training(
    cut: Cut, config: DataConfig, tokenizer: Tokenizer, output_lengths: Callable[[int], int]
) -> Skipped | None:
    """Why this cut cannot be trained on, or None."""
    if cut.duration < config.min_seconds:
        return _skip(cut, "too short", f"{cut.duration:.2f} s", "lower --data.min_seconds to use it")
    if cut.duration > config.max_seconds:
        return _skip(cut, "too long", f"{cut.duration:.2f} s", "raise --data.max_seconds, or segment the recording")
    return _problem_for_loss(cut, config, tokenizer, output_lengths)


def ctc_frames_needed(tokens: list[int]) -> int:
    """Encoder frames that CTC needs at least: one for each token and one blank between equal neighbours."""
    return max(len(tokens) + _repetitions(tokens), 1)


def transcript(cut: Cut) -> str:
    """The transcript of a cut: its supervisions' texts in order of time."""
    supervisions = sorted(cut.supervisions, key=lambda supervision: supervision.start)
    return " ".join(" ".join((supervision.text or "").split()) for supervision in supervisions).strip()


def _repetitions(items: Sequence[object]) -> int:
    return sum(map(operator.eq, items, items[1:]))


def _problem_for_loss(
    cut: Cut, config: DataConfig, tokenizer: Tokenizer, output_lengths: Callable[[int], int]
) -> Skipped | None:
    num_frames = _num_feature_frames(cut, config)
    frames = output_lengths(num_frames)
    return _no_encoder_frame(cut, num_frames, frames) or _loss_undefined(cut, frames, tokenizer)


def _no_encoder_frame(cut: Cut, num_frames: int, frames: int) -> Skipped | None:
    if frames >= 1:
        return None
    return _skip(
        cut, "too short for the encoder", f"{num_frames} feature frames give none of the encoder", "use longer audio"
    )


def _loss_undefined(cut: Cut, frames: int, tokenizer: Tokenizer) -> Skipped | None:
    text = transcript(cut)
    if not text:
        return _skip(cut, "empty transcript", "", "add the transcript, or remove the utterance")
    # No tokens need more frames than the characters and the mark before the first word: a token takes one frame, and
    # one more after an equal one, which as many characters of their own take as well. So most need not be made.
    if tokenizer.covers(text) and len(text) + 1 + _repetitions(text) <= frames:
        return None
    tokens = tokenizer.encode(text)
    if tokenizer.unk_id in tokens:
        unknown = " ".join(f"{c!r}" for c in tokenizer.unknown_characters(text))
        return _skip(
            cut, "unknown characters", f"{unknown} in {text!r}", "normalise the transcript, or make the tokens anew"
        )
    needed = ctc_frames_needed(tokens)
    if frames < needed:
        return _skip(
            cut,
            "too short for its tokens",
            f"{len(tokens)} tokens need {needed} encoder frames, {cut.duration:.2f} s give {frames}: {text!r}",
            "check that transcript and audio belong together, or use larger tokens",
        )
    return None


def _num_feature_frames(cut: Cut, config: DataConfig) -> int:
    if not config.on_the_fly and cut.has_features:
        return cut.num_frames
    return config.fbank_options().num_frames(round(cut.duration * config.sample_rate))


def _parts(cut: Cut) -> list[Cut]:
    """The cuts that are mixed in a cut, utterances before noise; of an ordinary cut itself."""
    parts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    return [part for part in parts if not isinstance(part, PaddingCut)]


def _audio_file(cut: Cut) -> str:
    return " ".join(source.source for part in _parts(cut) if part.has_recording for source in part.recording.sources)


def _skip(cut: Cut, reason: str, detail: str, remedy: str) -> Skipped:
    return Skipped(cut.id, _audio_file(cut), reason, detail, remedy)


def _nothing_readable(count: int, example: Skipped, listed_in: Path | None) -> RuntimeError:
    where = f" All are listed in {listed_in}." if listed_in else ""
    return RuntimeError(
        f"None of the first {count} cuts could be read, for example {example.id}, {example.file}: {example.detail}."
        f"{where} Relative paths count from the recipe's folder: start from there, or run ./prepare.sh anew"
    )


def _duration_bins(durations: list[float], num_buckets: int) -> list[float]:
    """Limits between buckets that hold about equally many seconds each."""
    num_buckets = min(num_buckets, len(durations))
    bins = estimate_duration_buckets(durations, num_buckets, _Identity()) if num_buckets > 1 else []
    return bins or [max(durations)]


class _Identity:
    """Lets lhotse's estimate work on durations instead of cuts."""

    def measure_length(self, duration: float) -> float:
        return duration


def _share(batches: Iterable[CutSet], rank: int, world_size: int) -> Iterator[CutSet]:
    """Every ``world_size``-th batch, with the incomplete last round split among all ranks."""
    if world_size == 1:
        yield from batches
        return
    held: list[list[Cut]] = []  # the last complete round, held back because an incomplete one may need cuts of it
    for batch_group in _rounds(batches, world_size):
        if len(batch_group) < world_size:
            held, batch_group = _complete(held, batch_group, world_size)
        if held:
            yield CutSet.from_cuts(held[rank])
        held = batch_group
    if held:
        yield CutSet.from_cuts(held[rank])


def _rounds(batches: Iterable[CutSet], world_size: int) -> Iterator[list[list[Cut]]]:
    # A generator, because iter() of an iterating lhotse sampler starts it anew, and islice() calls that.
    iterator = (batch for batch in batches)
    while group := [list(batch) for batch in itertools.islice(iterator, world_size)]:
        yield group


def _complete(
    previous: list[list[Cut]], last: list[list[Cut]], world_size: int
) -> tuple[list[list[Cut]], list[list[Cut]]]:
    """Make one batch for each rank of an incomplete last round; too few cuts are made up from the previous one."""
    cuts = [cut for batch in last for cut in batch]
    while len(cuts) < world_size and any(len(batch) > 1 for batch in previous):
        cuts.append(max(previous, key=len).pop())
    if len(cuts) < world_size:
        # Batches of one cut each: rather make some of two than repeat or lose a cut.
        for batch, cut in zip(previous, cuts, strict=False):
            batch.append(cut)
        return [], previous
    return previous, [cuts[rank::world_size] for rank in range(world_size)]


class _Loader(Dataset):
    """Loads the cuts of a batch. What cannot be read is left out and handed back as a list."""

    def __init__(self, config: DataConfig, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sample_rate = config.sample_rate
        self._num_mel_bins = config.num_mel_bins
        self._extractor = FbankExtractor(config.fbank_options()) if config.on_the_fly else None
        self._white_noise = None
        if config.silence.enabled:
            self._white_noise = WhiteNoise(self._extractor or FbankExtractor(config.fbank_options()))

    def __getitem__(self, cuts: CutSet) -> tuple[Batch, list[Skipped]]:
        features: list[Tensor] = []
        texts: list[str] = []
        cut_ids: list[str] = []
        failures: list[Skipped] = []
        seconds = 0.0
        for loaded in itertools.chain.from_iterable(map(self._load, cuts)):
            if isinstance(loaded, Skipped):
                failures.append(loaded)
                continue
            cut, matrix = loaded
            features.append(matrix)
            texts.append(transcript(cut))
            cut_ids.append(cut.id)
            seconds += sum(utterance.duration for utterance in utterances(cut))
        batch = Batch(
            features=pad_sequence(features, batch_first=True, padding_value=LOG_EPSILON)
            if features
            else torch.zeros(0, 0, self._num_mel_bins),
            feature_lengths=torch.tensor([len(matrix) for matrix in features], dtype=torch.int64),
            tokens=[self._tokenizer.encode(text) for text in texts],
            texts=texts,
            cut_ids=cut_ids,
            seconds=seconds,
        )
        return batch, failures

    def _load(self, cut: Cut) -> list[tuple[Cut, Tensor] | Skipped]:
        """A cut with its features (T, F), or why there are none. Of utterances that have been joined, those remain that
        can be read."""
        try:
            return [(cut, self._features(cut))]
        # What a broken file raises differs between formats and libraries; the text goes into the list.
        except Exception as error:
            parts = utterances(cut)
            loaded = [one for part in parts for one in self._load(part)] if len(parts) > 1 else []
            return loaded if any(isinstance(one, Skipped) for one in loaded) else [_unreadable(cut, error)]

    def _features(self, cut: Cut) -> Tensor:
        cut = with_data(cut)
        if self._extractor is not None:
            if cut.sampling_rate != self._sample_rate:
                cut = cut.resample(self._sample_rate)
            features = self._extractor.extract(cut.load_audio()[0])
        elif cut.has_features:
            features = torch.from_numpy(cut.load_features()).float()
        else:
            raise ValueError("the manifest has no features: set --data.on_the_fly true, or compute them")
        if features.shape[1] != self._num_mel_bins:
            raise ValueError(f"{features.shape[1]} features instead of {self._num_mel_bins}: see --data.num_mel_bins")
        if not torch.isfinite(features).all():
            raise ValueError("the features are not finite")
        if self._white_noise is not None:
            self._white_noise.fill(features, cut)
        return features  # (T, F)


def _place_of_data(cut: Cut) -> str | None:
    if place := place_in_shar(cut):
        return str(place)
    return f"features {cut.features.storage_path}/{cut.features.storage_key}" if cut.has_features else None


def _unreadable(cut: Cut, error: Exception) -> Skipped:
    # lhotse appends the call with all its arguments.
    detail = f"{type(error).__name__}: {str(error).split('[extra info]')[0].strip()}"
    places = [place for part in _parts(cut) if (place := _place_of_data(part))]
    if places:
        detail += f" ({', '.join(places)})"
    return _skip(cut, "unreadable", detail, "restore the file, then run local/validate_cuts.py")


def _load(loader: _Loader, batches: Iterable[CutSet], num_workers: int) -> Iterator[tuple[Batch, list[Skipped]]]:
    yield from DataLoader(
        loader,
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        # Of its own, because a DataLoader draws from the global generator, which the trainer saves and restores.
        generator=torch.Generator().manual_seed(0),
    )


def _as_it_is(item: Any) -> Any:
    return item
