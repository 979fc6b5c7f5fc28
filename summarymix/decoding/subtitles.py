"""SubRip and WebVTT subtitles from words with times."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from summarymix.decoding.words import Word

PAUSE = 0.8  # seconds without a word, at which a cue always ends
LINGER = 0.5  # seconds that a cue stays after its last word, if the next one lets it


@dataclass(frozen=True)
class Cue:
    """A text that is shown from ``start`` to ``end``, in seconds."""

    text: str
    start: float
    end: float


def make_cues(words: Sequence[Word], max_chars: int, max_seconds: float) -> list[Cue]:
    """Words as cues of at most so many characters and seconds, broken at pauses. A longer word is a cue of its own."""
    groups: list[list[Word]] = []
    for word in words:
        if groups:
            group = groups[-1]
            fits = len(_text([*group, word])) <= max_chars and word.end - group[0].start <= max_seconds
            if fits and word.start - group[-1].end < PAUSE:
                group.append(word)
                continue
        groups.append([word])
    cues = []
    for group, following in pairwise([*groups, []]):
        end = group[-1].end + LINGER
        cues.append(Cue(_text(group), group[0].start, min(end, following[0].start) if following else end))
    return cues


def _text(words: Iterable[Word]) -> str:
    return "".join(" " * word.spaced + word.word for word in words).strip()


def srt(cues: Iterable[Cue]) -> str:
    """SubRip: numbered cues, commas before milliseconds."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT: a heading, periods before milliseconds, and in the text ``&amp;``, ``&lt;``, ``&gt;``."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(cue.text, quote=False)}\n\n" for cue in cues
    )


def _clock(seconds: float, point: str) -> str:
    """``01:02:03,456``"""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
