"""The form of text that models are trained on and given: transcripts, text of language models, hotwords."""

import unicodedata
from typing import Literal

TextCase = Literal["keep", "lower", "upper"]


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
