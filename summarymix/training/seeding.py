"""Random numbers that need no saving: each is a function of the seed and of where the run stands."""

import hashlib
import random

import numpy as np
import torch


def reseed(*key: int | str) -> random.Random:
    """Seed Python, NumPy and PyTorch (all devices) by ``key``, and return a generator of its own for the caller.

    Called before each batch with the run's seed and the batch's number, this makes a resumed run draw what the
    uninterrupted one would have drawn, and two processes together what one would draw that takes both batches.
    """
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - lhotse's SpecAugment uses the global generator
    torch.manual_seed(number % 2**63)
    return random.Random(number + 1)
