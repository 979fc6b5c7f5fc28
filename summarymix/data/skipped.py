"""Skipped data: never fatal, never silent. Every item is counted and listed with its remedy."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from summarymix.data.names import printable
from summarymix.files import atomic_write

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Skipped:
    """One skipped item."""

    id: str
    file: str
    reason: str  # a few words, the same for all items of a kind; items are counted by reason
    detail: str
    remedy: str

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return printable(f"{self.file}: {self.reason}{detail}: {self.remedy}")


@dataclass
class SkippedItems:
    """The items skipped so far, in order."""

    items: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Skipped) -> None:
        """Append one item."""
        self.items.append(item)

    def extend(self, items: Iterable[Skipped]) -> None:
        """Append several items."""
        self.items.extend(items)

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by reason, the most frequent first."""
        return dict(Counter(item.reason for item in self.items).most_common())

    def summary(self) -> str:
        """One line for the log: ``skipped 3: 2 empty transcript, 1 unreadable audio``."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.items())
        return f"skipped {len(self)}" + (f": {reasons}" if reasons else "")

    def write(self, path: Path) -> None:
        """Write the table of :func:`write_skipped`."""
        write_skipped(self.items, path)

    @classmethod
    def read(cls, path: Path) -> "SkippedItems":
        """Read a table that :meth:`write` wrote."""
        lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
        return cls([Skipped(*line.split("\t")) for line in lines])


def write_skipped(items: Iterable[Skipped], path: Path) -> int:
    """Write a tab-separated table: a header, then one line per item; return the number of items."""
    count = 0
    with atomic_write(path) as file:
        print(*(column.name for column in fields(Skipped)), sep="\t", file=file)
        for item in items:
            count += 1
            # An error message may contain line breaks.
            print(*(" ".join(printable(value).split()) for value in astuple(item)), sep="\t", file=file)
    return count


def list_of_process(path: Path, rank: int, world_size: int) -> Path:
    """The file of one process's list: ``path`` if there is only one, else ``*-rankN.tsv``."""
    return path if world_size == 1 else path.with_name(f"{path.stem}-rank{rank}{path.suffix}")


def remove_other_lists(path: Path, world_size: int) -> None:
    """Remove the lists at :func:`list_of_process` that another number of processes has left."""
    present = {list_of_process(path, rank, world_size) for rank in range(world_size)}
    for former in {path, *path.parent.glob(f"{path.stem}-rank*{path.suffix}")} - present:
        former.unlink(missing_ok=True)


def described(error: Exception) -> str:
    """Name and message of an error, without lhotse's additions: calls with all their arguments, requests to report."""
    message = str(error).split("[extra info]")[0].split("This could be internal Lhotse's error")[0]
    # Of the libraries that lhotse tries, the first one reads all formats that preparation leaves.
    if tried := re.search(r"Exception #0 .*: <class '(?:\w+\.)*(\w+)'>: (.*)", message):
        return f"{tried[1]}: {tried[2]}"
    return f"{type(error).__name__}: {message.strip()}"


def separate(items: Iterable[ItemT | Skipped]) -> tuple[list[ItemT], SkippedItems]:
    """Separate ``items`` into kept and skipped ones, both in order."""
    kept: list[ItemT] = []
    skipped = SkippedItems()
    for item in items:
        if isinstance(item, Skipped):
            skipped.add(item)
        else:
            kept.append(item)
    return kept, skipped
