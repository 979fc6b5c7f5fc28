"""One trainer for each folder of a run."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_NAME = ".lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux; the same in all containers of a machine


@contextmanager
def lock_folder(exp_dir: Path) -> Iterator[None]:
    """Hold ``exp_dir/.lock`` while this process trains there.

    The kernel locks the file and unlocks it when the process ends, however it ends: what a killed run has left is taken
    over. The kernel of another machine may not be asked, so the file names the machine too.

    Raises:
        ValueError: another process trains there, or has done so on another machine and was killed.
    """
    exp_dir.mkdir(parents=True, exist_ok=True)
    path = exp_dir / LOCK_NAME
    file = _open_locked(path)
    try:
        file.seek(0)
        file.truncate()
        json.dump(_this_process(), file)
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _open_locked(path: Path) -> IO[str]:
    """Open and lock a file, which need not exist; its content remains."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        is_free = True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # data workers do not inherit this kind of lock
        except OSError as error:
            # Where a file system has no locks, only other machines are recognised.
            is_free = error.errno not in (errno.EACCES, errno.EAGAIN)
        file.seek(0)
        holder = _parse(file.read())
        me = _this_process()
        if is_free and (not holder or holder["host"] == me["host"] or (me["boot"] and holder["boot"] == me["boot"])):
            # The former holder may have removed the file since it was opened.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()
            continue
        file.close()
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        if is_free:
            raise ValueError(
                f"{path.parent} is in use by {who}. If that has ended, remove {path}; else give another --exp_dir"
            )
        raise ValueError(f"{path.parent} is in use by {who}: wait for it, stop it, or give another --exp_dir")


def _this_process() -> dict[str, str]:
    boot = BOOT_ID.read_text().strip() if BOOT_ID.is_file() else ""
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "boot": boot}


def _parse(text: str) -> dict[str, str]:
    """The content of a lock file; empty if its writing was interrupted."""
    try:
        return json.loads(text)
    except ValueError:
        return {}
