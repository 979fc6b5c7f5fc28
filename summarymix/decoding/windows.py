"""Offline recognition of recordings of any length: overlapping windows with full context, merged by time.

Near its ends a window hears less context than in its middle. So of two neighbours the one is believed up to about the
middle of their overlap, and from there on the other: at a token that both have, if there is one, and so neither lose
nor double what they emit at slightly different times.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from summarymix.chunking import FRAME_MS, ChunkConfig
from summarymix.decoding.search import Hypothesis, Search
from summarymix.decoding.streaming import FeatureQueue
from summarymix.decoding.words import spoken, word_starts
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed
from summarymix.model import Transducer

JITTER = 10  # frames by which two windows may differ on when a token is emitted


class WindowedRecognizer:
    """Recognises one recording at a time, in windows of its features.

    Args:
        model: in evaluation mode, on the device to compute on.
        search: of the model.
        pieces: the model's tokens, to cut between words where possible.
        window_seconds: a shorter recording is one window.
        overlap_seconds: of a window and the next.

    Raises:
        ValueError: windows that do not advance, or do not overlap.
    """

    def __init__(
        self,
        model: Transducer,
        search: Search,
        pieces: Sequence[str],
        window_seconds: float = 30.0,
        overlap_seconds: float = 4.0,
    ) -> None:
        self.model = model
        self.search = search
        self._pieces = pieces
        self._window = round(1000 * window_seconds / FRAME_MS)  # encoder frames
        self._overlap = round(1000 * overlap_seconds / FRAME_MS)
        if not 0 < 2 * self._overlap <= self._window:
            raise ValueError(
                f"windows of {window_seconds:g} s that overlap by {overlap_seconds:g} s: "
                "the overlap has to be above 0 and at most half a window"
            )

    def recognize(self, blocks: Iterable[Tensor]) -> Hypothesis:
        """Features (t, F) of a recording in blocks of any size to what is recognised."""
        merged = Hypothesis()
        for begin, features in self._windows(blocks):
            window = self._decode(features)
            window.frames = [begin + frame for frame in window.frames]
            window.num_frames += begin
            if begin == 0:
                merged = window
            else:
                append(merged, window, begin, self._overlap, self._pieces)
        return merged

    def _windows(self, blocks: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """The first encoder frame and the features of each window; one that is not the first is longer than the
        overlap.
        """
        begin, advance = 0, self._window - self._overlap
        size = features_needed(self._window)
        queue = FeatureQueue()
        for block in blocks:
            queue.append(block)
            while queue.num_frames >= size + FEATURES_PER_FRAME:  # so that something new is left for the next one
                yield begin, queue.take(size, FEATURES_PER_FRAME * advance)
                begin += advance
        if queue.num_frames:
            yield begin, queue.take(queue.num_frames, queue.num_frames)

    @torch.inference_mode()
    def _decode(self, features: Tensor) -> Hypothesis:
        """Recognise (T, F) as a whole utterance."""
        parameter = next(self.model.parameters())
        features = features.to(parameter)
        lengths = torch.tensor([features.size(0)], device=parameter.device)
        encoder_out, num_frames = self.model.encoder(features[None], lengths, ChunkConfig())  # (1, T', D)
        return self.search.decode(encoder_out, num_frames)[0]


def append(left: Hypothesis, right: Hypothesis, begin: int, overlap: int, pieces: Sequence[str]) -> None:
    """Append to ``left`` what ``right`` has beyond it. Frames are counted from the recording's beginning in both.

    Args:
        left: of the windows so far; its end is replaced.
        right: of the next window.
        begin: frame at which that begins.
        overlap: so many frames from there on are in both.
        pieces: the model's tokens.
    """
    middle, reach = begin + overlap // 2, max(overlap // 4, JITTER)
    first = max(bisect_left(left.frames, begin) - 1, 0)  # of those that matter here: hours of others stand before it
    tail = Hypothesis(left.tokens[first:], left.frames[first:], num_frames=left.num_frames)
    distances = {(i, j): abs(tail.frames[i] + right.frames[j] - 2 * middle) / 2 for i, j in matches(tail, right)}
    near = [pair for pair in distances if distances[pair] <= reach]
    # A word is best taken from one window as a whole.
    starts = set(word_starts([pieces[token] for token in right.tokens]))
    near = [pair for pair in near if pair[1] in starts] or near
    if near:
        i, j = min(near, key=distances.__getitem__)
    else:
        i, j = (_word_from(h, middle, middle + reach, pieces) for h in (tail, right))
    left.tokens[first + i :] = right.tokens[j:]
    left.frames[first + i :] = right.frames[j:]
    left.log_probs[first + i :] = right.log_probs[j:]
    left.num_frames = right.num_frames


def matches(left: Hypothesis, right: Hypothesis) -> list[tuple[int, int]]:
    """The places of what are the same emissions in two hypotheses.

    Equal tokens less than :data:`JITTER` apart can be the same; of all ways to pair them in order, it is the one with
    the most and the closest pairs.
    """
    num_right = bisect_left(right.frames, left.num_frames + JITTER)
    # Of pairing what comes from (i, j) on.
    best = [[0] * (num_right + 1) for _ in range(len(left.tokens) + 1)]

    def value(i: int, j: int) -> int:
        same = left.tokens[i] == right.tokens[j]
        return max(JITTER - abs(left.frames[i] - right.frames[j]), 0) if same else 0

    for i, j in product(reversed(range(len(left.tokens))), reversed(range(num_right))):
        best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + value(i, j))
    pairs = []
    i = j = 0
    while best[i][j]:
        if value(i, j) and best[i][j] == best[i + 1][j + 1] + value(i, j):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _word_from(hypothesis: Hypothesis, middle: int, limit: int, pieces: Sequence[str]) -> int:
    """The place of the first word that begins at frame ``middle`` or later, or of the first token from ``limit`` on."""
    tokens = [pieces[token] for token in hypothesis.tokens]
    frames = hypothesis.frames
    words = (i for i in word_starts(tokens) if frames[spoken(tokens, i)] >= middle)
    return min(next(words, len(tokens)), bisect_left(frames, limit))
