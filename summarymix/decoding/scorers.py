"""What beam searches add to the scores of tokens besides the model's: hot words, language models."""

from collections.abc import Sequence
from typing import Any, Protocol


class TokenScorer(Protocol):
    """An automaton that reads tokens, and has something to add for each. Equal tokens always get equal sums."""

    @property
    def start(self) -> Any:
        """The state at the start of an utterance."""

    def step(self, state: Any, token: int) -> tuple[float, Any]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""

    def final(self, state: Any) -> float:
        """What ending in ``state`` adds."""


class Scorers:
    """The sum of several, or of none."""

    def __init__(self, scorers: Sequence[TokenScorer]) -> None:
        self.scorers = scorers
        self.start = tuple(scorer.start for scorer in scorers)

    def step(self, state: tuple[Any, ...], token: int) -> tuple[float, tuple[Any, ...]]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""
        steps = [scorer.step(own, token) for scorer, own in zip(self.scorers, state, strict=True)]
        return sum(added for added, _ in steps), tuple(following for _, following in steps)

    def final(self, state: tuple[Any, ...]) -> float:
        """What ending in ``state`` adds."""
        return sum(scorer.final(own) for scorer, own in zip(self.scorers, state, strict=True))
