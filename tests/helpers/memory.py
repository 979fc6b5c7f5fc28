"""Peaks of the memory that Python allocates."""

import tracemalloc
from collections.abc import Callable


def traced_peaks(
    generate: Callable[[int], object], work: Callable[[int], object], small: int, large: int
) -> tuple[int, int]:
    """Peaks in bytes of ``work(small)`` and ``work(large)``, each on what ``generate`` has made, which does not count.

    Of two large calls the one with the lower peak counts: caches are filled, and tables of the interpreter grow, in one
    of them.
    """
    peaks = []
    for count in (large, small, large):
        generate(count)
        tracemalloc.start()
        work(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return peaks[1], min(peaks[0], peaks[2])
