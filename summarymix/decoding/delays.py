"""Delays of a stream's results, as if its audio arrived in real time.

The result of a chunk is there when its last sample has arrived and the computing before it is done, and after the time
that computing takes. A partial result is the text after a chunk; the last one is the final result.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from summarymix.chunking import FRAME_MS, ChunkConfig
from summarymix.data.features import FbankOptions, latency_ms


@dataclass(frozen=True)
class Delays:
    """Delays of an utterance in seconds, and its partial words.

    Args:
        first_partial: from the first sample to the first partial result with a word; None without words.
        first_stable: from the first sample to the partial result since which the first word has not changed.
        final: from the last sample to the final result.
        shown: words in partial results, each counted when it appears, with all behind it that are shown anew.
        changed: those of them that did not stay, also because they were shown before they were complete.
    """

    first_partial: float | None
    first_stable: float | None
    final: float
    shown: int
    changed: int


class PartialResults:
    """The partial results of an utterance.

    Args:
        duration: seconds of audio.
        chunk: chunk size, which must be finite.
    """

    def __init__(self, duration: float, chunk: ChunkConfig) -> None:
        assert chunk.chunk_size is not None
        self._duration, self._chunk = duration, FRAME_MS * chunk.chunk_size / 1000
        # Of the next chunk's last sample; the same at all sample rates.
        self._arrival = (latency_ms(chunk, FbankOptions()) or 0.0) / 1000
        self._ready = 0.0  # time of the last result
        self._words: list[str] = []  # of the last result
        self._shown = 0  # words so far, each counted when it appears at its position
        self._first_partial: float | None = None
        self._first_stable: float | None = None

    def add(self, words: list[str], computing: float) -> None:
        """Add the result of the next chunk, whose computing took this many seconds."""
        self._ready = max(min(self._arrival, self._duration), self._ready) + computing
        self._arrival += self._chunk
        if words and self._first_partial is None:
            self._first_partial = self._ready
        if words[:1] != self._words[:1]:
            self._first_stable = self._ready if words else None
        same = next((i for i, pair in enumerate(zip(words, self._words, strict=False)) if pair[0] != pair[1]), None)
        self._shown += len(words) - (min(len(words), len(self._words)) if same is None else same)
        self._words = words

    def delays(self) -> Delays:
        """The delays of the utterance, after its last chunk."""
        changed = self._shown - len(self._words)
        final = max(self._ready - self._duration, 0.0)
        return Delays(self._first_partial, self._first_stable, final, self._shown, changed)


@dataclass(frozen=True)
class DelaySummary:
    """Median and 95th percentile of delays in milliseconds, None without words; and the share of changed words."""

    first_partial_ms: list[float] | None
    first_stable_ms: list[float] | None
    final_ms: list[float] | None
    changed_words: float | None
    """Per cent of the words in partial results that later changed or grew."""

    @classmethod
    def of(cls, delays: Iterable[Delays]) -> "DelaySummary":
        """Summarise the delays of many utterances."""
        delays = list(delays)
        shown = sum(one.shown for one in delays)
        return cls(
            _percentiles([one.first_partial for one in delays]),
            _percentiles([one.first_stable for one in delays]),
            _percentiles([one.final for one in delays]),
            100 * sum(one.changed for one in delays) / shown if shown else None,
        )

    def __str__(self) -> str:
        def both(values: list[float] | None) -> str:
            return "–" if values is None else f"{values[0]:.0f} ms (p95 {values[1]:.0f})"

        changed = "–" if self.changed_words is None else f"{self.changed_words:.1f} %"
        return (
            f"first word {both(self.first_partial_ms)}, stable {both(self.first_stable_ms)} after the beginning, final "
            f"result {both(self.final_ms)} after the end; {changed} of partial words changed"
        )


def _percentiles(seconds: Iterable[float | None]) -> list[float] | None:
    known = [1000 * value for value in seconds if value is not None]
    return [float(value) for value in np.percentile(known, [50, 95])] if known else None
