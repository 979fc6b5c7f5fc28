"""One thread recognises the streams of many clients together, a chunk of each at a time.

The event loop owns what is known of a client; the thread owns the recognisers. A round hands samples to the thread and
brings results back, so there are no locks. Audio that arrives meanwhile gathers for the next round.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import numpy as np

from summarymix.decoding.live import Endpointing, LiveStream, LiveStreams
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.words import Transcript


class Setting(NamedTuple):
    """Chunk size and look-ahead of a stream in milliseconds."""

    chunk_ms: int
    lookahead_ms: int


@dataclass(frozen=True)
class Rules:
    """Options of all streams of a server; see :meth:`summarymix.decoding.recognizer.Recognizer.stream`."""

    left_chunks: int | None = None
    endpointing: Endpointing = field(default_factory=Endpointing)
    reset_after_silence: float | None = None


class Message(NamedTuple):
    """Text of a segment, which may still change unless ``final``, after ``seconds`` of audio."""

    transcript: Transcript
    final: bool
    seconds: float


class _Job(NamedTuple):
    """Work of a round for one stream: samples (n,) to add, the end of the input, and a chunk if it is complete."""

    feed: "Feed"
    samples: np.ndarray
    ends: bool


class _Outcome(NamedTuple):
    """Results of a job: ended segments, the current one if its text has changed, and the seconds of audio that the next
    chunk needs.
    """

    feed: "Feed"
    finals: list[Message]
    partial: Message | None
    missing_seconds: float
    closed: bool


class Feed:
    """A client's audio on the way to the recogniser, and its results on the way back; made by :meth:`Batcher.open`."""

    def __init__(self, batcher: "Batcher", setting: Setting, sample_rate: int) -> None:
        self.setting = setting
        self.sample_rate = sample_rate
        self.stream: LiveStream | None = None  # belongs to the thread, as does:
        self.text: str | None = None  # the partial text of the last round
        self._batcher = batcher
        self._blocks: list[np.ndarray] = []  # samples that wait for the next round
        self._num_samples = 0
        self._limit = sample_rate * (1 + 2 * sum(setting) / 1000)
        self._missing_seconds = setting.chunk_ms / 1000
        self._room = asyncio.Event()
        self._ends = self._ended = False  # the client has ended the input; so has the stream
        self._finals: deque[Message] = deque()
        self._partial: Message | None = None
        self._shown: str | None = None  # the partial text that was yielded last
        self._closed = False
        self._news = asyncio.Event()

    async def put(self, samples: np.ndarray) -> None:
        """Add samples (n,), and wait while more than two chunks and a second of audio have not been taken."""
        if not len(samples):
            return  # empty blocks would gather without end
        self._blocks.append(samples)
        self._num_samples += len(samples)
        self._batcher.wake()
        while self._num_samples > self._limit:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """End the input: :meth:`messages` ends when all of it is recognised."""
        self._ends = True
        self._batcher.wake()

    def cancel(self) -> None:
        """Drop the stream; nothing happens if it is complete."""
        if not self._closed:
            self._closed = True
            self._batcher.drop(self)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield each final segment, and the partial text if it has changed since the reader last asked.

        There is at least one message, as clients of sherpa-onnx expect: without any word, an empty partial text.
        """
        while not self._closed or self._finals:
            await self._news.wait()
            self._news.clear()
            while self._finals:
                self._shown = ""
                yield self._finals.popleft()
            if self._partial is not None and self._partial.transcript.text != self._shown:
                self._shown = self._partial.transcript.text
                yield self._partial

    def next_job(self) -> _Job | None:
        """Return the work of the next round, or None if audio is missing. Samples go on in whole chunks or more."""
        if self._missing_seconds <= 0:
            return _Job(self, np.zeros(0, np.float32), False)
        if self._ended or not (self._ends or self._num_samples >= self._missing_seconds * self.sample_rate):
            return None
        samples = np.concatenate([np.zeros(0, np.float32), *self._blocks])
        self._blocks.clear()
        self._num_samples = 0
        self._room.set()
        self._ended = self._ends
        return _Job(self, samples, self._ends)

    def deliver(self, outcome: _Outcome) -> None:
        """Take the results of a round."""
        self._finals += outcome.finals
        self._partial = outcome.partial or self._partial
        self._closed |= outcome.closed
        self._missing_seconds = outcome.missing_seconds
        self._news.set()


class Batcher:
    """Recognises the streams of many clients in one thread, while :meth:`run` is running.

    Args:
        recognizer: the model.
        max_streams: largest number of streams at a time.
        rules: options of all streams.
    """

    def __init__(self, recognizer: Recognizer, max_streams: int, rules: Rules) -> None:
        self.busy_seconds = 0.0
        """Seconds of computing so far."""
        self.audio_seconds = 0.0
        """Seconds of audio so far."""
        self._recognizer = recognizer
        self._max_streams = max_streams
        self._rules = rules
        self._sets: dict[Setting, LiveStreams] = {}  # belongs to the thread
        self._feeds: list[Feed] = []
        self._dropped: list[Feed] = []
        self._awake = asyncio.Event()

    def resamples_quickly(self, sample_rate: int) -> bool:
        """True if audio at ``sample_rate`` Hz takes little computing to resample, which all clients would wait for."""
        return self._recognizer.resamples_quickly(sample_rate)

    def open(self, setting: Setting, sample_rate: int) -> Feed:
        """Open a stream for samples at ``sample_rate`` Hz."""
        feed = Feed(self, setting, sample_rate)
        self._feeds.append(feed)
        return feed

    def drop(self, feed: Feed) -> None:
        """Close a stream whose client has gone."""
        self._feeds.remove(feed)
        self._dropped.append(feed)
        self.wake()

    def wake(self) -> None:
        """Look for work: a stream has got audio, or has ended."""
        self._awake.set()

    async def run(self) -> None:
        """Recognise until cancelled. Then all streams end, without the text of what has not been computed."""
        with ThreadPoolExecutor(1, "recognizer") as thread:
            try:
                await self._rounds(thread)
            finally:
                for feed in self._feeds:
                    feed.deliver(_Outcome(feed, [], None, 0.0, True))

    async def _rounds(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = [job for feed in self._feeds if (job := feed.next_job()) is not None]
            if not jobs and not self._dropped:
                await self._awake.wait()
                self._awake.clear()
                continue
            dropped, self._dropped = self._dropped, []
            outcomes, seconds = await loop.run_in_executor(thread, self._compute, dropped, jobs)
            self.busy_seconds += seconds
            self.audio_seconds += sum(len(job.samples) / job.feed.sample_rate for job in jobs)
            for outcome in outcomes:
                if outcome.feed in self._feeds:  # not dropped meanwhile
                    outcome.feed.deliver(outcome)
                    if outcome.closed:
                        self._feeds.remove(outcome.feed)

    def _compute(self, dropped: list[Feed], jobs: list[_Job]) -> tuple[list[_Outcome], float]:
        """A round in the thread: a chunk of every stream that has one. Return the results and the seconds it took."""
        begin = perf_counter()
        for feed in dropped:
            if feed.stream is not None and not feed.stream.closed:
                self._sets[feed.setting].discard(feed.stream)
        for feed, samples, ends in jobs:
            stream = feed.stream = feed.stream or self._open(feed)
            if len(samples):
                stream.push(samples)
            if ends:
                stream.end()
        for streams in self._sets.values():
            streams.step()
        self._sets = {setting: streams for setting, streams in self._sets.items() if len(streams)}
        return [self._outcome(job.feed) for job in jobs], perf_counter() - begin

    def _open(self, feed: Feed) -> LiveStream:
        """Open a stream among those with its setting, whose recogniser is made when the first one comes."""
        rules, setting = self._rules, feed.setting
        if setting not in self._sets:
            self._sets[setting] = self._recognizer.streams(
                self._max_streams, setting.chunk_ms, rules.left_chunks, setting.lookahead_ms
            )
        return self._sets[setting].open(feed.sample_rate, rules.endpointing, rules.reset_after_silence)

    @staticmethod
    def _outcome(feed: Feed) -> _Outcome:
        stream = feed.stream
        assert stream is not None
        finals = [Message(segment, True, stream.seconds) for segment in stream.take()]
        text = stream.partial
        partial = None
        if finals or text != feed.text:
            feed.text, partial = text, Message(stream.segment(), False, stream.seconds)
        return _Outcome(feed, finals, partial, stream.missing_seconds, stream.closed)
