"""Python API: from a trained model to transcripts.

    recognizer = summarymix.load("exp")
    print(recognizer.transcribe("talk.mp3").text)

    stream = recognizer.stream(sample_rate=48000)
    for block in microphone:
        for segment in stream.accept(block):
            print(segment.text)
        show(stream.partial)
    for segment in stream.finish():
        print(segment.text)

``microphone`` yields blocks of samples, and ``show`` displays a line that may still change.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from summarymix.chunking import CHUNK_MS, ChunkConfig, DynamicChunkConfig, default_chunk
from summarymix.data.audio import AudioReader, Resampler, has_small_filter, to_mono
from summarymix.data.features import FbankExtractor, trained_on
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.backend import Backend, StreamBackend
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.live import Endpointing, LiveStream, LiveStreams
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.search import Search
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.windows import WindowedRecognizer
from summarymix.decoding.words import Transcript, make_transcript
from summarymix.distributed import find_device
from summarymix.export.onnx_step import OnnxCache
from summarymix.export.onnx_transducer import OnnxTransducer, encoder_stems
from summarymix.model import Transducer, TransducerParts
from summarymix.runs import load_run_or_checkpoint

TranscribeMode = Literal["streaming", "offline"]


class Recognizer:
    """A model that is ready to recognise audio, made by :func:`summarymix.load`.

    Args:
        model: in evaluation mode, on the device to compute on; or an exported model.
        tokenizer: the model's tokenizer.
        extractor: extractor of the features that the model was trained on.
        left_chunks: default left context of streams, -1 for unlimited.
        search: search with the model; by default greedy search with one symbol per frame.
        rnnt_type: lattice that the model was trained with.
        backend: what computes streams; None: the model itself.
    """

    def __init__(
        self,
        model: TransducerParts,
        tokenizer: Tokenizer,
        extractor: FbankExtractor,
        left_chunks: int = -1,
        search: Search | None = None,
        rnnt_type: str = "regular",
        backend: StreamBackend | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.extractor = extractor
        self.left_chunks = left_chunks
        self.search: Search = search or GreedySearch(model, unk_id=tokenizer.unk_id)
        self.rnnt_type = rnnt_type
        self.backend = backend

    @classmethod
    def load(
        cls,
        path: Path | str,
        epoch: int | None = None,
        avg: int | None = None,
        device: str | None = None,
        int8: bool = False,
        backend: Backend | None = None,
    ) -> "Recognizer":
        """See :func:`summarymix.load`."""
        path = Path(path)
        if backend not in (None, *get_args(Backend)):
            raise ValueError(f"the backend must be {', '.join(get_args(Backend))} or None, not {backend}")
        if encoder_stems(path):
            if epoch is not None or avg is not None or device not in (None, "cpu"):
                raise ValueError(f"{path} is an exported model: epoch and avg are fixed in it, and it runs on the CPU")
            if backend == "torch":
                raise ValueError(f"{path} is an exported model, which only ONNX Runtime computes: give the trained one")
            return cls.from_exported(OnnxTransducer(path, "int8" if int8 else "fp32"), path)
        if int8:
            raise ValueError(f"{path} is not an exported model, and others have no int8 weights")
        model, tokenizer, info = load_run_or_checkpoint(path, epoch, avg)
        recognizer = cls.from_run(model, tokenizer, info["config"], device)
        if backend in ("auto", "onnx"):
            recognizer.backend = StreamBackend(backend, OnnxCache(path, model, tokenizer, info))
        return recognizer

    @classmethod
    def from_run(
        cls, model: Transducer, tokenizer: Tokenizer, config: dict[str, Any], device: str | None = None
    ) -> "Recognizer":
        """Make a recogniser from a loaded model and the configuration of its training."""
        model.to(find_device(device))
        extractor = FbankExtractor(trained_on(config["data"]))
        left_chunks = default_left_chunks(DynamicChunkConfig(**config["chunk"]))
        return cls(model, tokenizer, extractor, left_chunks, rnnt_type=config["loss"]["rnnt_type"])

    @classmethod
    def from_exported(cls, model: OnnxTransducer, folder: Path) -> "Recognizer":
        """Make a recogniser from exported files and the tokens in their folder."""
        extractor = FbankExtractor(model.fbank)
        tokenizer = Tokenizer.from_lang_dir(folder)
        return cls(model, tokenizer, extractor, model.encoder.chunks[0].left_chunks, rnnt_type=model.rnnt_type)

    def set_search(self, options: SearchOptions) -> None:
        """Set the search of later calls.

        Raises:
            ValueError, OSError: see :meth:`SearchOptions.check_lattice` and :meth:`SearchOptions.build`.
        """
        options.check_lattice(self.rnnt_type)
        self.search = options.build(self.model, self.tokenizer)

    def transcribe(
        self,
        audio: Path | str | Tensor | np.ndarray,
        sample_rate: int | None = None,
        *,
        mode: TranscribeMode = "streaming",
        chunk_ms: int | None = None,
        left_chunks: int | None = None,
        lookahead_ms: int | None = None,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
        channel: int | None = None,
        reset_after_silence: float | None = None,
    ) -> Transcript:
        """Recognise a recording of any length.

        Args:
            audio: a file, read in blocks; or samples, (n,) or (n, channels) as soundfile reads them, in [-1, 1] or
                integers.
            sample_rate: sampling rate of the samples in Hz; None for the model's.
            mode: ``streaming``, chunk by chunk as :meth:`stream` does, or ``offline``, with full context in windows.
            chunk_ms: see :meth:`stream`.
            left_chunks: see :meth:`stream`.
            lookahead_ms: see :meth:`stream`.
            window_seconds: length of the offline windows; a shorter recording is recognised as a whole. None: 30.
            overlap_seconds: overlap of consecutive windows. None: 4.
            channel: channel, counted from 0; None for the mean of all.
            reset_after_silence: see :meth:`stream`.

        Raises:
            FileNotFoundError, ValueError: the audio cannot be read, or an option is invalid; the message names it.
        """
        options: dict[str, dict[str, float | None]] = {
            "streaming": {"--window-seconds": window_seconds, "--overlap-seconds": overlap_seconds},
            "offline": {
                "--chunk-ms": chunk_ms,
                "--left-chunks": left_chunks,
                "--lookahead-ms": lookahead_ms or None,
                "--reset-after-silence": reset_after_silence,
            },
        }
        if mode not in options:
            raise ValueError(f"the mode must be streaming or offline, not {mode}")
        if unused := [name for name, value in options[mode].items() if value is not None]:
            raise ValueError(f"{unused[0]} has no effect with --mode {mode}: leave it out")
        rate = self.extractor.options.sample_rate
        blocks: Iterable[Tensor]
        if isinstance(audio, str | Path):
            reader = AudioReader(audio, channel)
            blocks, sample_rate = reader.blocks(rate), rate
        else:
            blocks = [to_mono(audio, channel)]
            sample_rate = rate if sample_rate is None else sample_rate
        if mode == "streaming":
            stream = self.stream(sample_rate, chunk_ms, left_chunks, lookahead_ms, None, reset_after_silence)
            segments = [segment for block in blocks for segment in stream.accept(block)] + stream.finish()
            return joined(segments, stream.seconds)
        self.model.encoder.check_chunk(ChunkConfig())
        sizes = {"window_seconds": window_seconds, "overlap_seconds": overlap_seconds}
        given = {name: seconds for name, seconds in sizes.items() if seconds is not None}
        windowed = WindowedRecognizer(self.search, self.tokenizer.tokens, **given)
        counted = _Counted(blocks)
        hypothesis = windowed.recognize(self._features(counted, sample_rate))
        seconds = counted.num_samples / sample_rate
        return joined([make_transcript(hypothesis, self.tokenizer, 0).until(seconds)], seconds)

    def stream(
        self,
        sample_rate: int | None = None,
        chunk_ms: int | None = None,
        left_chunks: int | None = None,
        lookahead_ms: int | None = None,
        endpointing: Endpointing | None = Endpointing(),
        reset_after_silence: float | None = None,
    ) -> LiveStream:
        """Open a stream, which is recognised while its samples arrive.

        Args:
            sample_rate: sampling rate of the samples in Hz; None for the model's.
            chunk_ms: chunk size, a multiple of 40 ms; results come chunk by chunk. None: 640; of an exported
                model that nearest to 640.
            left_chunks: left context in chunks; -1 for all since the stream's start, whose running mean hardly changes
                after some minutes. None: :attr:`left_chunks`, limited for models trained with limited left context.
            lookahead_ms: audio behind a chunk that it waits for and sees, a multiple of 40 ms.
                None: 0, or the least of an exported model.
            endpointing: rules that end segments; None for a single segment.
            reset_after_silence: after this many seconds, and at least one chunk, without a token, encoder and search
                are reset as if a new stream began with the last chunk; a word that begins in this chunk stays whole.
                Servers such as sherpa's reset the search only, but a long past or a long silence distorts the
                encoder's mean. In a long silence this repeats; each time a chunk is computed twice.

        Raises:
            ValueError: the model cannot stream with these values.
        """
        return self.streams(1, chunk_ms, left_chunks, lookahead_ms).open(sample_rate, endpointing, reset_after_silence)

    def streams(
        self,
        num_streams: int,
        chunk_ms: int | None = None,
        left_chunks: int | None = None,
        lookahead_ms: int | None = None,
    ) -> LiveStreams:
        """Make room for streams that are decoded together, a chunk of each at a time.

        Args:
            num_streams: largest number of streams at a time.
            chunk_ms: see :meth:`stream`.
            left_chunks: see :meth:`stream`.
            lookahead_ms: see :meth:`stream`.

        Raises:
            ValueError: the model cannot stream with these values.
        """
        chunk = self._chunk(chunk_ms, self.left_chunks if left_chunks is None else left_chunks, lookahead_ms)
        self.model.encoder.check_chunk(chunk)
        search = self.search if self.backend is None else self.backend.prepare(self.search, chunk)
        return LiveStreams(StreamingRecognizer(search, chunk, num_streams, self.extractor), self.tokenizer)

    def resamples_quickly(self, sample_rate: int) -> bool:
        """True if audio at ``sample_rate`` Hz takes little computing to resample."""
        return has_small_filter(sample_rate, self.extractor.options.sample_rate)

    def _chunk(self, chunk_ms: int | None, left_chunks: int, lookahead_ms: int | None) -> ChunkConfig:
        """Setting of a stream; None: of an exported model the default one of those with the other values."""
        exported = self.model.encoder.chunks if isinstance(self.model, OnnxTransducer) else []
        matching = [
            chunk
            for chunk in exported
            if chunk.chunk_size is not None
            and chunk_ms in (None, chunk.chunk_ms)
            and left_chunks == chunk.left_chunks
            and lookahead_ms in (None, chunk.lookahead_ms)
        ]
        if matching:
            return default_chunk(matching)
        return ChunkConfig.from_ms(CHUNK_MS if chunk_ms is None else chunk_ms, left_chunks, lookahead_ms or 0)

    def _features(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        resampler = Resampler(sample_rate, self.extractor.options.sample_rate)
        online = self.extractor.online()
        for block in blocks:
            yield online.accept(resampler.accept(block))
        yield online.accept(resampler.finish())
        yield online.finish()


class _Counted:
    """Iterable of blocks that counts their samples."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._blocks = blocks
        self.num_samples = 0

    def __iter__(self) -> Iterator[Tensor]:
        for block in self._blocks:
            self.num_samples += len(block)
            yield block


def joined(segments: Iterable[Transcript], seconds: float) -> Transcript:
    """Join consecutive segments into one transcript of ``seconds`` of audio."""
    segments = list(segments)
    return Transcript(
        text=" ".join(segment.text for segment in segments if segment.text),
        start=0.0,
        end=seconds,
        tokens=[token for segment in segments for token in segment.tokens],
        words=[word for segment in segments for word in segment.words],
    )


def default_left_chunks(chunk: DynamicChunkConfig) -> int:
    """Return the default left context for a model trained with this distribution, -1 for unlimited."""
    return chunk.max_left if chunk.limited_left_prob > 0 and chunk.full_context_prob < 1 else -1
