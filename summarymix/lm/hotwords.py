"""Contextual biasing: words and phrases whose tokens get a bonus, by an Aho-Corasick automaton (CACM 18(6), 1975)."""

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from summarymix.data.tokens import Tokenizer


class ContextGraph:
    """Adds to the score of each token that goes on with one of some phrases, and takes back what it has added when the
    phrase is not completed. It is a :class:`~summarymix.lm.scorers.TokenScorer`.

    Rules are those that icefall and sherpa-onnx search with. The state is the longest phrase's beginning that the last
    tokens are, and what has been added for it is the sum of its tokens' scores. Where phrases begin alike, a shared
    token has the highest of their scores. When a phrase is complete its sum stays, and matching begins anew; of several
    that end there the longest counts. So of a phrase that begins with another one, only that other one is found.

    Args:
        phrases: the tokens of each, and the score of each of its tokens.
    """

    start = 0

    def __init__(self, phrases: Iterable[tuple[list[int], float]]) -> None:
        # By node of the trie, the root being 0.
        self._next: list[dict[int, int]] = [{}]
        token_scores, ends = [0.0], set()
        for tokens, score in phrases:
            node = 0
            for token in tokens:
                node = self._next[node].setdefault(token, len(self._next))
                if node == len(self._next):
                    self._next.append({})
                    token_scores.append(score)
                token_scores[node] = max(token_scores[node], score)
            ends.add(node)
        size = len(self._next)
        self._added = [0.0] * size  # for all tokens up to here
        self._fail = [0] * size  # the longest other beginning of a phrase that the tokens up to here end with
        self._complete: list[float | None] = [None] * size  # the worth of the longest phrase that they end with
        queue = deque([0])  # a node comes behind all shorter ones
        while queue:
            node = queue.popleft()
            for token, child in self._next[node].items():
                self._added[child] = self._added[node] + token_scores[child]
                self._fail[child] = self._follow(self._fail[node], token) if node else 0
                self._complete[child] = self._added[child] if child in ends else self._complete[self._fail[child]]
                queue.append(child)

    def step(self, state: int, token: int) -> tuple[float, int]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""
        node = self._follow(state, token)
        complete = self._complete[node]
        if complete is not None:
            return complete - self._added[state], 0
        return self._added[node] - self._added[state], node

    def final(self, state: int) -> float:
        """Takes back what was added for a phrase that is not complete."""
        return -self._added[state]

    def _follow(self, node: int, token: int) -> int:
        """The longest beginning of a phrase that ends with ``token``, behind what ``node`` is."""
        while node and token not in self._next[node]:
            node = self._fail[node]
        return self._next[node].get(token, 0)


def read_hotwords(path: Path, tokenizer: Tokenizer, score: float) -> list[tuple[list[int], float]]:
    """Read phrases for a :class:`ContextGraph` from a file in sherpa-onnx's format: one on each line, and behind it, if
    its tokens shall not have the score ``score``, another: ``HELLO WORLD :2.5``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no phrases, or a line cannot be written with the model's tokens; names the line.
    """
    phrases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text, _, own = line.strip().rpartition(" :")
        if not re.fullmatch(r"[-+]?\d*\.?\d+", own):
            text, own = line.strip(), ""
        if not text:
            continue
        if unknown := tokenizer.unknown_characters(text):
            raise ValueError(
                f"{path}, line {number}: the model has no token for {' '.join(unknown)}: write phrases as the "
                "transcripts it was trained with, upper and lower case too"
            )
        phrases.append((tokenizer.encode(text), float(own) if own else score))
    if not phrases:
        raise ValueError(f"{path} has no phrases: write one on each line")
    return phrases
