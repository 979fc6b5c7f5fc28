"""Random problems for the tests of the loss."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Problem:
    lm: Tensor  # (B, S+1, C)
    am: Tensor  # (B, T, C)
    symbols: Tensor  # (B, S)
    boundary: Tensor  # (B, 4)
    weight: Tensor  # (C, C) of the joiner tanh(am + lm) @ weight

    def joint(self, am: Tensor, lm: Tensor) -> Tensor:
        return torch.tanh(am + lm) @ self.weight

    def logits(self) -> Tensor:
        return self.joint(self.am[:, :, None], self.lm[:, None])

    def alone(self, b: int) -> "Problem":
        """Utterance b without the other utterances and without padding."""
        _, _, S, T = self.boundary[b].tolist()
        return Problem(
            self.lm[b : b + 1, : S + 1].detach().requires_grad_(),
            self.am[b : b + 1, :T].detach().requires_grad_(),
            self.symbols[b : b + 1, :S],
            self.boundary[b : b + 1],
            self.weight,
        )


def random_problem(
    lengths: list[tuple[int, int]], C: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Problem:
    """A ragged batch with (symbols, frames) per utterance."""
    generator = torch.Generator().manual_seed(seed)
    B, S, T = len(lengths), max(s for s, _ in lengths), max(t for _, t in lengths)
    return Problem(
        torch.randn(B, S + 1, C, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(),
        torch.randn(B, T, C, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(),
        torch.randint(1, C, (B, S), generator=generator),
        torch.tensor([[0, 0, s, t] for s, t in lengths]),
        (2 * torch.randn(C, C, generator=generator, dtype=torch.float64)).to(dtype),
    )


def paths(node: tuple[int, int], end: tuple[int, int], regular: bool) -> Iterator[list[tuple[str, int, int]]]:
    """All paths from node (s, t) to end as lists of arcs ("x" or "y", s, t)."""
    s, t = node
    if node == end:
        yield []
        return
    if t < end[1]:
        for rest in paths((s, t + 1), end, regular):
            yield [("y", s, t), *rest]
    if s < end[0] and t < end[1]:
        for rest in paths((s + 1, t if regular else t + 1), end, regular):
            yield [("x", s, t), *rest]
