"""Encoder output, scorers and exhaustive references for tests of searches."""

import math
from collections import defaultdict
from functools import cache
from itertools import groupby, product

import torch
from torch import Tensor

from summarymix.decoding.search import Scaling
from summarymix.lm.rnn import RnnLM, RnnLMConfig
from summarymix.model import BLANK, Transducer

UNK = 1


def encoder_frames(model: Transducer, num_streams: int = 6, num_frames: int = 50) -> tuple[Tensor, Tensor]:
    """Random encoder output (N, T, D) and ragged lengths (N,), one of them 0."""
    generator = torch.Generator().manual_seed(5)
    frames = torch.randn(num_streams, num_frames, model.encoder.dim, generator=generator)
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
    """Score of a whole sequence by Bigrams."""
    return sum(math.sin(7 * a + b) for a, b in zip((0, *tokens), tokens, strict=False)) + math.sin((0, *tokens)[-1])


def tiny_lm(vocab_size: int = 11) -> RnnLM:
    """Make an RNN language model with large random weights."""
    torch.manual_seed(6)
    lm = RnnLM(RnnLMConfig(dim=8, num_layers=2, vocab_size=vocab_size)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(2)
    return lm


@torch.inference_mode()
def alignments(model: Transducer, frames: Tensor, scaling: Scaling, limit: int = 100) -> dict[tuple[int, ...], float]:
    """Score of every alignment of frames (T, D) to blank or a token below ``limit``, but not to ``<unk>``."""
    encoded = model.joiner.encoder_proj(frames)
    scores: dict[tuple[int, ...], float] = {(): 0.0}
    for frame in encoded:
        histories = [[BLANK, *filter(None, alignment)] for alignment in scores]
        contexts = torch.stack([model.predictor(torch.tensor([history]))[0, -1] for history in histories])
        logits = scaling(model.joiner(frame, model.joiner.predictor_proj(contexts)))
        scores = {
            (*alignment, token): score + value
            for (alignment, score), values in zip(scores.items(), logits.log_softmax(1).tolist(), strict=True)
            for token, value in enumerate(values)
            if token != UNK and token < limit
        }
    return scores


def tokens_of(alignment: tuple[int, ...]) -> tuple[int, ...]:
    """An alignment without its blanks."""
    return tuple(filter(None, alignment))


@torch.inference_mode()
def exhaustive_transducer(model: Transducer, frames: Tensor, scaling: Scaling) -> dict[tuple[int, ...], float]:
    """Probability of each token sequence: the sum over all alignments of frames (T, D) to a token or blank."""

    @cache
    def distributions(history: tuple[int, ...]) -> list[list[float]]:
        context = model.predictor(torch.tensor([[BLANK, *history]]))[0, -1]
        logits = model.joiner(model.joiner.encoder_proj(frames), model.joiner.predictor_proj(context)).clone()
        logits[:, BLANK] -= scaling.blank_penalty
        return (logits / scaling.temperature).softmax(-1).tolist()  # T × V

    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for alignment in product(range(model.config.vocab_size), repeat=frames.size(0)):
        history: tuple[int, ...] = ()
        probability = 1.0
        for t, token in enumerate(alignment):
            probability *= distributions(history)[t][token]
            if token not in (BLANK, UNK):
                history = (*history, token)
        sums[history] += probability
    return sums


def collapse(alignment: tuple[int, ...]) -> tuple[int, ...]:
    """Collapse an alignment to tokens; <unk> counts as blank."""
    return tuple(token for token, _ in groupby(0 if a == UNK else a for a in alignment) if token != BLANK)


@torch.inference_mode()
def exhaustive_ctc(model: Transducer, frames: Tensor, scaling: Scaling) -> dict[tuple[int, ...], float]:
    """Log-probability of each token sequence, summed over all alignments of frames (T, D)."""
    logits = model.ctc_head(frames).double()
    logits[:, BLANK] -= scaling.blank_penalty
    distributions = (logits / scaling.temperature).softmax(-1).tolist()  # T × V
    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for alignment in product(range(model.config.vocab_size), repeat=len(distributions)):
        sums[collapse(alignment)] += math.prod(row[a] for row, a in zip(distributions, alignment, strict=True))
    return {tokens: math.log(probability) for tokens, probability in sums.items()}
