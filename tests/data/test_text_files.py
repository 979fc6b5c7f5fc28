"""Encodings and line ends of files that users write."""

import gzip
from pathlib import Path

import pytest

from summarymix.data.text_files import read_lines

LINES = ["audio\ttext", "", "é \u2028 \x0b 日本", "\u00a0x "]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_the_lines_of_every_encoding(encoding: str, end: str, last: bool, tmp_path: Path) -> None:
    content = (end.join(LINES) + end * last).encode(encoding)
    (tmp_path / "a.tsv").write_bytes(content)
    (tmp_path / "b.gz").write_bytes(gzip.compress(content))
    for path in tmp_path.iterdir():
        assert list(read_lines(path)) == list(enumerate(LINES, 1))


def test_byte_order_marks_of_concatenated_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(2 * "one\n".encode("utf-8-sig"))
    assert list(read_lines(tmp_path / "a")) == [(1, "one"), (2, "one")]


@pytest.mark.parametrize("byte_order", ["utf-16-le", "utf-16-be"])
def test_utf16_of_either_byte_order(byte_order: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(("\ufeff" + "\n".join(LINES)).encode(byte_order))
    assert [line for _, line in read_lines(tmp_path / "a")] == LINES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a\nb\nä\n".encode("latin1"),
            r"line 3 is not UTF-8, because of the byte 0xE4: convert the file with iconv -f",
        ),
        ("a\rb\nä\n".encode("latin1"), r"line 3 is not UTF-8"),
        ("audio\ttext\n".encode("utf-16-le"), r"line 1: the file seems to be UTF-16 .* iconv -f utf-16le -t utf-8"),
        ("audio\ttext\n".encode("utf-16-be"), r"line 1: the file seems to be UTF-16 .* iconv -f utf-16be -t utf-8"),
        ("audio\ttext\n".encode("utf-16")[:-1], r"line 1 is not UTF-16"),
        ("audio\ttext\n".encode("utf-32"), r"line 1: the file is UTF-32: convert it with iconv -f utf-32"),
        (gzip.compress(b"a", mtime=0), r"line 1: the file is compressed with gzip"),
        (b"PK\x03\x04abc", r"line 1: the file is a spreadsheet or an archive: save it as a text file"),
    ],
)
def test_other_encodings_are_refused_with_their_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.txt, {message}"):
        list(read_lines(tmp_path / "a.txt"))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    with pytest.raises(ValueError, match=r"a\.gz is damaged after line \d+ .*: restore the file"):
        list(read_lines(tmp_path / "a.gz"))
    (tmp_path / "b.gz").write_bytes(b"one\n")
    with pytest.raises(ValueError, match=r"b\.gz is damaged"):
        list(read_lines(tmp_path / "b.gz"))
    for path in (tmp_path, tmp_path / "nope"):
        with pytest.raises(FileNotFoundError, match=f"No such file or directory: .*{path.name}"):
            list(read_lines(path))
    (tmp_path / "empty").write_bytes(b"")
    assert list(read_lines(tmp_path / "empty")) == []
