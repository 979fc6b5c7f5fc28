"""Recognition of whole splits in the three modes, and comparison of modes by utterance."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig, to_device
from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.config import CorpusConfig, DataConfig
from summarymix.data.loading import Batch
from summarymix.data.noise import NoiseConfig
from summarymix.data.silence import SilenceConfig
from summarymix.data.skipped import Skipped
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.delays import Delays, PartialResults
from summarymix.decoding.search import Hypothesis, Search
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.words import Transcript, make_transcript, words_of
from summarymix.distributed import World
from summarymix.encoder.subsampling import FEATURE_SECONDS
from summarymix.scoring.errors import ScoredUtterance
from summarymix.state import state_bytes

Mode = Literal["offline", "simulated", "streaming"]
OFFLINE = ChunkConfig()
NO_DURATIONS: Mapping[str, float] = MappingProxyType({})
TIE = 1e-4  # two logits closer than this may swap ranks through float32 rounding


@dataclass(frozen=True)
class DecodeSetting:
    """A decoding mode with its chunk size and left context.

    ``offline``: whole utterances, full context. ``simulated``: whole utterances under chunk masks.
    ``streaming``: chunk by chunk, with carried state, many streams in parallel. Simulated and streaming decoding give
    the same tokens.

    Raises:
        ValueError: offline with a chunk size, or another mode without one.
    """

    mode: Mode
    chunk: ChunkConfig = OFFLINE

    def __post_init__(self) -> None:
        if (self.mode == "offline") != (self.chunk.chunk_size is None):
            raise ValueError(
                f"{self.mode} decoding with {self.chunk}: offline takes no chunk size, the others need one"
            )

    @property
    def name(self) -> str:
        """Name for files: ``offline``, ``streaming-chunk-640-left-4``, ``…-left-unlimited-ahead-160``."""
        if self.mode == "offline":
            return self.mode
        left = "unlimited" if self.chunk.left_chunks < 0 else self.chunk.left_chunks
        ahead = f"-ahead-{self.chunk.lookahead_ms}" if self.chunk.lookahead else ""
        return f"{self.mode}-chunk-{self.chunk.chunk_ms}-left-{left}{ahead}"


def evaluation_data(config: dict[str, Any], manifest_dir: str | None = None) -> DataConfig:
    """Return the data configuration of a checkpoint, without noise and added silence.

    Args:
        config: section ``data`` of the checkpoint's configuration.
        manifest_dir: folder of the manifests of the recipe's corpus, if they have moved since training.
    """
    # No workers: loading in this process does not compete with the timed computation.
    parts: dict[str, Any] = {
        "spec_augment": SpecAugmentConfig(**config["spec_augment"]),
        "corpora": [CorpusConfig(**corpus) for corpus in config.get("corpora", [])],
    }
    training_only = {"noise": NoiseConfig(), "silence": SilenceConfig(), "num_workers": 0}
    data = DataConfig(**{**config, **parts, **training_only})
    return data if manifest_dir is None else replace(data, manifest_dir=manifest_dir, shar_dir=None)


def stream_state_bytes(search: Search, chunk: ChunkConfig) -> int | None:
    """Return the bytes kept per stream between two chunks by encoder and search, without features and without the
    states of language models and hotwords.

    None offline, for an encoder that cannot stream (attention with unlimited left context), and for a search whose
    memory grows.
    """
    if chunk.chunk_size is None or not search.constant_state:
        return None
    try:
        encoder_state = search.model.encoder.init_state(1, chunk)
    except ValueError:
        return None
    return state_bytes(encoder_state) + state_bytes(search.init_state(1, search.model.device))


@dataclass
class Decoded:
    """A recognised split. Times are in seconds; ``computing`` covers encoder and search, without data loading."""

    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)  # by cut id
    texts: dict[str, str] = field(default_factory=dict)  # reference transcripts
    skipped: list[Skipped] = field(default_factory=list)  # cuts that could not be recognised
    audio: float = 0.0
    computing: float = 0.0
    delays: dict[str, Delays] = field(default_factory=dict)  # of streaming, by cut id

    def utterances(self, tokenizer: Tokenizer, durations: Mapping[str, float] = NO_DURATIONS) -> list[ScoredUtterance]:
        """Return references and hypotheses as words, with the durations in seconds if they are given by cut id."""
        return [
            ScoredUtterance(
                cut_id,
                self.texts[cut_id].split(),
                tokenizer.decode(hypothesis.tokens).split(),
                durations.get(cut_id, 0.0),
            )
            for cut_id, hypothesis in self.hypotheses.items()
        ]

    def transcripts(self, tokenizer: Tokenizer, durations: Mapping[str, float]) -> dict[str, Transcript]:
        """Return tokens and words of each cut, with times and confidences; durations in seconds are given by cut id."""
        return {
            cut_id: make_transcript(hypothesis, tokenizer, 0).until(durations[cut_id])
            for cut_id, hypothesis in self.hypotheses.items()
        }

    def nbest(self, tokenizer: Tokenizer) -> dict[str, list[tuple[float, str]]]:
        """Return score and text of the alternatives of each cut, best first."""
        return {
            cut_id: [(h.score, tokenizer.decode(h.tokens)) for h in hypothesis.alternatives]
            for cut_id, hypothesis in self.hypotheses.items()
        }

    def gathered(self, world: World) -> "Decoded":
        """Return what all processes have recognised, on the main process. Times are summed."""
        whole = Decoded()
        for part in world.gather(self):
            whole.hypotheses |= part.hypotheses
            whole.texts |= part.texts
            whole.skipped = list(dict.fromkeys(whole.skipped + part.skipped))  # all processes list some of them
            whole.audio += part.audio
            whole.computing += part.computing
            whole.delays |= part.delays
        return whole


def decode_split(
    search: Search,
    setting: DecodeSetting,
    batches: Iterable[Batch],
    num_streams: int = 16,
    nbest: int = 0,
    on_progress: Callable[[float], object] = lambda seconds: None,
    tokenizer: Tokenizer | None = None,
) -> Decoded:
    """Recognise all utterances of ``batches``.

    Args:
        search: search with a model in evaluation mode.
        setting: decoding mode.
        batches: batches of the split.
        num_streams: number of utterances decoded in parallel in streaming mode.
        nbest: number of alternatives to keep of each utterance.
        on_progress: called with the seconds of audio of each decoded batch; in streaming mode as soon as its last
            utterance has started.
        tokenizer: with it, the delays of streaming are measured.
    """
    decoded = Decoded()
    apart = 0.0  # seconds that are not computing
    start = perf_counter()

    def timed() -> Iterator[Batch]:
        nonlocal apart
        iterator = iter(batches)
        while True:
            begin = perf_counter()
            batch = next(iterator, None)
            apart += perf_counter() - begin
            if batch is None:
                return
            decoded.audio += batch.seconds
            decoded.texts.update(zip(batch.cut_ids, batch.texts, strict=True))
            yield batch
            on_progress(batch.seconds)

    partial: dict[str, PartialResults] = {}
    results: Iterable[tuple[str, Hypothesis]]
    if setting.mode == "streaming":
        recognizer = StreamingRecognizer(search, setting.chunk, num_streams)

        def watch(cut_id: str, hypothesis: Hypothesis, seconds: float) -> None:
            nonlocal apart
            begin = perf_counter()
            if tokenizer is not None:
                partial[cut_id].add([word.text for word in words_of(hypothesis.tokens, tokenizer)], seconds)
            apart += perf_counter() - begin

        def started() -> Iterator[tuple[str, Tensor]]:
            for cut_id, features, seconds in _utterances(timed()):
                partial[cut_id] = PartialResults(seconds, setting.chunk)
                yield cut_id, features

        results = recognizer.decode_all(started(), watch)
    else:
        results = (
            result
            for batch in timed()
            for result in zip(batch.cut_ids, decode_batch(search, batch, setting.chunk), strict=True)
        )
    for cut_id, hypothesis in results:
        hypothesis.finish(nbest)
        decoded.hypotheses[cut_id] = hypothesis
    decoded.computing = perf_counter() - start - apart
    if tokenizer is not None:
        decoded.delays = {cut_id: of_cut.delays() for cut_id, of_cut in partial.items()}
    return decoded


@torch.inference_mode()
def decode_batch(search: Search, batch: Batch, chunk: ChunkConfig) -> list[Hypothesis]:
    """Recognise whole utterances, offline or under chunk masks."""
    features = to_device(batch.features, search.model.device)
    encoder_out, lengths = search.model.encoder(features, batch.feature_lengths, chunk)  # (N, T, D), (N,)
    return search.decode(encoder_out, lengths)


def _utterances(batches: Iterable[Batch]) -> Iterator[tuple[str, Tensor, float]]:
    """Yield cut id, features (T, F), and seconds without the tail of each utterance."""
    for batch in batches:
        for cut_id, features, length in zip(batch.cut_ids, batch.features, batch.feature_lengths.tolist(), strict=True):
            yield cut_id, features[:length], FEATURE_SECONDS * (length - batch.tail_frames)


@dataclass(frozen=True)
class Difference:
    """An utterance whose results in two modes differ from frame ``frame`` on.

    ``margin`` is the smaller one of the two modes' margins at this frame (:meth:`Hypothesis.margin`).
    """

    cut_id: str
    frame: int
    margin: float

    @property
    def is_tie(self) -> bool:
        """True if float32 rounding explains the difference."""
        return self.margin < TIE


def decoding_differences(one: dict[str, Hypothesis], other: dict[str, Hypothesis]) -> list[Difference]:
    """Return the utterances whose tokens or frames differ, by cut id. Both sides need :attr:`Hypothesis.margins`.

    Raises:
        ValueError: an utterance is in one of the two only.
    """
    if one.keys() != other.keys():
        raise ValueError(f"different utterances: {sorted(one.keys() ^ other.keys())[:5]} are in one of the two only")
    found = []
    for cut_id in sorted(one):
        frame = _first_difference(one[cut_id], other[cut_id])
        if frame is not None:
            margins = [h.margin(frame) for h in (one[cut_id], other[cut_id]) if frame < len(h.margins)]
            # A frame that only one of the two has is never a tie.
            found.append(Difference(cut_id, frame, min(margins) if len(margins) == 2 else float("inf")))
    return found


def _first_difference(one: Hypothesis, other: Hypothesis) -> int | None:
    """Return the first frame at which the emitted tokens differ, or that only one of the two has."""
    emitted = zip_longest(zip(one.frames, one.tokens, strict=True), zip(other.frames, other.tokens, strict=True))
    for pair in emitted:
        if pair[0] != pair[1]:
            return min(emission[0] for emission in pair if emission is not None)
    return None if one.num_frames == other.num_frames else min(one.num_frames, other.num_frames)
