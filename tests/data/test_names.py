"""Names that become paths, and file names made from ids."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summarymix.data.names import check_name, file_name, is_guessed, is_id, is_name, kind_of, printable

encodable = st.characters(exclude_categories=("Cs",))


@pytest.mark.parametrize("name", ["train", "dev-clean.2", "1_a", "prueba_ñ", "测试"])
def test_names(name: str) -> None:
    assert check_name(name, "the split") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "--help", "-x", "a/b", "/", ".hidden", "_x", "a b", "a\n", "a*", "$a", "x" * 81, "\udcff"]
)
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"the split .* cannot be a name: use letters, digits, dots"):
        check_name(name, "the split")


@given(st.text(encodable))
def test_a_name_stays_in_its_folder(text: str) -> None:
    if is_name(text):
        path = Path("data") / text
        assert (path.parent, path.name) == (Path("data"), text)


@given(st.text(encodable), st.text(encodable))
def test_file_names_are_short_and_differ(one: str, other: str) -> None:
    for id_ in (one, one * 50):
        assert len(file_name(id_).encode()) <= 200
        assert "/" not in file_name(id_)
        assert "." not in file_name(id_)
    assert (file_name(one) == file_name(other)) == (one == other)
    assert (file_name(one * 50) == file_name(other * 50)) == (one * 50 == other * 50)


def test_file_names_are_readable() -> None:
    assert file_name("call-7_a~b") == "call-7_a~b"
    assert file_name("../a b.npy") == "%2E%2E%2Fa%20b%2Enpy"
    long = "u" * 300
    assert file_name(long).startswith("u" * 160)
    assert file_name(long) != file_name(long + "u")


@pytest.mark.parametrize("character", ["\n", "\r", "\u2028", "\u2029", "\x0c", "\0", "\t", "\x85", "\x1c", "\ud800"])
def test_ids_are_parts_of_a_line(character: str) -> None:
    assert not is_id(f"a{character}b")
    assert is_id("a b/ü日本\u200d")


@pytest.mark.parametrize(
    ("split", "kind", "guessed"),
    [
        ("train", "train", False),
        ("Train", "train", False),
        ("TRAIN", "train", False),
        ("train-clean-100", "train", False),
        ("train_sp", "train", False),
        ("train_nodev", "train", False),
        ("train_dev", "dev", True),
        ("valid", "dev", False),
        ("Validation", "dev", False),
        ("dev_clean2", "dev", False),
        ("dev93", "dev", False),
        ("devtest", "dev", True),
        ("test_dev93", "test", True),
        ("train_test", "test", True),
        ("eval2000", "test", False),
        ("et05_real", "test", True),
        ("测试", "test", True),
        ("123", "test", True),
    ],
)
def test_kinds_of_splits(split: str, kind: str, guessed: bool) -> None:
    assert (kind_of(split), is_guessed(split)) == (kind, guessed)


def test_names_that_are_not_utf8_can_be_printed() -> None:
    assert printable(Path("é\udcff.wav")) == "é\\udcff.wav"
