"""Random numbers as functions of a key."""

import random

import numpy as np
import torch

from summarymix.seeding import reseed


def draw(*key: int | str) -> tuple[float, ...]:
    own = reseed(*key).random()
    return own, random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002


def test_same_key_same_numbers_from_every_generator() -> None:
    assert draw(1, 5) == draw(1, 5)
    assert not set(draw(1, 5)) & (set(draw(1, 6)) | set(draw(2, 5)) | set(draw(15)))
