"""Alignments, delays and confidence intervals against what one can work out by hand."""

from itertools import groupby, product

import pytest
import torch
from benchmarks.delay import Emission, Span, align, delays_of, describe, emissions

from summarymix.chunking import ChunkConfig
from summarymix.decoding.greedy import Hypothesis


class Pieces:
    """A tokenizer of a few pieces."""

    tokens = ("<blk>", "<unk>", "▁a", "b", "▁c", "▁")

    def decode(self, ids: list[int]) -> str:
        return "".join(self.tokens[i] for i in ids).replace("▁", " ").strip()


def found(tokens: list[int], frames: list[int]) -> Hypothesis:
    return Hypothesis(tokens, frames, [0.0] * len(tokens), 50)


def test_alignment_is_the_most_likely_path() -> None:
    """Of all paths that spell the tokens, by trying all of them."""
    generator = torch.Generator().manual_seed(0)
    for tokens in ([1], [1, 2], [2, 2], [1, 2, 1]):
        for frames in (3, 5, 6):
            log_probs = torch.randn(frames, 3, generator=generator).log_softmax(-1)
            paths = [
                path
                for path in product(range(3), repeat=frames)
                if [token for token, _ in groupby(path) if token] == tokens
            ]
            best = max(paths, key=lambda path: sum(log_probs[t, token].item() for t, token in enumerate(path)))
            spans, start = [], 0
            for token, run in groupby(best):
                end = start + len(list(run)) - 1
                if token:
                    spans.append(Span(start, end))
                start = end + 1
            assert align(log_probs, tokens) == spans, (tokens, best)


def test_what_cannot_be_aligned() -> None:
    log_probs = torch.zeros(2, 3).log_softmax(-1)
    assert align(log_probs, []) is None
    assert align(log_probs, [1, 2, 1]) is None
    assert align(log_probs, [1, 1]) is None
    assert align(log_probs, [1, 2]) == [Span(0, 0), Span(1, 1)]


def test_emissions_of_words_recognised_correctly() -> None:
    """Transcript "ab c a": "ab" and "a" are right, "c" is missing and "b" too much."""
    spans = [Span(2, 3), Span(5, 6), Span(9, 9), Span(12, 14)]
    some = emissions([2, 3, 4, 2], spans, found([2, 3, 5, 3, 2], [4, 8, 9, 10, 13]), Pieces())
    assert some == [
        Emission("word, first token", 4, 2),
        Emission("word, last token", 8, 6),
        Emission("word, first token", 13, 12),
        Emission("word, last token", 13, 14),
    ]
    everything = emissions([2, 3, 4, 2], spans, found([2, 3, 4, 2], [3, 7, 9, 15]), Pieces())
    assert everything[-2:] == [Emission("utterance, first token", 3, 2), Emission("utterance, last token", 15, 14)]
    assert len(everything) == 3 * 2 + 2
    # Other tokens may spell the same words: here the mark of a space by itself is none of a word's.
    same = emissions([2, 3, 4], spans[:3], found([2, 3, 5, 4], [3, 7, 8, 9]), Pieces())
    assert same[-2:] == [Emission("utterance, first token", 3, 2), Emission("utterance, last token", 9, 9)]
    assert emissions([2, 3, 4, 2], spans, found([], []), Pieces()) == []


def test_delays_by_both_clocks() -> None:
    emission = Emission("word, last token", emitted=5, aligned=3)
    # Frame 5 ends at 240 ms; its chunk of 4 frames, the second, at 320 ms; the aligned frame at 160 ms.
    assert delays_of(emission, ChunkConfig(4), 37.5) == {"frame": 80.0, "availability": 320 + 37.5 - 160}
    assert delays_of(emission, ChunkConfig(1), 37.5) == {"frame": 80.0, "availability": 80 + 37.5}
    assert delays_of(emission, ChunkConfig(), 0.0) == {"frame": 80.0}
    assert delays_of(Emission("", 3, 3), ChunkConfig(4), 0.0) == {"frame": 0.0, "availability": 0.0}
    assert delays_of(Emission("", 4, 6), ChunkConfig(4), 0.0) == {"frame": -80.0, "availability": 40.0}


def test_statistics_of_delays() -> None:
    figures = describe([float(x) for x in range(101)])
    assert figures == {"count": 101, "mean": 50.0, "percentiles": pytest.approx(list(range(1, 100)))}
