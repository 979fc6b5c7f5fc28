"""Reading of files on disk, over http(s), or in an object store."""

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import cast

import fsspec

# Seconds to wait before each further attempt to read a remote file.
_PAUSES = (1.0, 5.0, 25.0)


def read_bytes(location: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read ``size`` bytes from ``offset``, or to the end of the file.

    Args:
        location: a path, ``http(s)://…``, or any URL that fsspec supports, such as ``s3://…`` with s3fs installed.
        offset: number of the first byte.
        size: number of bytes; None: to the end.

    Raises:
        OSError: the file cannot be read (if remote, after several attempts), or is too short.
        ImportError: this kind of URL needs another package; the message names it.
    """
    for pause in (*_PAUSES, None):
        try:
            content = _read(location, offset, size)
        except (OSError, HTTPException) as error:
            if pause is not None and is_remote(location) and not _is_final(error):
                time.sleep(pause)
                continue
            if isinstance(error, HTTPException):
                raise OSError(f"{location}: the connection broke ({error!r})") from error
            raise
        if size is not None and len(content) != size:
            raise OSError(f"{location} ends before byte {offset + size}: copy it again")
        return content
    raise AssertionError


def is_remote(location: str) -> bool:
    """True if a location is a URL."""
    return "://" in location


def _read(location: str, offset: int, size: int | None) -> bytes:
    end = None if size is None else offset + size
    if not is_remote(location):
        with Path(location).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)
    if not location.startswith(("http://", "https://")):
        files, path = fsspec.core.url_to_fs(location)
        return cast(bytes, files.cat_file(path, start=offset, end=end))
    # Without fsspec, which needs another package for http(s).
    request = urllib.request.Request(location)
    if end is not None:
        request.add_header("Range", f"bytes={offset}-{end - 1}")
    with urllib.request.urlopen(request, timeout=60) as response:
        if end is not None and response.status != 206:
            raise _NoRanges(
                f"The server of {location} does not support range requests: use another server (most support them), "
                "or copy the folder to disk"
            )
        return cast(bytes, response.read())


class _NoRanges(OSError):
    pass


def _is_final(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code != 429
    return isinstance(error, FileNotFoundError | PermissionError | _NoRanges)
