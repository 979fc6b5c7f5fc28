"""Units of the metrics, and their choice by script."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summarymix.scoring.metrics import METRICS, Metric, choose_metric, split_units

UNSPACED_TEXTS = ["今天天气很好", "昨日はテニスをした", "ｶﾀｶﾅ", "สวัสดีครับ", "ສະບາຍດີ", "សួស្តី", "မင်္ဂလာပါ", "བཀྲ་ཤིས"]
SPACED_TEXTS = ["hello world", "안녕 하세요", "مرحبا بالعالم", "привет мир", "नमस्ते दुनिया", "2023", "", "።"]


def icefall_cer(words: list[str]) -> list[str]:
    """Units of icefall's write_error_stats(compute_CER=True)."""
    return list("".join(words))


def icefall_mer(words: list[str]) -> list[str]:
    """Units of icefall's tokenize_by_CJK_char, written from its definition, without its Hangul."""
    return re.sub(r"([\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0002ffff])", r" \1 ", " ".join(words)).split()


HAN = st.text("的一是不了人我在有他", min_size=1, max_size=4)
LATIN = st.text("ABC'", min_size=1, max_size=4)


@given(st.lists(HAN))
def test_characters_of_chinese_are_those_of_icefall(words: list[str]) -> None:
    assert split_units(words, "cer") == split_units(words, "mer") == icefall_cer(words)


@given(st.lists(st.one_of(HAN, LATIN, st.tuples(HAN, LATIN, HAN).map("".join))))
def test_mixed_units_of_chinese_and_english_are_those_of_icefall(words: list[str]) -> None:
    assert split_units(words, "mer") == icefall_mer(words)


@given(st.lists(st.text("abé'", min_size=1)))
def test_without_such_scripts_words_are_words_and_spaces_are_characters(words: list[str]) -> None:
    assert split_units(words, "mer") == split_units(words, "wer") == words
    assert split_units(words, "cer") == list(" ".join(words))


@given(st.lists(st.text(st.characters(exclude_categories=("Z", "C")), min_size=1)), st.sampled_from(METRICS))
def test_no_character_is_lost(words: list[str], metric: Metric) -> None:
    assert "".join(split_units(words, metric)).replace(" ", "") == "".join(words)


@pytest.mark.parametrize("text", UNSPACED_TEXTS)
def test_scripts_without_spaces_are_counted_by_characters(text: str) -> None:
    assert choose_metric([text, ""]) == "cer"
    assert choose_metric([" ".join(text)]) == "cer"  # segmented, as AISHELL is
    assert split_units([text[:2], text[2:]], "cer") == list(text)


@pytest.mark.parametrize("text", SPACED_TEXTS)
def test_others_are_counted_by_words(text: str) -> None:
    assert choose_metric([text]) == "wer"


@pytest.mark.parametrize(
    ("texts", "metric"),
    [
        (["我们 meeting 改到 next week"], "mer"),
        (["今天天气很好"] * 20 + ["打开 WIFI"], "cer"),  # 1 word in 122 units
        (["the word for it is"] * 20 + ["好"], "wer"),
        (["今天 12 度,", "3.5%"], "cer"),  # numbers and punctuation are of no script
        ([], "wer"),
    ],
)
def test_mixtures(texts: list[str], metric: Metric) -> None:
    assert choose_metric(texts) == metric
