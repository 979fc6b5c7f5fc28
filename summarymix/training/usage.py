"""Time and memory of a run."""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")  # Linux only


class Stopwatch:
    """Measures wall-clock time and CPU time of this process's threads, in seconds."""

    def __init__(self) -> None:
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        """Return wall-clock and CPU seconds since the last lap or the start, and start the next lap."""
        last, self._last = self._last, self._now()
        return self._last[0] - last[0], self._last[1] - last[1]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time in the ``with`` block."""
        begin = self._now()
        try:
            yield
        finally:
            now = self._now()
            self._last = self._last[0] + now[0] - begin[0], self._last[1] + now[1] - begin[1]

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, or resident memory of this process for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():
        # Not ru_maxrss, which on Linux starts at the resident memory of the parent process.
        return process_memory("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def process_memory(name: str) -> int:
    """A field of :data:`STATUS` in bytes, such as VmRSS, the resident memory."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1])  # type: ignore[index]
