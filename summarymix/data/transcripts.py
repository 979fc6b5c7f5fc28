"""The form of text that models are trained on and given: transcripts, text of language models, hotwords."""

import re
import unicodedata
from typing import Literal

TextCase = Literal["keep", "lower", "upper"]
Punctuation = Literal["keep", "remove"]

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff"  # Thai, Lao; Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u2e80-\u2fdf\u3001-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # radicals, punctuation, kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\ua000-\ua4cf"  # Yi
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f"  # full-width punctuation, half-width kana
    "\U0001b000-\U0001b16f"  # more kana
)
"""Characters of scripts that are written without spaces between words, as the inside of a class of :mod:`re`."""


_APOSTROPHES = "'’‘＇′\u055a\u05f3\u05f4"  # Armenian and Hebrew ones too
_HYPHENS = "-\u2010\u2011\u05be"  # no dashes; the last is Hebrew's maqaf
_IN_WORDS = _APOSTROPHES + _HYPHENS + "\u00b7"  # Catalan's col·legi
_IN_NUMBERS = ".,:/\u066b\u066c"
# Category P, but read aloud: signs; Tibetan's mark between syllables; Burmese's written abbreviations of words.
_SPOKEN = "%&@#§‰‱\u066a％＆＠＃" + "\u0f0b\u0f0c" + "\u104c\u104d\u104e\u104f"
# Armenian marks that stand within the word that they stress, exclaim or ask.
_WITHIN_ARMENIAN = dict.fromkeys(map(ord, "\u055b\u055c\u055e"))
_REMOVED = "\0"  # no text has it

_mark = re.compile(r"[^\w\s]|_")
_unspaced = re.compile(rf"[{UNSPACED}]*")
_removed_in_unspaced = re.compile(rf"(?<=[{UNSPACED}]){_REMOVED}+(?=[{UNSPACED}])")


def normalize_text(text: str, case: TextCase = "keep", punctuation: Punctuation = "keep") -> str:
    """Convert to Unicode NFC with single spaces and the given case, with or without punctuation.

    Every Unicode white space counts as a space. Byte order marks, which concatenated files have in their middle, are
    removed.

    >>> normalize_text("\ufeffCafe\u0301\u3000au  lait", "upper")
    'CAFÉ AU LAIT'
    """
    text = unicodedata.normalize("NFC", text.replace("\ufeff", ""))
    text = " ".join((remove_punctuation(text) if punctuation == "remove" else text).split())
    # Again, because of letters such as İ, whose lower case is not in this form.
    return unicodedata.normalize("NFC", {"keep": text, "lower": text.lower(), "upper": text.upper()}[case])


def remove_punctuation(text: str) -> str:
    """Replace the punctuation of any script by spaces, or by nothing between two characters of scripts without spaces.

    Apostrophes and hyphens within words stay, and so do marks within numbers and signs that are read aloud, such as %.
    Quotation marks, brackets, dashes, and apostrophes at the beginning or end of a word are punctuation. Symbols such
    as $, +, = and emoji are not.

    >>> remove_punctuation("¿Qué? – l'été, well-known: 3.5 %, 1,000 «ok». 你好，世界。").split()
    ['Qué', "l'été", 'well-known', '3.5', '%', '1,000', 'ok', '你好世界']
    """
    marked = _mark.sub(_without_mark, text.translate(_WITHIN_ARMENIAN))
    return _removed_in_unspaced.sub("", marked).replace(_REMOVED, " ")


def _without_mark(match: re.Match[str]) -> str:
    """The mark itself if it stays, otherwise what replaces it."""
    mark, text, at = match[0], match.string, match.start()
    if not is_punctuation(mark):
        return mark
    before, after = text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    if mark in _IN_WORDS and _is_of_word(before) and _is_of_word(after) and not _unspaced.fullmatch(before + after):
        return mark
    if mark == '"' and re.fullmatch("[\u05d0-\u05ea]{2}", before + after):  # for Hebrew's gershayim
        return mark
    if mark in _IN_NUMBERS and before.isdecimal() and after.isdecimal():
        return mark
    # .5 and -5
    if mark in ".-" and after.isdecimal() and before != mark and not _is_of_word(before):
        return mark
    return _REMOVED


def has_unspaced(text: str) -> bool:
    """True if a character of the text belongs to a script that is written without spaces."""
    return re.search(rf"[{UNSPACED}]", text) is not None


def num_words(text: str) -> float:
    """Number of words; a character of a script without spaces counts as half a word."""
    characters = re.findall(rf"[{UNSPACED}]", text)
    return len(re.sub(rf"[{UNSPACED}]", " ", text).split()) + len(characters) / 2


def is_punctuation(character: str) -> bool:
    """True for characters that :func:`remove_punctuation` removes, at least in some places."""
    return unicodedata.category(character)[0] == "P" and character not in _SPOKEN


def _is_of_word(character: str) -> bool:
    """True for letters, their combining marks and digits; False for the empty string."""
    return character != "" and unicodedata.category(character)[0] in "LMN"
