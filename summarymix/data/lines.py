"""Files of lines, any of which can be read at once, and work on many lines in bounded memory."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from summarymix.files import atomic_write

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class LineFile:
    """The lines of a file by number. Pickled, it is only the path; its offsets are memory-mapped.

    Args:
        path: a file that :func:`write_lines` wrote.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = np.load(path.with_suffix(".npy"), mmap_mode="r")
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - open as long as the object

    def __reduce__(self) -> tuple[type["LineFile"], tuple[Path]]:
        return LineFile, (self._path,)

    def __len__(self) -> int:
        return len(self._offset) - 1

    def __getitem__(self, number: int) -> bytes:
        begin, end = int(self._offset[number]), int(self._offset[number + 1])
        return os.pread(self._file.fileno(), end - begin, begin)  # forked processes share a file's position


def write_lines(lines: Iterable[bytes], path: Path) -> None:
    """Write lines to ``path``, and the first byte of each and the end to a ``.npy`` beside it."""
    offsets = [np.zeros(1, np.int64)]
    with atomic_write(path, "wb") as file:
        lengths: list[int] = []
        for line in lines:
            file.write(line)
            lengths.append(len(line))
            if len(lengths) == 1 << 16:
                offsets.append(offsets[-1][-1] + np.cumsum(lengths))
                lengths.clear()
    offsets.append(offsets[-1][-1] + np.cumsum(lengths, dtype=np.int64))
    save_array(path.with_suffix(".npy"), np.concatenate(offsets))


def save_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array atomically."""
    with atomic_write(path, "wb") as file:
        np.save(file, values)


def id_hash(text: str | bytes) -> int:
    """A 64-bit hash of an id or path (or of its UTF-8), the same in every process, for a column of int64."""
    content = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)


def run_in_order(
    executor: Executor, work: Callable[[ItemT], ResultT], items: Iterable[ItemT], ahead: int
) -> Iterator[ResultT]:
    """Like ``executor.map``, but an item is taken only when fewer than ``ahead`` are waiting or in work."""
    waiting: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
