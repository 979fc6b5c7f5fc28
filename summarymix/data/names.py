"""Names that become paths, arguments or lines of a report: splits, corpora, utterance ids, files."""

import argparse
import hashlib
import re
import unicodedata
from typing import Literal
from urllib.parse import quote

# A manifest's name has a prefix and a split, and file systems allow 255 bytes.
MAX_NAME_BYTES = 80
MAX_FILE_NAME_BYTES = 200
NAME_RULE = (
    f"use letters, digits, dots, dashes and underscores, at most {MAX_NAME_BYTES} bytes, and begin with a letter or "
    "a digit"
)

_NAME = re.compile(r"[^\W_][\w.-]*")
_DEV_WORDS = {"dev", "devel", "development", "val", "valid", "validation"}
_TEST_WORDS = {"test", "testing", "eval", "evaluation"}
_PLAIN = {"train": {"train", "training"}, "dev": _DEV_WORDS, "test": _TEST_WORDS}


def is_name(name: str) -> bool:
    """True if ``name`` can be the name of a split or a corpus, which becomes part of paths and arguments."""
    return _NAME.fullmatch(name) is not None and len(name.encode()) <= MAX_NAME_BYTES


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it can be part of paths and arguments.

    Args:
        name: name of a split or a corpus.
        what: subject of the message, such as ``the split``.

    Raises:
        ValueError: it cannot.
    """
    if not is_name(name):
        raise ValueError(f"{what} {printable(name)!r} cannot be a name: {NAME_RULE}")
    return name


def name_argument(text: str) -> str:
    """Parse the name of a split or a corpus on a command line, as the ``type`` of an option."""
    try:
        return check_name(text, "the value")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def kind_of(split: str) -> Literal["train", "dev", "test"]:
    """Kind of a split by its name in any case: train…, dev… (or val…); every other name is test data.

    A training split with a word for dev or test in its name is such data: ``train_dev`` is dev.
    """
    first, *others = _words(split) or [""]
    if first.startswith("train"):
        if first == "traindev" or _DEV_WORDS & {*others}:
            return "dev"
        return "test" if _TEST_WORDS & {*others} else "train"
    return "dev" if first.startswith(("dev", "val")) else "test"


def is_guessed(split: str) -> bool:
    """True if the name of a split does not say plainly whether it is training, dev or test data."""
    kinds = named_kinds(split)
    return len(kinds) != 1 or _words(split)[0] not in _PLAIN[kinds[0]]


def named_kinds(split: str) -> list[str]:
    """Kinds of splits (train, dev, test) of which the name has a plain word anywhere."""
    words = {*_words(split)}
    return [kind for kind, plain in _PLAIN.items() if plain & words]


def _words(split: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", split.lower())


def file_name(id_: str) -> str:
    """File name, without a suffix, for the data of an id: at most 200 bytes, different for different ids.

    Letters, digits, dashes, underscores and tildes stay, everything else is percent-encoded. Of a longer name the
    beginning stays, with a hash.

    >>> file_name("call 7/left")
    'call%207%2Fleft'
    """
    # Also dots, because "..", and a suffix that the writer of the file adds, have a meaning.
    return shortened(quote(id_, safe="").replace(".", "%2E"), MAX_FILE_NAME_BYTES)


def shortened(name: str, max_bytes: int) -> str:
    """Return ``name``, or if it is too long, its beginning with ``+`` and a hash of all."""
    if len(name.encode()) <= max_bytes:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name.encode()[: max_bytes - len(digest) - 1].decode(errors='ignore')}+{digest}"


def is_encodable(text: str) -> bool:
    """True if ``text`` can be part of paths and UTF-8 files: it has no NUL and no half of a surrogate pair."""
    return not re.search("[\0\ud800-\udfff]", text)


def is_path(text: str) -> bool:
    """True if a file on a usual system can have the path ``text``."""
    return is_encodable(text) and len(text.encode()) < 4096 and all(len(p.encode()) < 256 for p in text.split("/"))


def is_id(id_: str) -> bool:
    """True if ``id_`` can be part of a line of a report: it has no line break, tab or other control character."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in id_)


def printable(text: object) -> str:
    r"""``text`` for reports, with ``\udcff`` for what UTF-8 cannot encode, such as bytes of old file names."""
    return str(text).encode("utf-8", "backslashreplace").decode()
