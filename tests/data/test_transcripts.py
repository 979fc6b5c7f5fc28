"""The form of transcripts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summarymix.data.transcripts import normalize_text, remove_punctuation


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\u3000", "\u00a0", "\u2009", "\u2028", "  \u200a "])
def test_every_white_space_is_one_space(space: str) -> None:
    assert normalize_text(f"{space}\ufeffa{space}b{space}") == "a b"


def test_case_and_composed_form() -> None:
    assert normalize_text("Cafe\u0301") == "Caf\u00e9"
    assert normalize_text("Cafe\u0301", "upper") == "CAF\u00c9"
    assert normalize_text("Cafe\u0301", "lower") == "caf\u00e9"


@given(
    st.text(st.characters() | st.sampled_from(".,:/-'’_·\"…“” 5a好\u05d0\u0301\u055b")),
    st.sampled_from(["keep", "lower", "upper"]),
    st.sampled_from(["keep", "remove"]),
)
def test_normalised_once_is_normalised_for_good(text: str, case, punctuation) -> None:
    once = normalize_text(text, case, punctuation)
    assert unicodedata.is_normalized("NFC", once)
    assert normalize_text(once, case, punctuation) == once


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("“Well-known”, he said -- it's O’Neil's.", "Well-known he said it's O’Neil's"),
        ("'Tis 'quoted', rock 'n' roll", "Tis quoted rock n roll"),
        ("¿Qué? ¡No! «Oui»… l'été – aujourd’hui", "Qué No Oui l'été aujourd’hui"),
        ("end.Next,word(s)/x snake_case", "end Next word s x snake case"),  # words are not glued
        ("3.5, 1,000,000. At 10:30; 1/2: .5 or -5 (-7)", "3.5 1,000,000 At 10:30 1/2 .5 or -5 -7"),
        ("50 % of AT&T @ #1", "50 % of AT&T @ #1"),  # are read aloud
        ("“你好，世界。”……再见！", "你好世界再见"),
        ("打开WI-FI，好 的、ok。列奥纳多·达芬奇", "打开WI-FI 好 的 ok 列奥纳多达芬奇"),
        ("「テニス・コート」をね。", "テニスコートをね"),
        ("مرحبا، كيف؟ ٣٫٥؛", "مرحبا كيف ٣٫٥"),
        ("पानी, हिन्दी-उर्दू।", "पानी हिन्दी-उर्दू"),  # signs of vowels are of the word
        ('צה״ל, צה"ל בית־ספר', 'צה״ל צה"ל בית־ספר'),
        ("ինչո՞ւ։", "ինչու"),  # stands within the word
        ("col·legi, o‘zbek", "col·legi o‘zbek"),
        ("བཀྲ་ཤིས།", "བཀྲ་ཤིས"),  # between syllables
        ("ជំរាបសួរ។ မင်္ဂလာပါ။ သူ၏", "ជំរាបសួរ မင်္ဂလာပါ သူ၏"),
        ("?!", ""),
    ],
)
def test_punctuation_of_many_languages(text: str, bare: str) -> None:
    assert normalize_text(text, "keep", "remove") == bare
    assert normalize_text(text) == text


@given(st.text())
def test_only_punctuation_goes(text: str) -> None:
    left = [c for c in text if not c.isspace() and unicodedata.category(c)[0] != "P"]
    kept = [c for c in remove_punctuation(text) if not c.isspace() and unicodedata.category(c)[0] != "P"]
    assert kept == [c for c in left if c != "\0"]
