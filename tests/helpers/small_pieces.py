"""Inference in pieces of few frames, so that small inputs have several pieces."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st

from summarymix.blocks import pieces

piece_sizes = st.one_of(st.none(), st.integers(1, 10))


@contextmanager
def pieces_of(frames: int | None) -> Iterator[None]:
    """Run inference in pieces of ``frames`` frames; None: with gradients, and so in one piece."""
    if frames is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(pieces, "PIECE_FRAMES", frames)
        patch.setattr(pieces, "LEAST_FRAMES", 1)
        yield
