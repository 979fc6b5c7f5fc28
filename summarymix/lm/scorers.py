"""What beam searches add to the scores of tokens besides the model's: hot words, language models."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


class TokenScorer(Protocol):
    """An automaton that reads tokens, and has something to add for each. Equal tokens always get equal sums."""

    @property
    def start(self) -> Any:
        """The state at the start of an utterance."""

    def step(self, state: Any, token: int) -> tuple[float, Any]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""

    def final(self, state: Any) -> float:
        """What ending in ``state`` adds."""


@runtime_checkable
class BatchedScorer(TokenScorer, Protocol):
    """One that had better work on many states at once: a network. Equal tokens get sums equal up to rounding."""

    def prepare(self, states: Sequence[Any]) -> None:
        """Do what reading tokens in ``states`` takes. Searches call this behind a frame, with the states of all
        hypotheses that are left in all streams; without it :meth:`step` does the same, state by state.
        """


class Scorers:
    """The sum of several, or of none."""

    def __init__(self, scorers: Sequence[TokenScorer]) -> None:
        self.scorers = scorers
        self._batched = [(i, scorer) for i, scorer in enumerate(scorers) if isinstance(scorer, BatchedScorer)]
        self.start = tuple(scorer.start for scorer in scorers)

    def prepare(self, states: Sequence[tuple[Any, ...]]) -> None:
        """See :meth:`BatchedScorer.prepare`."""
        for i, scorer in self._batched:
            scorer.prepare([state[i] for state in states])

    def step(self, state: tuple[Any, ...], token: int) -> tuple[float, tuple[Any, ...]]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""
        steps = [scorer.step(own, token) for scorer, own in zip(self.scorers, state, strict=True)]
        return sum(added for added, _ in steps), tuple(following for _, following in steps)

    def final(self, state: tuple[Any, ...]) -> float:
        """What ending in ``state`` adds."""
        return sum(scorer.final(own) for scorer, own in zip(self.scorers, state, strict=True))
