"""Streaming recognition of many streams in parallel, chunk by chunk.

Chunk k of a stream holds its encoder frames kC … kC+C-1, which need the feature frames 4kC … 4kC+4C+2, and with a
look-ahead of R frames 4R more. As soon as these have arrived the chunk is encoded and searched, and 4C feature frames
are dropped. At the end of the input, the remaining frames are encoded as a partial chunk with its length, so nothing
has to be guessed or appended, and the result equals the ``simulated`` mode: the whole utterance under chunk masks.
Exported graphs cannot mask, so silence fills their last chunk, as sherpa-onnx does with the tail padding of the
export's README.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig, to_device
from summarymix.data.features import SILENCE, FbankExtractor
from summarymix.decoding.search import Hypothesis, Search
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed, output_lengths
from summarymix.state import State, reset_slots, select_slots, write_slots

Key = TypeVar("Key")


class FeatureQueue:
    """Queue of feature frames that are still needed. Blocks of any size enter; chunks leave."""

    def __init__(self) -> None:
        self._blocks: deque[Tensor] = deque()
        self.num_frames = 0

    def append(self, features: Tensor) -> None:
        """Add (t, F) frames at the end."""
        if features.size(0):
            self._blocks.append(features)
            self.num_frames += features.size(0)

    def put_back(self, features: Tensor) -> None:
        """Add (t, F) frames at the front."""
        if features.size(0):
            self._blocks.appendleft(features)
            self.num_frames += features.size(0)

    def take(self, size: int, advance: int) -> Tensor:
        """Return the first ``size`` frames, or all if there are fewer, and drop the first ``advance``."""
        head = []
        missing = size
        while self._blocks and missing > 0:
            head.append(self._blocks.popleft())
            missing -= head[-1].size(0)
        frames = head[0] if len(head) == 1 else torch.cat(head)  # (≥ size or all, F)
        if frames.size(0) > advance:
            self._blocks.appendleft(frames[advance:])
        self.num_frames = max(self.num_frames - advance, 0)
        return frames[:size]


class Stream:
    """A recording that is being recognised, made by :meth:`StreamingRecognizer.open`."""

    def __init__(
        self, slot: int, feature_dim: int, extractor: FbankExtractor | None, whole_chunks: tuple[int, int] | None
    ) -> None:
        """
        Args:
            slot: row of the batched state.
            feature_dim: number of features per frame.
            extractor: extractor of features for audio.
            whole_chunks: feature frames of a chunk, and from one chunk to the next, if silence fills the last chunk.
        """
        self.slot = slot
        self._whole_chunks = whole_chunks
        self.hypothesis = Hypothesis()
        self.finished = False  # the input has ended
        self.queue = FeatureQueue()
        self.last_chunk = torch.zeros(0, feature_dim)  # its features (4C, F), already dropped from the queue
        self._feature_dim = feature_dim
        self._online = None if extractor is None else extractor.online()

    @property
    def num_frames(self) -> int:
        """Number of feature frames that wait to be decoded."""
        return self.queue.num_frames + (0 if self._online is None else self._online.num_ready)

    def accept_features(self, features: Tensor) -> None:
        """Add the next (t, F) feature frames; any t, also 0. A stream takes either features or samples.

        Raises:
            RuntimeError: the stream has been finished.
            ValueError: the model was trained with another number of features.
        """
        self._check_open()
        if features.dim() != 2 or features.size(1) != self._feature_dim:
            raise ValueError(f"expected features (frames, {self._feature_dim}), got {tuple(features.shape)}")
        self.queue.append(features)

    def accept_samples(self, samples: Tensor | np.ndarray) -> None:
        """Add the next samples (n,) in [-1, 1] at the extractor's sampling rate; any n.

        Raises:
            RuntimeError: the stream has been finished, or the recognizer was made without an extractor.
        """
        self._check_open()
        if self._online is None:
            raise RuntimeError("this recognizer takes features only: give StreamingRecognizer an extractor")
        self._online.push(samples)

    def take_samples(self) -> Tensor:
        """Return the samples (n,) whose features have not been computed: they belong at the end of the queue."""
        return torch.zeros(0) if self._online is None else self._online.take()

    def finish(self) -> None:
        """End the input: the remaining frames are decoded as a partial chunk, or filled with silence to a whole one."""
        self._check_open()
        if self._online is not None:
            self.queue.append(self._online.finish())
        if self._whole_chunks is not None:
            size, shift = self._whole_chunks
            missing = size - self.queue.num_frames % shift
            self.queue.append(torch.full((missing, self._feature_dim), SILENCE))
        self.finished = True

    def _check_open(self) -> None:
        if self.finished:
            raise RuntimeError("this stream has been finished: open another one for further input")


class StreamingRecognizer:
    """Recognises up to ``num_streams`` streams in parallel, a chunk of each per :meth:`step`.

    Streams are opened and closed at any time. Each holds a slot, that is, a row of the batched state, which is reset
    when the stream is opened. The memory of a stream is its slot, the features of one chunk, and its tokens.

    Args:
        search: search whose model is in evaluation mode, on the device to compute on.
        chunk: chunk size and left context; the chunk size must be finite.
        num_streams: number of slots.
        extractor: extractor of features for streams of audio; None for streams of features.

    Raises:
        ValueError: ``chunk`` has no finite size, ``num_streams`` is not positive, or the search cannot stream.
    """

    def __init__(
        self,
        search: Search,
        chunk: ChunkConfig,
        num_streams: int = 1,
        extractor: FbankExtractor | None = None,
    ) -> None:
        if chunk.chunk_size is None:
            raise ValueError("streaming needs a chunk size: give --chunk-ms, for instance 640")
        if num_streams < 1:
            raise ValueError(f"the number of streams must be 1 or more, not {num_streams}")
        search.check_streaming()
        self.search = search
        self.model = model = search.model
        self.extractor = extractor
        self._device, self._dtype, self._feature_dim = model.device, model.dtype, model.feature_dim
        self.chunk_size, self._lookahead = chunk.chunk_size, chunk.lookahead
        self._chunk_features = features_needed(chunk.chunk_size + chunk.lookahead)  # 4(C + R) + 3
        self._shift = FEATURES_PER_FRAME * chunk.chunk_size
        self._streams: list[Stream | None] = [None] * num_streams
        with torch.inference_mode():
            self._encoder_state: State = model.encoder.init_state(num_streams, chunk)
            self._search_state: State = self.search.init_state(num_streams, self._device)

    @property
    def num_free(self) -> int:
        """Number of free slots."""
        return self._streams.count(None)

    @torch.inference_mode()
    def open(self) -> Stream:
        """Open a stream.

        Raises:
            RuntimeError: all slots are taken.
        """
        if None not in self._streams:
            raise RuntimeError(
                f"all {len(self._streams)} streams are in use: close one, or make a recognizer with more"
            )
        whole_chunks = (self._chunk_features, self._shift) if self.model.encoder.takes_whole_chunks else None
        stream = Stream(self._streams.index(None), self._feature_dim, self.extractor, whole_chunks)
        self._streams[stream.slot] = stream
        self.restart(stream)
        return stream

    @torch.inference_mode()
    def restart(self, stream: Stream) -> None:
        """Reset the stream: its last chunk is recognised again as the first one of a recording, with a new hypothesis.
        A word that began in this chunk and has not been emitted yet stays whole.
        """
        stream.queue.put_back(stream.last_chunk)
        stream.last_chunk = stream.last_chunk[:0]
        slots = torch.tensor([stream.slot], device=self._device)
        reset_slots(self._encoder_state, slots)
        write_slots(self._search_state, slots, self.search.init_state(1, self._device))
        stream.hypothesis = Hypothesis()

    def close(self, stream: Stream) -> None:
        """Free the stream's slot. Its result stays readable; input that has not been decoded is dropped."""
        if self._streams[stream.slot] is not stream:
            raise RuntimeError("this stream has been closed already")
        stream.finished = True
        self._streams[stream.slot] = None

    def done(self, stream: Stream) -> bool:
        """True if the stream's input has ended and all of it has been decoded."""
        return stream.finished and self._frames_ready(stream) == 0

    def missing_frames(self, stream: Stream) -> int:
        """Feature frames that the stream's next whole chunk lacks; 0 or less if it has come."""
        return self._chunk_features - stream.num_frames

    @torch.inference_mode()
    def step(self) -> int:
        """Decode one chunk of every ready stream, and return the number of ready streams.

        A stream is ready when the features of a whole chunk have arrived, or when its input has ended with frames left.
        """
        ready = [s for s in self._streams if s is not None and self._frames_ready(s) > 0]
        if not ready:
            return 0
        if self.extractor is not None:
            blocks = self.extractor.whole_windows([s.take_samples() for s in ready])
            for stream, block in zip(ready, blocks, strict=True):
                stream.queue.append(block)
        lengths = torch.tensor([self._frames_ready(s) for s in ready])  # (M,)
        # (M, 4(C+R)+3, F); zeros after the end of a stream give frames that are masked out.
        features = torch.zeros(len(ready), self._chunk_features, self._feature_dim, dtype=self._dtype)
        for row, stream in zip(features, ready, strict=True):
            block = stream.queue.take(self._chunk_features, self._shift)
            row[: block.size(0)] = block
            stream.last_chunk = block[: self._shift]
        everyone = len(ready) == len(self._streams)
        slots = to_device(torch.tensor([s.slot for s in ready]), self._device)  # (M,)
        encoder_state, search_state = self._encoder_state, self._search_state
        if not everyone:
            encoder_state = select_slots(encoder_state, slots)
            search_state = select_slots(search_state, slots)
        partial = bool((lengths < self.chunk_size + self._lookahead).any())
        encoder_out, encoder_state = self.model.encoder.step(
            to_device(features, self._device), encoder_state, lengths if partial else None, self._lookahead
        )  # (M, C, D)
        lengths = lengths.clamp(max=self.chunk_size)
        search_state = self.search(encoder_out, lengths, search_state, [s.hypothesis for s in ready])
        if everyone:
            self._encoder_state, self._search_state = encoder_state, search_state
        else:
            write_slots(self._encoder_state, slots, encoder_state)
            write_slots(self._search_state, slots, search_state)
        return len(ready)

    def decode_all(
        self,
        utterances: Iterable[tuple[Key, Tensor]],
        on_chunk: Callable[[Key, Hypothesis, float], object] = lambda key, hypothesis, seconds: None,
    ) -> Iterator[tuple[Key, Hypothesis]]:
        """Recognise recordings, as many at a time as there are free slots.

        A recording starts as soon as another one ends; results come in the order in which recordings end.

        Args:
            utterances: keys and features (T, F).
            on_chunk: called after each chunk of a recording, with its hypothesis so far and the seconds that computing
                this chunk of all streams took.

        Raises:
            RuntimeError: other streams hold all slots.
        """
        waiting = iter(utterances)
        running: dict[int, tuple[Key, Stream]] = {}
        exhausted = False
        while True:
            while not exhausted and (self.num_free or not running):
                item = next(waiting, None)
                if item is None:
                    exhausted = True
                    break
                key, features = item
                stream = self.open()
                stream.accept_features(features)
                stream.finish()
                running[stream.slot] = key, stream
            if not running:
                return
            begin = perf_counter()
            self.step()
            seconds = perf_counter() - begin
            for key, stream in list(running.values()):
                on_chunk(key, stream.hypothesis, seconds)
                if self.done(stream):
                    del running[stream.slot]
                    self.close(stream)
                    yield key, stream.hypothesis

    def _frames_ready(self, stream: Stream) -> int:
        """Return the number of encoder frames that the next step can use: C + R, or fewer at the end."""
        if stream.num_frames >= self._chunk_features:
            return self.chunk_size + self._lookahead
        may_be_partial = stream.finished and not self.model.encoder.takes_whole_chunks
        return output_lengths(stream.num_frames) if may_be_partial else 0
