"""Audio files as preparation has found them, so that a later check need not read those again that have not changed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from summarymix.files import atomic_write

_FILE = "measured.jsonl"


class Measured(NamedTuple):
    """A file that libsndfile reads to its true end."""

    size: int
    mtime_ns: int
    """Time of modification."""
    sample_rate: int
    num_samples: int

    @classmethod
    def of(cls, path: str, sample_rate: int, num_samples: int) -> "Measured":
        """The present size and time of a file, with what was found in it."""
        stat = os.stat(path)
        return cls(stat.st_size, stat.st_mtime_ns, sample_rate, num_samples)


def write_measured(folder: Path, files: Mapping[str, Measured]) -> None:
    """Write the files that were measured, in the order of their paths, or remove the list if there are none."""
    if not files:
        (folder / _FILE).unlink(missing_ok=True)
        return
    with atomic_write(folder / _FILE) as file:
        file.writelines(json.dumps([path, *measured]) + "\n" for path, measured in sorted(files.items()))


def read_measured(folder: Path) -> dict[str, Measured]:
    """Read the files of all corpora with a folder in ``folder``."""
    found: dict[str, Measured] = {}
    for listing in sorted(folder.glob(f"*/{_FILE}")):
        with open(listing, encoding="utf-8") as file:
            for line in file:
                path, *values = json.loads(line)
                found[path] = Measured(*values)
    return found
