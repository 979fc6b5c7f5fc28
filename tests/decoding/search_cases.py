"""Encoder output for tests of searches."""

import torch
from torch import Tensor

from summarymix.model import Transducer


def encoder_frames(model: Transducer, num_streams: int = 6, num_frames: int = 50) -> tuple[Tensor, Tensor]:
    """Random encoder output (N, T, D) and ragged lengths (N,), one of them 0."""
    generator = torch.Generator().manual_seed(5)
    frames = torch.randn(num_streams, num_frames, model.config.dim, generator=generator)
    lengths = torch.randint(1, num_frames, (num_streams,), generator=generator)
    lengths[0], lengths[1] = num_frames, 0
    return frames, lengths
