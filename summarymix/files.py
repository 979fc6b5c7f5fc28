"""Atomic writing of files: a reader sees the old content or the new content, never a part of it."""

import errno
import gzip
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import hashlib

    from matplotlib.figure import Figure  # seconds to import

ResultT = TypeVar("ResultT")

GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""Errors of reading damaged gzip data, or other data as such."""

# Errors of a disk or of this process, which concern all files.
_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary sibling of ``path`` for writing and rename it over ``path`` on success.

    ``mode`` is ``"w"`` (UTF-8 text) or ``"wb"``. If the block raises, ``path`` is left as it was and the
    temporary file is removed.

    Raises:
        OSError: the file could not be written; for a full disk the message names the path and the remedy.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Random, because two machines or containers may have the same process id.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"No space left to write {path}: free some room on that disk, or choose another folder. "
                "An earlier file there is unchanged",
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number and the record of each line of a file of JSON lines that a program appends to.

    Half a last line, of a program that was killed while it wrote, is left out.

    Raises:
        ValueError: another line is not JSON; the message names the file and the line.
    """
    *lines, last = path.read_bytes().split(b"\n")
    for number, text in enumerate([*lines, *filter(bytes.strip, [last])], 1):
        try:
            yield number, json.loads(text)
        except ValueError as error:
            if text is not last:
                raise ValueError(f"{path}, line {number} is not a record ({error}): delete that line") from error


def add_content(digest: "hashlib._Hash", path: Path) -> None:
    """Feed the content of a file of any size to a digest."""
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def write_list(path: Path, lines: Sequence[str]) -> None:
    """Write lines atomically, or remove an earlier file if there are none."""
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def write_png(path: Path | str, figure: "Figure") -> None:
    """Write a plot atomically, without matplotlib's version, so that equal figures give equal files."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, renamed to ``path`` on success and removed if the block raises.

    Raises:
        FileExistsError: ``path`` exists, and is not an empty folder or cannot be replaced.
    """
    path = Path(path).resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} is there already: choose another folder, or remove it")
    if path.is_mount() or path == Path.cwd():
        raise FileExistsError(f"{path} cannot be replaced by another folder: choose a new one within it")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_own(folder: Path | str, names: str) -> None:
    """Check that this program made everything in ``folder``, which is about to be removed or replaced.

    Args:
        folder: a folder, which need not exist.
        names: regular expression for the names of the files and folders that this program makes there.

    Raises:
        FileExistsError: there is something else.
    """
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{folder} is in the way: move it, or choose another folder")
    for path in sorted(folder.rglob("*")):
        if not re.fullmatch(names, path.name):
            raise FileExistsError(
                f"{folder} is in the way: {path} is not from this program, so the folder is not removed. Move it, or "
                "choose another folder"
            )


def remove_own(folder: Path | str, names: str) -> None:
    """Remove a folder if it exists, after :func:`check_own`.

    Raises:
        FileExistsError: something in the folder is not from this program; nothing is removed.
    """
    check_own(folder, names)
    if Path(folder).exists():
        shutil.rmtree(folder)


def check_disk_space(folder: Path | str, needed_bytes: float, what: str) -> None:
    """Check before hours of work that the disk has room for the result.

    Args:
        folder: folder to write to, which need not exist yet.
        needed_bytes: number of bytes to write.
        what: subject of the message, such as ``the features of train``.

    Raises:
        OSError: the disk has too little room.
    """
    folder = Path(folder)
    # A folder to be made lies on the disk of its nearest existing parent.
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{what} will take about {needed_bytes / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: "
            "free some room on that disk, or choose another folder",
        )


def is_disk_error(error: Exception) -> bool:
    """True if an error says nothing about the file that was read or written, but concerns all files."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def read_surely(read: Callable[[], ResultT], paths: Iterable[Path | str]) -> ResultT:
    """Read data with a library whose errors hide those of the system, and once more after an error, which may pass.

    Args:
        read: the call of the library.
        paths: the files that it reads.

    Raises:
        OSError: the system cannot read a file; of :func:`is_disk_error`, the message has the remedy.
        Exception: the second call of ``read`` fails too.
    """
    try:
        return read()
    except Exception:
        for path in paths:
            try:
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass
            except OSError as error:
                if not is_disk_error(error):
                    raise
                raise OSError(
                    error.errno,
                    f"Cannot read {path} ({error.strerror}). Correct this and run the same command again: it "
                    "continues where it stopped",
                ) from error
        return read()
