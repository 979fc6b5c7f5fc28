"""Text files that users write: tables, Kaldi files, text of language models, hotwords."""

import codecs
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from summarymix.files import GZIP_ERRORS

# Of UTF-16 without a byte order mark, more than a third of the bytes are NUL if the letters are Latin.
_HEAD = 1024
_FOREIGN = {
    codecs.BOM_UTF32_LE: "UTF-32: convert it with iconv -f utf-32 -t utf-8",
    codecs.BOM_UTF32_BE: "UTF-32: convert it with iconv -f utf-32 -t utf-8",
    b"\x1f\x8b": "compressed with gzip: unpack it, or give it the suffix .gz",
    b"PK\x03\x04": "a spreadsheet or an archive: save it as a text file in UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save it as a text file in UTF-8",
}


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield the number, from 1, and the content of each line of a text file.

    The file is in UTF-8, with or without a byte order mark, or in UTF-16 with one. With the suffix ``.gz`` it is
    compressed. Lines end with ``\n``, ``\r\n`` or ``\r``, which are not part of the content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is in another encoding, or damaged; the message names the file, the line and the remedy.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"No such file or directory: {path}")
    number = 0
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            for line in _lines(path, file):
                number += 1
                # Concatenated files have byte order marks in their middle.
                yield number, line.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = "" if error.encoding != "utf-8" else f", because of the byte 0x{error.object[error.start]:02X}"
        raise ValueError(
            f"{path}, line {number + 1} is not {error.encoding.upper()}{byte}: convert the file with iconv -f ENCODING "
            "-t utf-8, where ENCODING is the one it was saved in, such as latin1, cp1252, gb18030 or shift_jis"
        ) from None
    except GZIP_ERRORS as error:
        raise ValueError(f"{path} is damaged after line {number} ({error}): restore the file") from None


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    head = cast(io.BufferedReader, file).peek(_HEAD)[:_HEAD]
    if mistake := next((text for mark, text in _FOREIGN.items() if head.startswith(mark)), None):
        raise ValueError(f"{path}, line 1: the file is {mistake}")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from (line.rstrip("\n") for line in io.TextIOWrapper(file, "utf-16"))
        return
    if 3 * head.count(0) > len(head):
        order = "be" if head[:1] == b"\0" else "le"
        raise ValueError(
            f"{path}, line 1: the file seems to be UTF-16 without a byte order mark: convert it with "
            f"iconv -f utf-16{order} -t utf-8"
        )
    for block in file:
        text = block.decode("utf-8")
        if "\r" not in text:
            yield text.removesuffix("\n")
        else:  # not splitlines, which also splits at U+2028 and others
            yield from re.split("\r\n|\r|\n", text.removesuffix("\n").removesuffix("\r"))
