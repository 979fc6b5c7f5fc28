"""The VoxPopuli recipe's alphabets and normalisation."""

import runpy
import unicodedata
from pathlib import Path

import pytest
from lhotse.recipes.voxpopuli import ASR_LANGUAGES

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "egs" / "voxpopuli" / "ASR" / "local" / "normalize.py"))
LETTERS, CharacterReport = SCRIPT["LETTERS"], SCRIPT["CharacterReport"]
clean, normalize = SCRIPT["clean"], SCRIPT["normalize"]


def test_every_transcribed_language_has_an_alphabet_of_composed_lower_case_letters() -> None:
    assert list(LETTERS) == ASR_LANGUAGES
    for letters in LETTERS.values():
        assert letters == unicodedata.normalize("NFC", letters).lower()
        assert letters.isalpha() or not letters
        assert len(set(letters)) == len(letters)
        assert letters.isascii() is (letters == "")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        # The first utterance of the Croatian training set, damage and full stop included.
        ("hr", "poast ena, u europi tek je politike.", "poast ena u europi tek je politike"),
        ("fr", "L’État, c\u2019est  «moi»…", "l'état c'est moi"),
        ("fr", "e\u0301te\u0301", "été"),
        ("en", 'the member-states/council – "yes"!', "the member states council yes"),
        ("de", "Straße", "straße"),
        ("ro", "Şi ţara, ș", "și țara ș"),
        ("en", "5 % of £3 & 2nd\u00a0part\t(no)", "5 % of £3 & 2nd part no"),
        ("lt", " .\n", ""),
    ],
)
def test_normalize(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == expected
    assert normalize(expected, language) == expected


def test_clean_changes_codes_and_spaces_only() -> None:
    assert clean(' Doamnă  "Preşedinte",\u00a0e\u0301 – ’ŢARA’. ', "ro") == 'Doamnă "Președinte", é – ’ȚARA’.'
    assert clean("Işık", "en") == "Işık"


def test_report_lists_foreign_characters_and_lost_letters(tmp_path: Path) -> None:
    report = CharacterReport("hr")
    report.add("a", "Što je 10 %? – 1 “dan”’")
    report.add("b", "evo 1\u200b")
    assert report.unused_letters == "čćđž"
    assert report.summary() == "6 characters (4 different) are foreign, in 2 utterances; never used: č ć đ ž"
    report.write(tmp_path / "characters.tsv")
    assert (tmp_path / "characters.tsv").read_text() == (
        "character\tcode\tname\toccurrences\tutterances\n"
        "1\tU+0031\tDIGIT ONE\t3\ta b\n"
        "%\tU+0025\tPERCENT SIGN\t1\ta\n"
        "0\tU+0030\tDIGIT ZERO\t1\ta\n"
        "\tU+200B\tZERO WIDTH SPACE\t1\tb\n"
    )
