"""Collections on disk, for what would fill the memory in a corpus of many million utterances.

SQLite keeps each in a temporary file without a name, in the folder of the environment variable SQLITE_TMPDIR or TMPDIR,
else in /var/tmp or /tmp. It is gone when the collection or the process is.
"""

import errno
import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ValueT = TypeVar("ValueT")


class Database(sqlite3.Connection):
    """Tables in a temporary file.

    Args:
        schema: statements that make the tables.
    """

    def __init__(self, schema: str) -> None:
        super().__init__("", isolation_level=None, check_same_thread=False)  # closed by whichever thread drops it
        self.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {schema}")

    def __del__(self) -> None:
        self.close()


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Name the remedy if there is no room for temporary files.

    Raises:
        OSError: there is none.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(
            errno.ENOSPC,
            f"No temporary file for the utterances ({error}): they take about 2 kB each; free some room in /var/tmp, "
            "or give a folder with more in the environment variable TMPDIR",
        ) from error


class DiskList(Generic[ItemT]):
    """Items in order, all of which can be iterated over again and again."""

    def __init__(self) -> None:
        self._database = Database("CREATE TABLE items (number INTEGER PRIMARY KEY, item BLOB)")

    def append(self, item: ItemT) -> None:
        """Add an item, which is pickled."""
        self._database.execute("INSERT INTO items (item) VALUES (?)", (pickle.dumps(item),))

    def __iter__(self) -> Iterator[ItemT]:
        for (item,) in self._database.execute("SELECT item FROM items ORDER BY number"):
            yield pickle.loads(item)

    def __bool__(self) -> bool:
        return any(True for _ in self)


class DiskSet:
    """Values by their hashes; of 30 million, two share a hash with a probability of 1 in 40 000."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        self._database = Database("CREATE TABLE hashes (hash INTEGER PRIMARY KEY)")
        for value in values:
            self.add(value)

    def add(self, value: object) -> bool:
        """Add a value; return True if it was not in the set."""
        return self._database.execute("INSERT OR IGNORE INTO hashes VALUES (?)", (hash(value),)).rowcount > 0

    def __contains__(self, value: object) -> bool:
        return self._database.execute("SELECT 1 FROM hashes WHERE hash = ?", (hash(value),)).fetchone() is not None


class DiskDict(Mapping[str, ValueT]):
    """Values by name, in the order in which the names were first set.

    Args:
        items: the first items.
    """

    def __init__(self, items: Iterable[tuple[str, ValueT]] = ()) -> None:
        self._database = Database("CREATE TABLE items (number INTEGER PRIMARY KEY, name BLOB UNIQUE, value BLOB)")
        # Rows of one recording follow each other, and who iterates over names asks for their values.
        self._latest: tuple[str, ValueT] | None = None
        self.update(items)

    def update(self, items: Iterable[tuple[str, ValueT]]) -> None:
        """Set the values of many names."""
        for name, value in items:
            self[name] = value

    def __setitem__(self, name: str, value: ValueT) -> None:
        """Set the value of a name; it is pickled."""
        self._latest = None
        self._database.execute(
            "INSERT INTO items (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (_bytes_of(name), pickle.dumps(value)),
        )

    def setdefault(self, name: str, value: ValueT) -> ValueT:
        """Set the value of a name that has none, and return the name's value."""
        if name not in self:
            self[name] = value
        return self[name]

    def __getitem__(self, name: str) -> ValueT:
        if self._latest is None or self._latest[0] != name:
            found = self._database.execute("SELECT value FROM items WHERE name = ?", (_bytes_of(name),)).fetchone()
            if found is None:
                raise KeyError(name)
            self._latest = name, pickle.loads(found[0])
        return self._latest[1]

    def __iter__(self) -> Iterator[str]:
        return self._names("number")

    def in_order(self) -> Iterator[str]:
        """The names in the order of their code points."""
        return self._names("name")

    def __len__(self) -> int:
        ((number,),) = self._database.execute("SELECT count(*) FROM items")
        return int(number)

    def _names(self, order: str) -> Iterator[str]:
        for packed_name, value in self._database.execute(f"SELECT name, value FROM items ORDER BY {order}"):
            name = packed_name.decode("utf-8", "surrogatepass")
            self._latest = name, pickle.loads(value)
            yield name


def _bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
