"""The form of text that models are trained on and given: transcripts, text of language models, hotwords."""

import unicodedata
from typing import Literal

TextCase = Literal["keep", "lower", "upper"]

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


def normalize_text(text: str, case: TextCase = "keep") -> str:
    """Convert to Unicode NFC with single spaces and the given case.

    Every Unicode white space counts as a space. Byte order marks, which concatenated files have in their middle, are
    removed.

    >>> normalize_text("\ufeffCafe\u0301\u3000au  lait", "upper")
    'CAFÉ AU LAIT'
    """
    text = " ".join(unicodedata.normalize("NFC", text.replace("\ufeff", "")).split())
    # Again, because of letters such as İ, whose lower case is not in this form.
    return unicodedata.normalize("NFC", {"keep": text, "lower": text.lower(), "upper": text.upper()}[case])
