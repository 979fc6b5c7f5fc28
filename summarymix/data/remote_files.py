"""Reading of files on disk, over http(s), or in an object store; many at once, over connections that stay open."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import fsspec
import urllib3
from urllib3.exceptions import HTTPError

# Seconds to wait before each further attempt to read a remote file.
_PAUSES = (1.0, 5.0, 25.0)

# Requests in flight of one process.
AT_A_TIME = 32


class Span(NamedTuple):
    """Bytes of a file."""

    location: str
    """A path, ``http(s)://…``, or any URL that fsspec supports, such as ``s3://…`` with s3fs installed."""
    offset: int = 0
    """Number of the first byte."""
    size: int | None = None
    """Number of bytes; None: to the end."""


def read_bytes(location: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read a :class:`Span`.

    Raises:
        OSError: the file cannot be read (if remote, after several attempts), or is too short.
        ImportError: this kind of URL needs another package; the message names it.
    """
    for pause in (*_PAUSES, None):
        try:
            content = _read(location, offset, size)
        except OSError as error:
            if pause is None or not is_remote(location) or _is_final(error):
                raise
            time.sleep(pause)
            continue
        if size is not None and len(content) != size:
            raise OSError(f"{location} ends before byte {offset + size}: copy it again")
        return content
    raise AssertionError


def read_many(spans: Sequence[Span]) -> list[bytes | Exception]:
    """Read several spans, remote ones :data:`AT_A_TIME` at a time; for one that cannot be read, return the error."""
    if not any(is_remote(span.location) for span in spans):
        return list(map(_try_to_read, spans))  # on a disk, threads would only cost time
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return list(threads.map(_try_to_read, spans))


def is_remote(location: str) -> bool:
    """True if a location is a URL."""
    return "://" in location


def _try_to_read(span: Span) -> bytes | Exception:
    try:
        return read_bytes(*span)
    except Exception as error:
        return error


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
    headers = {} if end is None else {"Range": f"bytes={offset}-{end - 1}"}
    connections = _connections(os.getpid(), _proxy(location))
    try:
        # The body is read below, as it is stored: a refusal may come with a whole archive.
        response = connections.request("GET", location, headers=headers, preload_content=False, decode_content=False)
        try:
            if response.status >= 400:
                raise _StatusError(
                    response.status, f"{location}: the server answers {response.status} {response.reason}"
                )
            if end is not None and response.status != 206:
                raise _NoRanges(
                    f"The server of {location} does not support range requests: use another server (most support "
                    "them), or copy the folder to disk"
                )
            content = response.read(decode_content=False)
            response.release_conn()
            return content
        except BaseException:
            response.close()  # with what has not been read of it
            raise
    except HTTPError as error:
        raise OSError(f"{location}: the connection broke ({error.args[-1]})") from error


@cache
def _connections(process: int, proxy: str | None) -> urllib3.PoolManager:
    """The open connections of a process; a forked one must not use its parent's."""
    pool: Callable[..., urllib3.PoolManager] = partial(urllib3.ProxyManager, proxy) if proxy else urllib3.PoolManager
    # Redirections are followed here; read_bytes makes further attempts.
    retries = urllib3.Retry(total=None, connect=False, read=False, other=0, redirect=10)
    return pool(maxsize=AT_A_TIME, block=True, timeout=60, retries=retries)


def _proxy(location: str) -> str | None:
    """The proxy that the environment names for a URL (http_proxy, https_proxy, no_proxy)."""
    url = urlsplit(location)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


class _StatusError(OSError):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _NoRanges(OSError):
    pass


def _is_final(error: Exception) -> bool:
    if isinstance(error, _StatusError):
        return error.status < 500 and error.status != 429
    return isinstance(error, FileNotFoundError | PermissionError | _NoRanges)
