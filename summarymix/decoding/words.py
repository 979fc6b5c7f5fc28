"""Transcripts: tokens and words with times and confidences."""

import json
import math
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from summarymix.chunking import FRAME_MS
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.search import Hypothesis
from summarymix.files import atomic_write

SPACE = "\u2581"  # sentencepiece's mark of a space
_FRAME = FRAME_MS / 1000


@dataclass(frozen=True)
class Token:
    """A token with its emission time in seconds, and its probability given the previous tokens."""

    token: str
    start: float
    confidence: float


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds, from its first token to the end of its last token's frame, and the geometric
    mean of its tokens' probabilities. A token that begins with a Chinese character or kana is a word; text of other
    scripts without spaces, such as Thai, is one word up to the next space.
    """

    word: str
    start: float
    end: float
    confidence: float
    spaced: bool
    """True if a space precedes the word."""


@dataclass(frozen=True)
class Transcript:
    """Recognised text from ``start`` to ``end``, in seconds from the start of the audio."""

    text: str
    start: float
    end: float
    tokens: list[Token]
    words: list[Word]

    def until(self, seconds: float) -> "Transcript":
        """This text with all times limited to ``seconds``."""
        tokens = [replace(token, start=min(token.start, seconds)) for token in self.tokens]
        words = [replace(word, start=min(word.start, seconds), end=min(word.end, seconds)) for word in self.words]
        return Transcript(self.text, min(self.start, seconds), min(self.end, seconds), tokens, words)


def make_transcript(
    hypothesis: Hypothesis,
    tokenizer: Tokenizer,
    begin: int,
    end: int | None = None,
    offset: int = 0,
    first: int | None = None,
    last: int | None = None,
) -> Transcript:
    """Make the transcript of a hypothesis from frame ``begin`` on, up to but without frame ``end``.

    Args:
        hypothesis: hypothesis of a stream.
        tokenizer: the model's tokenizer.
        begin: encoder frame.
        end: encoder frame, None for the end of the hypothesis.
        offset: number of encoder frames of the audio before the hypothesis.
        first: index of the first token, if a search has moved it since ``begin`` was set; None: the first from
            ``begin`` on.
        last: index behind the last token, if tokens behind it have the frame ``end``; None: the first from ``end`` on.
    """
    end = hypothesis.num_frames if end is None else end
    first = bisect_left(hypothesis.frames, begin) if first is None else first
    part = slice(first, bisect_left(hypothesis.frames, end) if last is None else last)
    ids, log_probs = hypothesis.tokens[part], hypothesis.log_probs[part]
    starts = [(max(frame, begin) + offset) * _FRAME for frame in hypothesis.frames[part]]
    pieces = [tokenizer.tokens[i] for i in ids]
    words = [
        Word(
            word=word.text,
            start=starts[word.sound],
            end=starts[word.last] + _FRAME,
            confidence=math.exp(fmean(log_probs[word.first : word.last + 1])),
            spaced=pieces[word.first].startswith(SPACE),
        )
        for word in words_of(ids, tokenizer)
    ]
    return Transcript(
        text=text_of(ids, tokenizer),
        start=(begin + offset) * _FRAME,
        end=(end + offset) * _FRAME,
        tokens=list(map(Token, pieces, starts, map(math.exp, log_probs))),
        words=words,
    )


def text_of(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Text of tokens, with single spaces."""
    return " ".join(tokenizer.decode(ids).split())


def to_json(transcript: Transcript, **more: Any) -> str:
    """Format one line of JSON: ``more``, text, start, end, tokens and words, numbers to four places."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, dict):
            return {name: rounded(part) for name, part in value.items()}
        return [rounded(part) for part in value] if isinstance(value, list) else value

    return json.dumps(rounded(more | asdict(transcript)), ensure_ascii=False) + "\n"


def write_hyps(path: Path, transcripts: Mapping[str, Transcript]) -> None:
    """Write a line for each cut, sorted by cut id: its ``id`` and the fields of :func:`to_json`."""
    with atomic_write(path) as file:
        for cut_id, said in sorted(transcripts.items()):
            file.write(to_json(said, id=cut_id))


def write_ctm(path: Path, transcripts: Mapping[str, Transcript]) -> None:
    """Write the words of every cut in NIST's CTM format, in the order that sclite requires.

    A line has cut id, channel, start and duration in seconds, word, confidence. As in Kaldi's CTM files of utterances,
    the channel is 1 and times are relative to the utterance. White space in ids becomes underscores. A cut without
    words has no line.
    """
    named = [("_".join(cut_id.split()), said.words) for cut_id, said in transcripts.items()]
    with atomic_write(path) as file:
        for name, words in sorted(named, key=itemgetter(0)):
            for word in words:
                times = f"{word.start:.2f} {word.end - word.start:.2f}"
                print(name, 1, times, word.word, f"{word.confidence:.4f}", file=file)


class WordTokens(NamedTuple):
    """A word with the indices of its first token, its first token that is not a lone space, and its last token."""

    text: str
    first: int
    sound: int
    last: int


def words_of(ids: Sequence[int], tokenizer: Tokenizer) -> list[WordTokens]:
    """Return the words that the tokens spell."""
    pieces = [tokenizer.tokens[i] for i in ids]
    return [
        WordTokens(text, first, spoken(pieces, first), end - 1)
        for first, end in pairwise([*word_starts(pieces), len(pieces)])
        if (text := tokenizer.decode(ids[first:end]).strip())
    ]


def word_starts(pieces: Sequence[str]) -> list[int]:
    """Return the indices in ``pieces`` at which words begin."""
    starts = []
    for i, piece in enumerate(pieces):
        lone_space = i > 0 and pieces[i - 1] == SPACE  # the word began with it
        if i == 0 or piece.startswith(SPACE) or (_is_word(piece) and not lone_space) or _is_word(pieces[i - 1]):
            starts.append(i)
    return starts


def spoken(pieces: Sequence[str], start: int) -> int:
    """Return the index of a word's first token, skipping a lone space, which may be emitted long before."""
    return start + (pieces[start] == SPACE and start + 1 < len(pieces))


@cache
def _is_word(piece: str) -> bool:
    """True if the piece begins with a Chinese character or kana."""
    name = unicodedata.name(piece.lstrip(SPACE)[:1] or " ", "")
    return name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
