"""How many streams that come in real time a machine holds."""

import time
from collections.abc import Callable, Sequence

import numpy as np

HOPELESS = 5  # periods by which a chunk may be late before a trial is given up


def pace(
    num_streams: int,
    num_chunks: int,
    period: float,
    decode: Callable[[list[int]], object],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> list[float]:
    """Let streams send their chunks in real time, and measure how long each waits for its result.

    Chunk k of stream i has arrived after (k + i / num_streams)·period seconds: streams begin one after the other,
    evenly over a period. Whatever has arrived is decoded together, one chunk of a stream at a time; streams do not
    wait for each other.

    Args:
        num_streams: N.
        num_chunks: of each stream.
        period: seconds from a stream's chunk to its next: the duration of a chunk.
        decode: decodes the next chunk of each of the streams whose numbers it is given.
        clock: seconds.
        sleep: waits for so many of them.

    Returns:
        Latencies in seconds, from the arrival of a chunk to its result, in the order of decoding. The trial ends early,
        with the first that is hopeless.
    """
    chunks = np.zeros(num_streams, dtype=int)  # the next one of each stream
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
    """Whether 99 % of the chunks had their results before the next one arrived, and none was hopeless."""
    return bool(np.percentile(latencies, 99) < period and max(latencies) <= HOPELESS * period)


def most(holds: Callable[[int], bool], limit: int, resolution: float = 0.0) -> int:
    """The largest number up to ``limit`` for which ``holds``, by doubling and then bisection; 0 if there is none.

    ``resolution`` is the share of the number to which it need be known; 0 finds it to one.
    """
    low, high = 0, 1
    while high <= limit and holds(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)  # for which it does not hold, or which is not asked for
    while high - low > max(1, resolution * low):
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
