"""Tokens as words with times and confidences, for whatever shows or stores a transcript."""

import math
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from summarymix.chunking import FRAME_MS
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.search import Hypothesis

SPACE = "\u2581"  # sentencepiece's
_FRAME = FRAME_MS / 1000


@dataclass(frozen=True)
class Token:
    """A token with the second at which it was emitted, and its probability given the tokens before."""

    token: str
    start: float
    confidence: float


@dataclass(frozen=True)
class Word:
    """A word, the seconds from its first token to the end of its last one's frame, and the geometric mean of their
    probabilities. In scripts without spaces each character is a word.
    """

    word: str
    start: float
    end: float
    confidence: float
    spaced: bool
    """Whether a space stands before it."""


@dataclass(frozen=True)
class Transcript:
    """What was said from ``start`` to ``end``, in seconds from the audio's beginning."""

    text: str
    start: float
    end: float
    tokens: list[Token]
    words: list[Word]


def transcript(
    hypothesis: Hypothesis, tokenizer: Tokenizer, begin: int, end: int | None = None, offset: int = 0
) -> Transcript:
    """The part of a hypothesis that was emitted from frame ``begin`` on, and before frame ``end`` if it is given.

    Args:
        hypothesis: of a stream.
        tokenizer: of the model.
        begin: encoder frame.
        end: encoder frame, None for all that there are.
        offset: frames of the audio before the hypothesis' first.
    """
    end = hypothesis.num_frames if end is None else end
    part = slice(bisect_left(hypothesis.frames, begin), bisect_left(hypothesis.frames, end))
    ids, log_probs = hypothesis.tokens[part], hypothesis.log_probs[part]
    starts = [(frame + offset) * _FRAME for frame in hypothesis.frames[part]]
    pieces = [tokenizer.tokens[i] for i in ids]
    words = []
    for first, last in pairwise([*word_starts(pieces), len(ids)]):
        word = Word(
            word=tokenizer.decode(ids[first:last]),
            start=starts[spoken(pieces, first)],
            end=starts[last - 1] + _FRAME,
            confidence=math.exp(sum(log_probs[first:last]) / (last - first)),
            spaced=pieces[first].startswith(SPACE),
        )
        if word.word:
            words.append(word)
    return Transcript(
        text=" ".join(tokenizer.decode(ids).split()),
        start=(begin + offset) * _FRAME,
        end=(end + offset) * _FRAME,
        tokens=list(map(Token, pieces, starts, map(math.exp, log_probs))),
        words=words,
    )


def word_starts(pieces: Sequence[str]) -> list[int]:
    """The places in ``pieces`` of the tokens at which words begin."""
    starts = []
    for i, piece in enumerate(pieces):
        lone_space = i > 0 and pieces[i - 1] == SPACE  # it has begun the word
        if i == 0 or piece.startswith(SPACE) or (_is_word(piece) and not lone_space) or _is_word(pieces[i - 1]):
            starts.append(i)
    return starts


def spoken(pieces: Sequence[str], start: int) -> int:
    """The place of a word's first sound: a space that is a token of its own may come long before."""
    return start + (pieces[start] == SPACE and start + 1 < len(pieces))


def _is_word(piece: str) -> bool:
    """Whether the piece is of a script that writes no spaces: Chinese characters, kana."""
    name = unicodedata.name(piece.lstrip(SPACE)[:1] or " ", "")
    return name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
