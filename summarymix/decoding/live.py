"""Streams that arrive while they are recognised: many together, each with segments that end in its pauses."""

import argparse
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from summarymix.chunking import FRAME_MS
from summarymix.data.audio import Resampler, to_mono
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.decoding.words import SPACE, Transcript, make_transcript, text_of, word_starts
from summarymix.encoder.subsampling import FEATURE_SECONDS

_FRAME = FRAME_MS / 1000
# Tokens of an ended segment that are compared with a later hypothesis; earlier ones are settled.
_NUM_TAIL = 16


@dataclass(frozen=True)
class Endpointing:
    """Rules that cut a stream's text into segments. Encoder and search continue across a cut, and a beam search keeps
    the hypotheses that begin with the text of the ended segments.

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


class LiveStreams:
    """Recordings that are recognised together while they arrive, made by
    :meth:`Recognizer.streams <summarymix.decoding.recognizer.Recognizer.streams>`:

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
        """Open a stream; for the arguments see
        :meth:`Recognizer.stream <summarymix.decoding.recognizer.Recognizer.stream>`.

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
    """A recording that is recognised while it arrives, made by
    :meth:`Recognizer.stream <summarymix.decoding.recognizer.Recognizer.stream>` or :meth:`LiveStreams.open`.

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
        first = self._first_token()
        if silence >= (self._endpointing or Endpointing()).silence:
            self._recognizer.search.settle(hypothesis, first)
        if self._endpointing is None:
            return []
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
        self._recognizer.search.settle(self._stream.hypothesis, num_ended)
        self._tail = self._stream.hypothesis.tokens[max(num_ended - _NUM_TAIL, 0) : num_ended]

    def _first_token(self) -> int:
        """Index of the segment's first token.

        A beam search may move tokens by some frames after a segment has ended there, so tokens are counted. If a
        lattice has also replaced tokens of the ended segment, the frame decides.
        """
        hypothesis, count = self._stream.hypothesis, self._num_ended
        if hypothesis.tokens[count - len(self._tail) : count] == self._tail:
            return count
        return bisect_left(hypothesis.frames, self._begin)
