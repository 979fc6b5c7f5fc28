"""Metrics of recognition: words, characters or both mixed, each a way to split text into the units that are counted."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from summarymix.data.transcripts import UNSPACED

Metric = Literal["wer", "cer", "mer"]
METRICS: tuple[Metric, ...] = ("wer", "cer", "mer")
RATE_NAMES: dict[str, str] = {
    "wer": "word error rate",
    "cer": "character error rate",
    "mer": "mixed error rate",
}
UNIT_NAMES: dict[str, str] = {"wer": "words", "cer": "characters", "mer": "words and characters"}

# Both kinds of writing have at least this share of the units of a text that is called mixed.
MIXED = 0.05

_space_beside_unspaced = re.compile(rf"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")
_mixed_unit = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def split_units(words: Sequence[str], metric: Metric) -> list[str]:
    """Split a transcript into the units of a metric.

    ``wer``: words, between white space.

    ``cer``: characters (Unicode code points). The space between two words counts as one, as in the error rates of this
    repository for English and in jiwer. A space beside a character of a script that is written without spaces (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese, Tibetan) does not count, because there it only marks how a text was segmented.
    icefall's Mandarin recipes (``write_error_stats(compute_CER=True)``) and NIST's ``sclite -c`` count no spaces, so
    for such text the three agree.

    ``mer``: each character of a script without spaces, and each word in between, counts as one. icefall's
    ``tokenize_by_CJK_char`` (tal_csasr), WeNet's ``compute-wer.py --char=1`` and ``sclite -c NOASCII`` count
    Chinese mixed with English in this way. Hangul has spaces, so it counts by words.

    >>> split_units(["ICE", "CAP"], "cer"), split_units(["你好", "世界"], "cer")
    (['I', 'C', 'E', ' ', 'C', 'A', 'P'], ['你', '好', '世', '界'])
    >>> split_units(["我用", "IPHONE", "X手机"], "mer")
    ['我', '用', 'IPHONE', 'X', '手', '机']
    """
    if metric == "wer":
        return list(words)
    text = " ".join(words)
    return list(_space_beside_unspaced.sub("", text)) if metric == "cer" else _mixed_unit.findall(text)


def choose_metric(texts: Iterable[str]) -> Metric:
    """Choose the metric for reference transcripts by their script; see :func:`metric_of_scripts`."""
    return metric_of_scripts(*count_scripts(texts))


def count_scripts(texts: Iterable[str]) -> tuple[int, int]:
    """Count characters of scripts without spaces, and words of other scripts. Numbers and punctuation do not count."""
    characters, words = 0, 0
    for text in texts:
        for unit in _mixed_unit.findall(text):
            if re.match(rf"[{UNSPACED}]", unit):
                characters += unit.isalpha()
            else:
                words += any(map(str.isalpha, unit))
    return characters, words


def metric_of_scripts(characters: float, words: float) -> Metric:
    """Choose the metric by the counts of :func:`count_scripts`.

    ``cer`` for scripts without spaces with hardly any words of others, ``mer`` for a mixture, ``wer`` otherwise.
    """
    if characters <= MIXED * (characters + words):
        return "wer"
    return "mer" if words > MIXED * (characters + words) else "cer"
