"""Files of a corpus as preparation has found them, so that a later check need not read unchanged audio again, and
preparation is repeated when a file has changed.
"""

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from summarymix.data.corpus.on_disk import DiskDict
from summarymix.data.lines import id_hash
from summarymix.files import atomic_write

_FILE = "measured.jsonl"


class Measured(NamedTuple):
    """A file and what was found in it."""

    size: int
    """-1 if there is no such file."""
    mtime_ns: int
    """Time of modification."""
    sample_rate: int = 0
    num_samples: int = 0
    """0 unless libsndfile reads the file to its true end."""

    @classmethod
    def of(cls, path: str, sample_rate: int, num_samples: int) -> "Measured":
        """The present size and time of a file, with what was found in it."""
        stat = os.stat(path)
        return cls(stat.st_size, stat.st_mtime_ns, sample_rate, num_samples)

    @classmethod
    def unread(cls, path: str) -> "Measured":
        """The present size and time of a file, which may be missing."""
        try:
            return cls.of(path, 0, 0)
        except (OSError, ValueError):  # ValueError: the path has a NUL
            return cls(-1, 0)


def write_measured(folder: Path, files: DiskDict[Measured]) -> None:
    """Write the files that were measured, in the order of their paths, or remove the list if there are none."""
    if not files:
        (folder / _FILE).unlink(missing_ok=True)
        return
    with atomic_write(folder / _FILE) as file:
        file.writelines(json.dumps([path, *files[path]]) + "\n" for path in files.in_order())


class MeasuredFiles:
    """The files of :func:`read_measured`, as arrays, because they may be many millions."""

    def __init__(self, paths: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """
        Args:
            paths: hashes of the paths.
            values: a row with the values of :class:`Measured` for each path.
        """
        self._order = np.argsort(paths, kind="stable")
        self._paths, self._values = paths[self._order], values

    def __len__(self) -> int:
        return len(self._paths)

    def get(self, path: str) -> Measured | None:
        """Return how preparation has found a file, or None."""
        name = id_hash(path)
        place = int(np.searchsorted(self._paths, name, side="right")) - 1
        return (
            Measured(*self._values[self._order[place]].tolist()) if place >= 0 and self._paths[place] == name else None
        )


def read_measured(folder: Path) -> MeasuredFiles:
    """Read the files that libsndfile reads, of all corpora with a folder in ``folder``."""
    paths, rows = array("q"), array("q")
    for listing in sorted(folder.glob(f"*/{_FILE}")):
        for path, found in _read(listing):
            if found.num_samples:
                paths.append(id_hash(path))
                rows.extend(found)
    return MeasuredFiles(np.asarray(paths), np.asarray(rows).reshape(len(paths), len(Measured._fields)))


def changed_file(folder: Path) -> str | None:
    """The first file of the corpus with the folder ``folder`` that has another size or time than preparation found, has
    gone or has come; None if there is none.
    """
    listing = folder / _FILE
    files = _read(listing) if listing.is_file() else ()
    return next((path for path, found in files if Measured.unread(path)[:2] != found[:2]), None)


def _read(listing: Path) -> Iterator[tuple[str, Measured]]:
    with open(listing, encoding="utf-8") as file:
        for line in file:
            path, *values = json.loads(line)
            yield path, Measured(*values)
