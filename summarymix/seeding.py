"""Random numbers as functions of the seed and the run's progress, so that no generator state needs saving."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def number_of(*key: int | str) -> int:
    """A 64-bit number for a key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def reseed(*key: int | str) -> random.Random:
    """Seed Python, NumPy and PyTorch (all devices) by ``key``, and return a separate generator.

    It is called before each batch with the run's seed and the batch number. So a resumed run draws the same numbers as
    an uninterrupted one, and two processes draw the same numbers as one process that takes both batches.
    """
    number = number_of(*key)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - lhotse's SpecAugment uses the global generator
    torch.manual_seed(number % 2**63)
    return random.Random(number + 1)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Within this context the generators of Python, NumPy and PyTorch's CPU are seeded by ``key``."""
    former = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    number = number_of(*key)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(number % 2**63)
    try:
        yield
    finally:
        random.setstate(former[0])
        np.random.set_state(former[1])  # noqa: NPY002
        torch.set_rng_state(former[2])
