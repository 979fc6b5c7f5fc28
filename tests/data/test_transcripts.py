"""The form of transcripts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summarymix.data.transcripts import normalize_text


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\u3000", "\u00a0", "\u2009", "\u2028", "  \u200a "])
def test_every_white_space_is_one_space(space: str) -> None:
    assert normalize_text(f"{space}\ufeffa{space}b{space}") == "a b"


def test_case_and_composed_form() -> None:
    assert normalize_text("Cafe\u0301") == "Caf\u00e9"
    assert normalize_text("Cafe\u0301", "upper") == "CAF\u00c9"
    assert normalize_text("Cafe\u0301", "lower") == "caf\u00e9"


@given(st.text(), st.sampled_from(["keep", "lower", "upper"]))
def test_normalised_once_is_normalised_for_good(text: str, case) -> None:
    once = normalize_text(text, case)
    assert unicodedata.is_normalized("NFC", once)
    assert normalize_text(once, case) == once
