"""One trainer for each folder of a run."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import IO

LOCK_NAME = ".lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux; the same in all containers of a machine
# The holder touches the file this often. Another machine that sees no touch for so long takes the lock over; file
# servers may show a touch up to a minute late.
BEAT_SECONDS = 20.0
WATCH_SECONDS = 150.0


@contextmanager
def lock_folder(exp_dir: Path) -> Iterator[None]:
    """Hold ``exp_dir/.lock`` while this process trains there.

    The kernel locks the file and unlocks it when the process ends, however it ends: what a killed run has left is taken
    over. The kernel of another machine may not be asked, so the file names the machine too, and its holder touches it:
    a lock of another machine that is not touched is left from a run that was killed. A holder that was suspended for
    so long that another took over ends when it wakes up.

    Raises:
        ValueError: another process trains there.
    """
    exp_dir.mkdir(parents=True, exist_ok=True)
    path = exp_dir / LOCK_NAME
    file = _open_locked(path)
    try:
        file.seek(0)
        file.truncate()
        json.dump(_this_process(), file)
        file.flush()
        with _beating(path, file):
            yield
    finally:
        if not _is_lost(path, file):
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
        holder = _holder(file)
        me = _this_process()
        is_here = not holder or holder["host"] == me["host"] or (me["boot"] and holder["boot"] == me["boot"])
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        if is_free and (is_here or _is_left(path, file, who)):
            # The former holder may have removed the file since it was opened.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()
            continue
        file.close()
        raise ValueError(f"{path.parent} is in use by {who}: wait for it, stop it, or give another --exp_dir")


def _is_left(path: Path, file: IO[str], who: str) -> bool:
    """Watch the lock of another machine; return True if nobody touches it."""
    print(f"{path} is from {who}: waiting {WATCH_SECONDS:g} s to see if that goes on", file=sys.stderr)
    touched, end = os.fstat(file.fileno()).st_mtime_ns, monotonic() + WATCH_SECONDS
    while monotonic() < end:
        sleep(min(1.0, WATCH_SECONDS / 10))
        # By name: a file server answers with the present time of a file that is opened, or asked for by name.
        try:
            if path.stat().st_mtime_ns != touched:
                return False
        except FileNotFoundError:
            return True  # its holder has ended
    print(f"{path} has not been touched, so {who} was killed: taking it over", file=sys.stderr)
    return True


@contextmanager
def _beating(path: Path, file: IO[str]) -> Iterator[None]:
    """Touch the lock from time to time; end this process if another has taken it over."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                if _is_lost(path, file):
                    print(
                        f"{path.parent} was taken over by another process: this one ends", file=sys.stderr, flush=True
                    )
                    os._exit(1)  # without saving: the folder is the other's
                os.utime(file.fileno())
            except OSError:
                continue  # the file server is away for a while

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_lost(path: Path, file: IO[str]) -> bool:
    """True if another process has taken the lock over."""
    if path.exists() and not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return True
    return _holder(file) != _this_process()


def _this_process() -> dict[str, str]:
    boot = BOOT_ID.read_text().strip() if BOOT_ID.is_file() else ""
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "boot": boot}


def _holder(file: IO[str]) -> dict[str, str]:
    """The process in a lock file; empty if its writing was interrupted."""
    # Not with open(), because closing a file gives up the process's locks of it.
    try:
        return json.loads(os.pread(file.fileno(), 4096, 0))
    except ValueError:
        return {}
