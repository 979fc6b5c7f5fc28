"""Scorers of tokens that beam searches use in addition to the model: hotwords, language models."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


class TokenScorer(Protocol):
    """An automaton that reads tokens and scores each. Equal token sequences have equal total scores."""

    @property
    def start(self) -> Any:
        """The state at the start of an utterance."""

    def step(self, state: Any, token: int) -> tuple[float, Any]:
        """Return the score of ``token`` in ``state``, and the next state."""

    def final(self, state: Any) -> float:
        """Return the score of the end of an utterance in ``state``."""


@runtime_checkable
class BatchedScorer(TokenScorer, Protocol):
    """A scorer that is faster on many states at once, such as a network. Total scores are equal up to rounding."""

    def prepare(self, states: Sequence[Any]) -> None:
        """Prepare the scores of the next tokens in ``states``. Searches call this after a frame, with the states of all
        remaining hypotheses of all streams; without it :meth:`step` does the same, state by state.
        """


class Scorers:
    """Sum of any number of scorers."""

    def __init__(self, scorers: Sequence[TokenScorer]) -> None:
        self.scorers = scorers
        self._batched = [(i, scorer) for i, scorer in enumerate(scorers) if isinstance(scorer, BatchedScorer)]
        self.start = tuple(scorer.start for scorer in scorers)

    def prepare(self, states: Sequence[tuple[Any, ...]]) -> None:
        """See :meth:`BatchedScorer.prepare`."""
        for i, scorer in self._batched:
            scorer.prepare([state[i] for state in states])

    def step(self, state: tuple[Any, ...], token: int) -> tuple[float, tuple[Any, ...]]:
        """Return the score of ``token`` in ``state``, and the next state."""
        steps = [scorer.step(own, token) for scorer, own in zip(self.scorers, state, strict=True)]
        return sum(added for added, _ in steps), tuple(following for _, following in steps)

    def final(self, state: tuple[Any, ...]) -> float:
        """Return the score of the end of an utterance in ``state``."""
        return sum(scorer.final(own) for scorer, own in zip(self.scorers, state, strict=True))
