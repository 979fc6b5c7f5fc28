"""SubRip and WebVTT subtitles from words with times."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from summarymix.decoding.words import Word

MAX_CHARS = 84  # of a cue, by default: two lines
MAX_SECONDS = 7.0
PAUSE = 0.8  # seconds without a word that always end a cue
LINGER = 0.5  # seconds that a cue stays after its last word, at most until the next cue


@dataclass(frozen=True)
class Cue:
    """A text that is shown from ``start`` to ``end``, in seconds."""

    text: str
    start: float
    end: float


def make_cues(words: Sequence[Word], max_chars: int, max_seconds: float) -> list[Cue]:
    """Group words into cues of limited characters and seconds, broken at pauses. A longer word is its own cue."""
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
    """Format cues as SubRip: numbered, with commas before milliseconds."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """Format cues as WebVTT: a header, periods before milliseconds, and ``&``, ``<``, ``>`` of the text escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(cue.text, quote=False)}\n\n" for cue in cues
    )


def _clock(seconds: float, point: str) -> str:
    """Format a time: ``01:02:03,456``."""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
