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

import argparse
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from summarymix.chunking import CHUNK_MS, FRAME_MS, ChunkConfig, DynamicChunkConfig, default_chunk
from summarymix.data.audio import AudioReader, Resampler, has_small_filter, to_mono
from summarymix.data.features import FbankExtractor, trained_on
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.backend import Backend, StreamBackend
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.search import Search
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.windows import WindowedRecognizer
from summarymix.decoding.words import SPACE, Transcript, make_transcript, text_of, word_starts
from summarymix.distributed import find_device
from summarymix.encoder.subsampling import FEATURE_SECONDS
from summarymix.export.onnx_step import OnnxCache
from summarymix.export.onnx_transducer import OnnxTransducer, encoder_stems
from summarymix.model import Transducer, TransducerParts
from summarymix.runs import load_run_or_checkpoint

TranscribeMode = Literal["streaming", "offline"]
_FRAME = FRAME_MS / 1000
# Tokens of an ended segment that are compared with a later hypothesis; earlier ones are settled.
_NUM_TAIL = 16


@dataclass(frozen=True)
class Endpointing:
    """Rules that cut a stream's text into segments. Encoder and search continue across a cut. The text of an ended
    segment is final, even if a beam search would still have changed it.

    Args:
        silence: seconds without a token that end a segment.
        max_seconds: a segment that lasts longer ends before its last word.
    """

    silence: float = 1.2
    max_seconds: float = 20.0

    def __post_init__(self) -> None:
        for seconds in (self.silence, self.max_seconds):
            if not seconds > 0:
                raise ValueError(f"endpointing needs more than 0 seconds, not {seconds:g}")

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
        """Add an option for each rule to a command line."""
        option = parser.add_argument
        option(
            "--endpoint-silence",
            type=float,
            default=cls.silence,
            help=f"seconds without a word to end a segment ({cls.silence:g})",
        )
        option(
            "--max-segment-seconds",
            type=float,
            default=cls.max_seconds,
            help=f"maximum seconds of a segment ({cls.max_seconds:g})",
        )

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Endpointing":
        """Make the rules from the options of :meth:`add_to`."""
        return cls(args.endpoint_silence, args.max_segment_seconds)


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
    ) -> "LiveStream":
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
    ) -> "LiveStreams":
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


class LiveStreams:
    """Recordings that are recognised together while they arrive, made by :meth:`Recognizer.streams`.

        streams = recognizer.streams(50)
        stream = streams.open()
        stream.push(block)
        for stream in streams.step():
            print([segment.text for segment in stream.take()], stream.partial)

    Each stream gets the text that it would get alone.
    """

    def __init__(self, recognizer: StreamingRecognizer, tokenizer: Tokenizer) -> None:
        assert recognizer.extractor is not None
        self.recognizer = recognizer
        self.tokenizer = tokenizer
        self.sample_rate = recognizer.extractor.options.sample_rate
        """The model's sampling rate in Hz."""
        self._streams: list[LiveStream] = []

    def __len__(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def open(
        self,
        sample_rate: int | None = None,
        endpointing: Endpointing | None = Endpointing(),
        reset_after_silence: float | None = None,
    ) -> "LiveStream":
        """Open a stream; for the arguments see :meth:`Recognizer.stream`.

        Raises:
            RuntimeError: as many streams are open as there is room for.
            ValueError: ``reset_after_silence`` or the sampling rate is not positive.
        """
        if reset_after_silence is not None and not reset_after_silence > 0:
            raise ValueError(f"--reset-after-silence must be above 0, not {reset_after_silence:g}")
        rate = self.sample_rate if sample_rate is None else sample_rate
        stream = LiveStream(self, rate, endpointing, reset_after_silence)
        self._streams.append(stream)
        return stream

    def step(self) -> list["LiveStream"]:
        """Decode a chunk of every stream that has a whole one, or has ended.

        Returns:
            These streams. Those whose input has ended and is decoded are closed.
        """
        ready = [stream for stream in self._streams if stream.missing_seconds <= 0]
        for stream in ready:
            stream._finish_input()
        self.recognizer.step()
        for stream in ready:
            stream._advance()
        return ready

    def discard(self, stream: "LiveStream") -> None:
        """Close a stream, decoded or not: its place is free for another."""
        self._streams.remove(stream)
        self.recognizer.close(stream._stream)


class LiveStream:
    """A recording that is recognised while it arrives, made by :meth:`Recognizer.stream` or :meth:`LiveStreams.open`.

    A stream of its own is fed by :meth:`accept` and :meth:`finish`. A stream among others is fed by :meth:`push` and
    :meth:`end`, and decoded by :meth:`LiveStreams.step`.
    """

    def __init__(
        self,
        streams: LiveStreams,
        sample_rate: int,
        endpointing: Endpointing | None,
        reset_after_silence: float | None,
    ) -> None:
        self._streams = streams
        self._recognizer = streams.recognizer
        self._tokenizer = streams.tokenizer
        self._resampler = Resampler(sample_rate, streams.sample_rate)
        self._stream = streams.recognizer.open()
        self.closed = False
        """True if the input has ended and all of it is decoded."""
        self._ends = False
        self._sample_rate = sample_rate
        self._endpointing = endpointing
        self._reset_after_silence = reset_after_silence
        self._num_samples = 0
        self._segments: list[Transcript] = []  # ended, not taken yet
        self._offset = 0  # encoder frames before the hypothesis
        self._begin_segment(0, 0)

    @property
    def seconds(self) -> float:
        """Seconds of audio so far."""
        return self._num_samples / self._sample_rate

    @property
    def missing_seconds(self) -> float:
        """Seconds of audio that the next chunk needs at least; 0 or less if it is complete, or the input has ended."""
        return 0.0 if self._ends else self._recognizer.missing_frames(self._stream) * FEATURE_SECONDS

    @property
    def partial(self) -> str:
        """Text of the current segment so far."""
        return text_of(self._stream.hypothesis.tokens[self._first_token() :], self._tokenizer)

    def accept(self, samples: Tensor | np.ndarray) -> list[Transcript]:
        """Add samples (n,) or (n, channels), in [-1, 1] or integers, and return the segments that end with them.

        Raises:
            RuntimeError: the stream has been finished.
            ValueError: some samples are not finite.
        """
        self.push(samples)
        return self._decode()

    def finish(self) -> list[Transcript]:
        """End the input and return the last segments."""
        self.end()
        return self._decode()

    def push(self, samples: Tensor | np.ndarray) -> None:
        """Add samples without decoding them; see :meth:`accept`."""
        self._check_open()
        mono = to_mono(samples)
        self._num_samples += len(mono)
        self._stream.accept_samples(self._resampler.accept(mono))

    def end(self) -> None:
        """End the input without decoding the rest of it.

        Raises:
            RuntimeError: the stream has been finished.
        """
        self._check_open()
        self._ends = True

    def _check_open(self) -> None:
        if self._ends:
            raise RuntimeError("this stream has been finished: open another one for further input")

    def _finish_input(self) -> None:
        """Finish an input that has ended, once its whole chunks are decoded: they do not depend on when it ended."""
        if self._ends and not self._stream.finished and self._recognizer.missing_frames(self._stream) > 0:
            self._stream.accept_samples(self._resampler.finish())
            self._stream.finish()

    def take(self) -> list[Transcript]:
        """Return the segments that have ended since the last call."""
        segments, self._segments = self._segments, []
        return segments

    def _decode(self) -> list[Transcript]:
        while self._streams.step():
            pass
        return self.take()

    def _advance(self) -> None:
        """Collect the segments that ended with the last chunk, and close the stream if that was all.

        The endpoint is checked after every chunk, so results do not depend on the sizes of blocks.
        """
        segments = self._check_endpoint()
        if self._recognizer.done(self._stream):
            segments += self._end_segment()
            self._streams.discard(self)
            self.closed = True
        if self._stream.finished:
            # An exported model recognises the silence behind the end too.
            segments = [segment.until(self.seconds) for segment in segments if self._num_samples]
        self._segments += segments

    def _check_endpoint(self) -> list[Transcript]:
        hypothesis = self._stream.hypothesis
        # The chunk that a reset has repeated belongs to the silence before it.
        num_repeated = self._recognizer.chunk_size if self._offset else 0
        last = next(self._sounds(reversed(hypothesis.tokens), reversed(hypothesis.frames)), num_repeated - 1)
        silence = (hypothesis.num_frames - last - 1) * _FRAME
        if self._reset_after_silence is not None and silence >= self._reset_after_silence and self._may_reset():
            end = hypothesis.num_frames - self._recognizer.chunk_size
            segments = self._end_segment(end)
            self._offset += end
            self._recognizer.restart(self._stream)
            self._begin_segment(0, 0)
            return segments
        if self._endpointing is None:
            return []
        first = self._first_token()
        tokens, frames = hypothesis.tokens[first:], hypothesis.frames[first:]
        if (sound := next(self._sounds(tokens, frames), None)) is None:
            return []
        if silence >= self._endpointing.silence:
            last = len(hypothesis.tokens)
            while self._tokenizer.tokens[hypothesis.tokens[last - 1]] == SPACE:  # belongs to the word that follows
                last -= 1
            return self._end_segment(last=last)
        if (hypothesis.num_frames - sound) * _FRAME < self._endpointing.max_seconds:
            return []
        # The last word may be incomplete, so cut before it if there is another one.
        starts = word_starts([self._tokenizer.tokens[i] for i in tokens])
        if len(starts) < 2:
            return self._end_segment()
        return self._end_segment(frames[starts[-1]], first + starts[-1])

    def _may_reset(self) -> bool:
        """True if the last chunk, which a reset decodes again, emitted no token and has not been decoded twice already.
        False at the end of the input.
        """
        hypothesis, chunk_size = self._stream.hypothesis, self._recognizer.chunk_size
        earliest = max(chunk_size, hypothesis.frames[-1] + 1 if hypothesis.frames else 0)
        return hypothesis.num_frames - chunk_size >= earliest and not self._stream.finished

    def _sounds(self, tokens: Iterable[int], frames: Iterable[int]) -> Iterator[int]:
        """Yield the frames of all tokens except lone spaces, which may be emitted long before or after a word."""
        pieces = self._tokenizer.tokens
        return (frame for token, frame in zip(tokens, frames, strict=True) if pieces[token] != SPACE)

    def _end_segment(self, end: int | None = None, last: int | None = None) -> list[Transcript]:
        """End the segment as :meth:`segment` does, and return it. A segment without text continues."""
        segment = self.segment(end, last)
        if not segment.text:
            return []
        hypothesis = self._stream.hypothesis
        end = hypothesis.num_frames if end is None else end
        self._begin_segment(end, bisect_left(hypothesis.frames, end) if last is None else last)
        return [segment]

    def segment(self, end: int | None = None, last: int | None = None) -> Transcript:
        """The current segment so far, or before frame ``end`` and token ``last``."""
        hypothesis, first = self._stream.hypothesis, self._first_token()
        return make_transcript(hypothesis, self._tokenizer, self._begin, end, self._offset, first, last)

    def _begin_segment(self, frame: int, num_ended: int) -> None:
        """Begin a segment at a frame of the hypothesis, behind its first ``num_ended`` tokens."""
        self._begin, self._num_ended = frame, num_ended
        self._tail = self._stream.hypothesis.tokens[max(num_ended - _NUM_TAIL, 0) : num_ended]

    def _first_token(self) -> int:
        """Index of the segment's first token.

        A beam search may move tokens by some frames after a segment has ended there, so tokens are counted. If it has
        also replaced tokens of the ended segment, the frame decides.
        """
        hypothesis, count = self._stream.hypothesis, self._num_ended
        if hypothesis.tokens[count - len(self._tail) : count] == self._tail:
            return count
        return bisect_left(hypothesis.frames, self._begin)


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
