"""Inference in blocks of few frames, so that small inputs make several."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st

from summarymix.blocks import pieces as blocks

block_sizes = st.one_of(st.none(), st.integers(1, 10))


@contextmanager
def blocks_of(frames: int | None) -> Iterator[None]:
    """Inference in blocks of so many frames; None: with gradients, and so at once."""
    if frames is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(blocks, "BLOCK_FRAMES", frames)
        patch.setattr(blocks, "LEAST_FRAMES", 1)
        yield
