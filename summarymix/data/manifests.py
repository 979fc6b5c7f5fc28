"""Reading and writing lhotse manifests (``.jsonl.gz``: one JSON object a line)."""

import argparse
import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from lhotse.cut import Cut
from lhotse.serialization import decode_json_line, deserialize_item

from summarymix.data.names import check_name, name_argument
from summarymix.data.skipped import described
from summarymix.files import GZIP_ERRORS, atomic_write


class _Item(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


class CutSource(ABC):
    """Cuts as lines of JSON."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The path or URL of the cuts, for messages."""

    @abstractmethod
    def mark(self) -> str:
        """A text that changes with the lines."""

    @abstractmethod
    def lines(self) -> Iterator[bytes]:
        """Iterate over the lines, each a cut.

        Raises:
            ValueError: the file is damaged.
        """

    def blocks(self, size: int) -> Iterator[list[bytes]]:
        """Iterate over ``size`` lines at a time."""
        lines = self.lines()
        while block := list(islice(lines, size)):
            yield block

    def parse(self, line: bytes) -> Cut:
        """Parse a line."""
        return deserialize_item(decode_json_line(line.decode()))

    def parse_all(self, lines: Iterable[bytes], begin: int = 0) -> Iterator[Cut]:
        """Parse lines from number ``begin`` on.

        Raises:
            ValueError: a line is not a cut; the message names it.
        """
        for number, line in enumerate(lines, begin + 1):
            with naming_line(self.location, number):
                cut = self.parse(line)
            yield cut

    def __iter__(self) -> Iterator[Cut]:
        """Iterate over the cuts, with the errors of :meth:`lines` and :meth:`parse_all`."""
        return self.parse_all(self.lines())


@contextmanager
def naming_line(location: str, number: int) -> Iterator[None]:
    """Name the line in the errors of a block that parses a line of a manifest.

    Raises:
        ValueError: the block raises any exception.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{location}, line {number} cannot be used ({described(error)}). Make the manifest again with ./prepare.sh"
        ) from error


@dataclass(frozen=True)
class CutManifest(CutSource):
    """The cuts of a manifest (``.jsonl.gz``), with the folder in which their relative paths begin."""

    path: Path
    folder: str = "."

    @property
    def location(self) -> str:
        return str(self.path)

    def mark(self) -> str:
        """Size and last eight bytes: gzip's checksum and length of the content."""
        with open(self.path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - 8, 0))
            return f"{size} {file.read().hex()}"

    def lines(self) -> Iterator[bytes]:
        try:
            with gzip.open(self.path, "rb") as file:
                yield from file
        except GZIP_ERRORS as error:
            raise ValueError(f"{self.path} is damaged ({error}): make it again with ./prepare.sh") from error

    def parse(self, line: bytes) -> Cut:
        cut = super().parse(line)
        if self.folder == ".":
            return cut
        return cut.with_features_path_prefix(self.folder).with_recording_path_prefix(self.folder)


def write_manifest(items: Iterable[_Item], path: Path) -> int:
    """Write recordings, supervisions or cuts to ``path`` and return their number.

    lhotse's own writers leave a partial file when they are killed, and their gzip header holds the time.
    This function writes whole files, and the same bytes for the same items.
    """
    return write_lines_packed((json.dumps(item.to_dict(), ensure_ascii=False).encode() + b"\n" for item in items), path)


def write_lines_packed(lines: Iterable[bytes], path: Path) -> int:
    """Write the lines of a manifest to ``path`` and return their number."""
    count = 0
    with (
        atomic_write(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        for line in lines:
            packed.write(line)
            count += 1
    return count


def manifest_path(manifest_dir: Path | str, prefix: str, kind: str, split: str | None) -> Path:
    """The path ``{prefix}_{kind}_{split}.jsonl.gz`` of a manifest.

    Args:
        manifest_dir: its folder.
        prefix: name of the corpus.
        kind: recordings, supervisions or cuts.
        split: name of the split; noise has no splits, so no ``_{split}``.

    Raises:
        ValueError: prefix or split cannot be part of a path.
    """
    check_name(prefix, "the prefix")
    suffix = "" if split is None else f"_{check_name(split, 'the split')}"
    return Path(manifest_dir) / f"{prefix}_{kind}{suffix}.jsonl.gz"


def cuts_path(manifest_dir: Path | str, prefix: str, split: str | None) -> Path:
    """The :func:`manifest_path` of a split's cuts."""
    return manifest_path(manifest_dir, prefix, "cuts", split)


def removed_path(manifest_dir: Path | str, prefix: str, split: str | None) -> Path:
    """The list of the cuts that validation has removed from a split's manifest."""
    return Path(manifest_dir) / f"skipped-{prefix}-{split or 'cuts'}-validate.tsv"


def read_items(path: Path) -> Iterator[Any]:
    """Iterate over the recordings, supervisions or cuts of a manifest; they are not kept in memory.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged; the message names the file, and the line.
    """
    return iter(CutManifest(path))


def read_cuts(path: Path) -> Iterator[Cut]:
    """Iterate over cuts as :func:`read_items`.

    Raises:
        FileNotFoundError: the file does not exist; the message lists the manifests in its folder.
        ValueError: it is damaged; the message names the file, and the line.
    """
    return read_items(check_manifest(path))


def check_manifest(path: Path | str) -> Path:
    """Return the path of a manifest.

    Raises:
        FileNotFoundError: the file does not exist; the message lists the manifests in its folder.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*_cuts_*.jsonl.gz"))
        raise FileNotFoundError(
            f"No manifest {path}. Its folder has: {', '.join(there) or 'none'}. "
            "Run ./prepare.sh, run this command in the recipe's folder, or correct the folder (--data.manifest_dir; "
            "decode.py: --manifest-dir), --data.prefix or the names of the splits"
        )
    return path


def add_split_options(parser: argparse.ArgumentParser, manifest_dir: str) -> None:
    """Add --prefix, --splits and --manifest-dir, with its default, which tell a program its manifests."""
    parser.add_argument(
        "--prefix", type=name_argument, required=True, help="name of the corpus in the manifests' file names"
    )
    parser.add_argument("--splits", type=name_argument, nargs="+", required=True)
    parser.add_argument("--manifest-dir", type=Path, default=Path(manifest_dir))
