"""Random numbers as functions of the seed and the run's progress, so that no generator state needs saving."""

import hashlib
import random

import numpy as np
import torch


def reseed(*key: int | str) -> random.Random:
    """Seed Python, NumPy and PyTorch (all devices) by ``key``, and return a separate generator.

    It is called before each batch with the run's seed and the batch number. So a resumed run draws the same numbers as
    an uninterrupted one, and two processes draw the same numbers as one process that takes both batches.
    """
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - lhotse's SpecAugment uses the global generator
    torch.manual_seed(number % 2**63)
    return random.Random(number + 1)
