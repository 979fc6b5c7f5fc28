"""What a run costs: time and memory."""

import re
import resource
import time
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")  # Linux has it


class Stopwatch:
    """Seconds since it was made or last read: of the clock, and of this process's threads on the CPU."""

    def __init__(self) -> None:
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        """The seconds of the clock and those on the CPU; the next lap begins."""
        last, self._last = self._last, self._now()
        return self._last[0] - last[0], self._last[1] - last[1]

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors have taken on a GPU, or that this process has had resident for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():
        # Not ru_maxrss, which on Linux begins with what the parent process had resident.
        return process_memory("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def process_memory(name: str) -> int:
    """Bytes: a figure of :data:`STATUS`, such as VmRSS, what is resident now."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1])  # type: ignore[index]
