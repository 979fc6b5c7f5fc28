"""Number of real-time streams that a machine holds."""

import time
from collections.abc import Callable, Sequence

import numpy as np

HOPELESS = 5  # a chunk later than this number of periods ends a trial


def pace(
    num_streams: int,
    num_chunks: int,
    period: float,
    decode: Callable[[list[int]], object],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> list[float]:
    """Run streams that send their chunks in real time, and measure the latency of each result.

    Chunk k of stream i arrives after (k + i / num_streams)·period seconds: streams begin evenly over a period. All
    chunks that have arrived are decoded as one batch, one chunk per stream; streams do not wait for each other.

    Args:
        num_streams: N.
        num_chunks: chunks per stream.
        period: duration of a chunk in seconds.
        decode: decodes the next chunk of each stream in a list of stream numbers.
        clock: current time in seconds.
        sleep: waits for a number of seconds.

    Returns:
        Latencies in seconds, from the arrival of a chunk to its result, in the order of decoding. The trial ends early
        with the first latency above HOPELESS periods.
    """
    chunks = np.zeros(num_streams, dtype=int)  # next chunk of each stream
    offsets = period * np.arange(num_streams) / num_streams
    latencies: list[float] = []
    start = clock()
    while (chunks < num_chunks).any():
        arrivals = np.where(chunks < num_chunks, offsets + period * chunks, np.inf)  # (N,)
        now = clock() - start
        ready = np.flatnonzero(arrivals <= now)
        if not ready.size:
            sleep(arrivals.min() - now)
            continue
        decode(ready.tolist())
        waited = clock() - start - arrivals[ready]
        latencies += waited.tolist()
        chunks[ready] += 1
        if waited.max() > HOPELESS * period:
            break
    return latencies


def in_time(latencies: Sequence[float], period: float) -> bool:
    """True if 99 % of the latencies are below a period, and all are at most HOPELESS periods."""
    return bool(np.percentile(latencies, 99) < period and max(latencies) <= HOPELESS * period)


def most(holds: Callable[[int], bool], limit: int, resolution: float = 0.0) -> int:
    """Find the largest number up to ``limit`` for which ``holds``, by doubling and then bisection; 0 if there is none.

    ``resolution`` is the relative accuracy; 0 finds the exact number.
    """
    low, high = 0, 1
    while low < limit and holds(high):
        low, high = high, min(2 * high, limit)
    while high - low > max(1, resolution * low):
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
