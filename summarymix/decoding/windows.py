"""Offline recognition of recordings of any length: overlapping windows with full context, merged by time.

A window has less context near its ends than in its middle. So two neighbours are joined near the middle of their
overlap, if possible at a token that both contain. Tokens that the two emit at slightly different times are then neither
lost nor doubled.
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

JITTER = 10  # frames by which the emission times of a token in two windows may differ


class WindowedRecognizer:
    """Recognises one recording at a time, in windows of its features.

    Args:
        search: search with a model in evaluation mode, on the device to compute on.
        pieces: the model's tokens, to cut between words where possible.
        window_seconds: a shorter recording is one window.
        overlap_seconds: overlap of consecutive windows.

    Raises:
        ValueError: the windows do not advance, or do not overlap.
    """

    def __init__(
        self,
        search: Search,
        pieces: Sequence[str],
        window_seconds: float = 30.0,
        overlap_seconds: float = 4.0,
    ) -> None:
        self.search = search
        self._pieces = pieces
        self._window = round(1000 * window_seconds / FRAME_MS)  # encoder frames
        self._overlap = round(1000 * overlap_seconds / FRAME_MS)
        if not 0 < 2 * self._overlap <= self._window:
            raise ValueError(
                f"windows of {window_seconds:g} s with an overlap of {overlap_seconds:g} s: "
                "the overlap must be above 0 and at most half a window"
            )

    def recognize(self, blocks: Iterable[Tensor]) -> Hypothesis:
        """Recognise a recording from features (t, F) in blocks of any size."""
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
        """Yield first encoder frame and features of each window; all but the first are longer than the overlap."""
        begin, advance = 0, self._window - self._overlap
        size = features_needed(self._window)
        queue = FeatureQueue()
        for block in blocks:
            queue.append(block)
            while queue.num_frames >= size + FEATURES_PER_FRAME:  # so that the next window has new frames
                yield begin, queue.take(size, FEATURES_PER_FRAME * advance)
                begin += advance
        if queue.num_frames:
            yield begin, queue.take(queue.num_frames, queue.num_frames)

    @torch.inference_mode()
    def _decode(self, features: Tensor) -> Hypothesis:
        """Recognise (T, F) as a whole utterance."""
        model = self.search.model
        features = features.to(model.device, model.dtype)
        lengths = torch.tensor([features.size(0)])
        encoder_out, num_frames = model.encoder(features[None], lengths, ChunkConfig())  # (1, T', D)
        return self.search.decode(encoder_out, num_frames)[0]


def append(left: Hypothesis, right: Hypothesis, begin: int, overlap: int, pieces: Sequence[str]) -> None:
    """Join ``right`` to the end of ``left``. Both count frames from the recording's start.

    Args:
        left: hypothesis of the windows so far; its end is replaced.
        right: hypothesis of the next window.
        begin: first frame of the next window.
        overlap: number of frames from ``begin`` on that are in both.
        pieces: the model's tokens.
    """
    middle, reach = begin + overlap // 2, max(overlap // 4, JITTER)
    first = max(bisect_left(left.frames, begin) - 1, 0)  # skips the tokens before the overlap, maybe hours of them
    tail = Hypothesis(left.tokens[first:], left.frames[first:], num_frames=left.num_frames)
    distances = {(i, j): abs(tail.frames[i] + right.frames[j] - 2 * middle) / 2 for i, j in matches(tail, right)}
    near = [pair for pair in distances if distances[pair] <= reach]
    # Joining at the start of a word takes the whole word from one window.
    starts = set(word_starts([pieces[token] for token in right.tokens]))
    near = [pair for pair in near if pair[1] in starts] or near
    if near:
        i, j = min(near, key=distances.__getitem__)
    else:
        i, j = (_word_from(h, middle, middle + reach, pieces) for h in (tail, right))
    # Windows differ by some frames in when they emit a token.
    earliest = left.frames[first + i - 1] if first + i > 0 else 0
    left.tokens[first + i :] = right.tokens[j:]
    left.frames[first + i :] = [max(frame, earliest) for frame in right.frames[j:]]
    left.log_probs[first + i :] = right.log_probs[j:]
    left.num_frames = right.num_frames


def matches(left: Hypothesis, right: Hypothesis) -> list[tuple[int, int]]:
    """Return the index pairs of tokens that two hypotheses share.

    Equal tokens less than :data:`JITTER` frames apart can be a pair. Of all ordered pairings, the one with the most and
    the closest pairs is returned.
    """
    num_right = bisect_left(right.frames, left.num_frames + JITTER)
    # best[i][j]: value of the best pairing from (i, j) on.
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
    """Return the index of the first word from frame ``middle`` on, or of the first token from ``limit`` on."""
    tokens = [pieces[token] for token in hypothesis.tokens]
    frames = hypothesis.frames
    words = (i for i in word_starts(tokens) if frames[spoken(tokens, i)] >= middle)
    return min(next(words, len(tokens)), bisect_left(frames, limit))
