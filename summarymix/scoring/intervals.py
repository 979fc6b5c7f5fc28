"""Bootstrap intervals of error rates over utterances (Bisani and Ney 2004)."""

from collections.abc import Sequence

import numpy as np

ROUNDS = 1000


def rate_interval(errors: Sequence[float], units: Sequence[int]) -> tuple[float, float] | None:
    """The 95 % interval of 100 · errors / units, if other utterances of the same kind had been recorded.

    Utterances are drawn with replacement, with a fixed seed ("Bootstrap estimates for confidence intervals in ASR
    performance evaluation"). With differences of errors in ``errors``, it is the
    interval of the difference of two error rates on the same utterances.

    Args:
        errors: number of errors in each utterance, or a difference of two numbers.
        units: number of units in each reference.

    Returns:
        The lower and the upper bound in per cent; None if there is a single utterance or the references have no units.
        Without any error, both bounds are 0, although further utterances would have some.
    """
    counts = np.array([errors, units], np.float64)  # (2, N)
    if counts.shape[1] < 2 or not counts[1].sum():
        return None
    rng = np.random.default_rng(0)
    number = counts.shape[1]
    rates = []
    for _ in range(ROUNDS):
        times_drawn = np.bincount(rng.integers(0, number, number), minlength=number)  # (N,)
        drawn_errors, drawn_units = counts @ times_drawn
        if drawn_units:
            rates.append(100 * drawn_errors / drawn_units)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
