"""Encoder output and scorers for tests of searches."""

import math

import torch
from torch import Tensor

from summarymix.lm import RnnLM, RnnLMConfig
from summarymix.model import Transducer


def encoder_frames(model: Transducer, num_streams: int = 6, num_frames: int = 50) -> tuple[Tensor, Tensor]:
    """Random encoder output (N, T, D) and ragged lengths (N,), one of them 0."""
    generator = torch.Generator().manual_seed(5)
    frames = torch.randn(num_streams, num_frames, model.config.dim, generator=generator)
    lengths = torch.randint(1, num_frames, (num_streams,), generator=generator)
    lengths[0], lengths[1] = num_frames, 0
    return frames, lengths


class Bigrams:
    """A scorer for tests: its state is the last token."""

    start = 0

    def step(self, state: int, token: int) -> tuple[float, int]:
        return math.sin(7 * state + token), token

    def final(self, state: int) -> float:
        return math.sin(state)


def total(tokens: tuple[int, ...]) -> float:
    """What Bigrams add to a whole sequence."""
    return sum(math.sin(7 * a + b) for a, b in zip((0, *tokens), tokens, strict=False)) + math.sin((0, *tokens)[-1])


def tiny_lm(vocab_size: int = 11) -> RnnLM:
    """An RNN language model with random weights and strong opinions."""
    torch.manual_seed(6)
    lm = RnnLM(RnnLMConfig(dim=8, num_layers=2, vocab_size=vocab_size)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(2)
    return lm
