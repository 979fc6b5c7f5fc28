"""Recognising whole splits in one of the three modes, and comparing modes utterance by utterance."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.config import DataConfig
from summarymix.data.features import FbankOptions
from summarymix.data.loading import Batch
from summarymix.data.noise import NoiseConfig
from summarymix.data.silence import SilenceConfig
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.search import Hypothesis, Search
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.words import Transcript, make_transcript
from summarymix.encoder.subsampling import features_needed
from summarymix.model import Transducer
from summarymix.scoring.results import ScoredUtterance
from summarymix.state import state_bytes

Mode = Literal["offline", "simulated", "streaming"]
OFFLINE = ChunkConfig()
TIE = 1e-4  # two logits closer than this may change places through float32 rounding


@dataclass(frozen=True)
class DecodeSetting:
    """A mode of decoding, with its chunk size and left context.

    ``offline``: whole utterances, full context. ``simulated``: whole utterances under chunk masks.
    ``streaming``: chunk by chunk, with carried state, many streams side by side. The last two give the same
    tokens.

    Raises:
        ValueError: the mode and the chunk size exclude each other.
    """

    mode: Mode
    chunk: ChunkConfig = OFFLINE

    def __post_init__(self) -> None:
        if (self.mode == "offline") != (self.chunk.chunk_size is None):
            raise ValueError(f"{self.mode} decoding with {self.chunk}: offline has no chunk size, the others need one")

    @property
    def name(self) -> str:
        """For file names: ``offline``, ``streaming-chunk-640-left-4``, ``…-left-unlimited``."""
        if self.mode == "offline":
            return self.mode
        left = "unlimited" if self.chunk.left_chunks < 0 else self.chunk.left_chunks
        return f"{self.mode}-chunk-{self.chunk.chunk_ms}-left-{left}"


def evaluation_data(config: dict[str, Any], manifest_dir: str | None = None) -> DataConfig:
    """Where and what a run's splits are: ``data`` of a checkpoint's configuration, without noise and added silence.

    Args:
        config: ``data`` of the configuration.
        manifest_dir: folder of the manifests, if they have been moved since training.
    """
    # Reading in this process, so that loading does not compete with what is being timed.
    spec_augment = SpecAugmentConfig(**config["spec_augment"])
    training_only = {"noise": NoiseConfig(), "silence": SilenceConfig(), "num_workers": 0}
    data = DataConfig(**{**config, "spec_augment": spec_augment, **training_only})
    return data if manifest_dir is None else replace(data, manifest_dir=manifest_dir, shar_dir=None)


def latency_ms(chunk: ChunkConfig, fbank: FbankOptions) -> float | None:
    """Algorithmic latency: from a chunk's first sample to the last one that its result needs; None offline.

    That is the chunk itself, three more feature frames of the front end, and half a window.
    """
    if chunk.chunk_size is None:
        return None
    samples = (features_needed(chunk.chunk_size) - 1) * fbank.shift + fbank.window - fbank.left_padding
    return 1000 * samples / fbank.sample_rate


def stream_state_bytes(model: Transducer, search: Search, chunk: ChunkConfig) -> int | None:
    """Bytes kept for a stream between two chunks, encoder and predictor, features not counted.

    None offline, where the encoder cannot stream (attention with unlimited left context), and where the search keeps
    more and more.
    """
    if chunk.chunk_size is None or not search.constant_state:
        return None
    try:
        encoder_state = model.encoder.init_state(1, chunk)
    except ValueError:
        return None
    return state_bytes(encoder_state) + state_bytes(search.init_state(1, next(model.parameters()).device))


@dataclass
class Decoded:
    """A recognised split. Times in seconds; ``computing`` is encoder and search, without reading data."""

    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)  # by cut id
    texts: dict[str, str] = field(default_factory=dict)  # reference transcripts
    audio: float = 0.0
    computing: float = 0.0

    def utterances(self, tokenizer: Tokenizer) -> list[ScoredUtterance]:
        """References and hypotheses as words."""
        return [
            ScoredUtterance(cut_id, self.texts[cut_id].split(), tokenizer.decode(hypothesis.tokens).split())
            for cut_id, hypothesis in self.hypotheses.items()
        ]

    def transcripts(self, tokenizer: Tokenizer) -> dict[str, Transcript]:
        """Tokens and words of each cut, with times and confidences."""
        return {cut_id: make_transcript(hypothesis, tokenizer, 0) for cut_id, hypothesis in self.hypotheses.items()}

    def nbest(self, tokenizer: Tokenizer, limit: int) -> dict[str, list[tuple[float, str]]]:
        """Score and text of up to ``limit`` hypotheses of each cut, the best first."""
        return {
            cut_id: [(h.score, tokenizer.decode(h.tokens)) for h in hypothesis.nbest(limit)]
            for cut_id, hypothesis in self.hypotheses.items()
        }


def decode_split(
    model: Transducer,
    tokenizer: Tokenizer,
    search: Search,
    setting: DecodeSetting,
    batches: Iterable[Batch],
    num_streams: int = 16,
    on_progress: Callable[[float], object] = lambda seconds: None,
) -> Decoded:
    """Recognise all utterances of ``batches``.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        search: the same for every mode.
        setting: the mode.
        batches: the split.
        num_streams: in streaming mode, how many utterances are decoded side by side.
        on_progress: called with the seconds of audio of each batch when it has been decoded; in streaming mode when
            its last utterance has been begun.
    """
    decoded = Decoded()
    reading = 0.0
    start = perf_counter()

    def timed() -> Iterator[Batch]:
        nonlocal reading
        iterator = iter(batches)
        while True:
            begin = perf_counter()
            batch = next(iterator, None)
            reading += perf_counter() - begin
            if batch is None:
                return
            decoded.audio += batch.seconds
            decoded.texts.update(zip(batch.cut_ids, batch.texts, strict=True))
            yield batch
            on_progress(batch.seconds)

    if setting.mode == "streaming":
        recognizer = StreamingRecognizer(search, setting.chunk, num_streams)
        decoded.hypotheses.update(recognizer.decode_all(_utterances(timed())))
    else:
        for batch in timed():
            hypotheses = decode_batch(model, search, batch, setting.chunk)
            decoded.hypotheses.update(zip(batch.cut_ids, hypotheses, strict=True))
    decoded.computing = perf_counter() - start - reading
    return decoded


@torch.inference_mode()
def decode_batch(model: Transducer, search: Search, batch: Batch, chunk: ChunkConfig) -> list[Hypothesis]:
    """Recognise whole utterances, offline or under chunk masks."""
    device = next(model.parameters()).device
    encoder_out, lengths = model.encoder(
        batch.features.to(device), batch.feature_lengths.to(device), chunk
    )  # (N, T, D), (N,)
    return search.decode(encoder_out, lengths)


def _utterances(batches: Iterable[Batch]) -> Iterator[tuple[str, Tensor]]:
    """The cut id and the features (T, F) of each utterance."""
    for batch in batches:
        for cut_id, features, length in zip(batch.cut_ids, batch.features, batch.feature_lengths.tolist(), strict=True):
            yield cut_id, features[:length]


@dataclass(frozen=True)
class Difference:
    """An utterance that two modes recognise differently, from frame ``frame`` on.

    ``margin`` is that of the decisions which the frame depends on (:meth:`Hypothesis.margin`), in the mode where it is
    smaller.
    """

    cut_id: str
    frame: int
    margin: float

    @property
    def is_tie(self) -> bool:
        """Whether float32 rounding explains it."""
        return self.margin < TIE


def decoding_differences(one: dict[str, Hypothesis], other: dict[str, Hypothesis]) -> list[Difference]:
    """The utterances whose tokens or frames differ, by cut id. Both sides need :attr:`Hypothesis.margins`.

    Raises:
        ValueError: the two are not of the same utterances.
    """
    if one.keys() != other.keys():
        raise ValueError(f"not the same utterances: {sorted(one.keys() ^ other.keys())[:5]} are in one of the two only")
    found = []
    for cut_id in sorted(one):
        frame = _first_difference(one[cut_id], other[cut_id])
        if frame is not None:
            margins = [h.margin(frame) for h in (one[cut_id], other[cut_id]) if frame < len(h.margins)]
            # A frame that only one of them has is no tie, whatever its scores.
            found.append(Difference(cut_id, frame, min(margins) if len(margins) == 2 else float("inf")))
    return found


def _first_difference(one: Hypothesis, other: Hypothesis) -> int | None:
    """The first frame at which the two emitted different tokens, or that only one of them has."""
    emitted = zip_longest(zip(one.frames, one.tokens, strict=True), zip(other.frames, other.tokens, strict=True))
    for pair in emitted:
        if pair[0] != pair[1]:
            return min(emission[0] for emission in pair if emission is not None)
    return None if one.num_frames == other.num_frames else min(one.num_frames, other.num_frames)
