"""Contextual biasing: words and phrases whose tokens get a bonus, by an Aho-Corasick automaton (CACM 18(6), 1975)."""

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from summarymix.data.text_files import read_lines
from summarymix.data.tokens import Tokenizer
from summarymix.data.transcripts import normalize_text


class ContextGraph:
    """A :class:`~summarymix.lm.scorers.TokenScorer` that adds a bonus to each token that continues a phrase, and takes
    the bonus back if the phrase is not completed.

    The rules are sherpa-onnx's, and icefall's with ``strict_mode=False``. The state is the longest prefix of a phrase
    that the last tokens match; its bonus is the sum of its tokens' scores. A token in a prefix of several phrases has
    the highest of their scores. When a phrase is complete its bonus stays, and matching starts again; if several
    phrases end there, the longest counts. So if one phrase is a prefix of another one, only the shorter one is found.

    Args:
        phrases: the tokens of each phrase, and the score of each of its tokens.
    """

    start = 0

    def __init__(self, phrases: Iterable[tuple[list[int], float]]) -> None:
        # Lists by node of the trie; node 0 is the root.
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
        self._added = [0.0] * size  # bonus of the prefix
        self._fail = [0] * size  # the longest other prefix of a phrase that the prefix ends with
        self._complete: list[float | None] = [None] * size  # bonus of the longest phrase that the prefix ends with
        queue = deque([0])  # breadth first: shorter prefixes come before longer ones
        while queue:
            node = queue.popleft()
            for token, child in self._next[node].items():
                self._added[child] = self._added[node] + token_scores[child]
                self._fail[child] = self._follow(self._fail[node], token) if node else 0
                self._complete[child] = self._added[child] if child in ends else self._complete[self._fail[child]]
                queue.append(child)

    def step(self, state: int, token: int) -> tuple[float, int]:
        """Return the score of ``token`` in ``state``, and the next state."""
        node = self._follow(state, token)
        complete = self._complete[node]
        if complete is not None:
            return complete - self._added[state], 0
        return self._added[node] - self._added[state], node

    def final(self, state: int) -> float:
        """Return the negative bonus of an incomplete phrase."""
        return -self._added[state]

    def _follow(self, node: int, token: int) -> int:
        """Return the longest prefix of a phrase that the tokens of ``node``, followed by ``token``, end with."""
        while node and token not in self._next[node]:
            node = self._fail[node]
        return self._next[node].get(token, 0)


def read_hotwords(path: Path, tokenizer: Tokenizer, score: float) -> list[tuple[list[int], float]]:
    """Read phrases for a :class:`ContextGraph` from a file in sherpa-onnx's format: one per line, optionally with its
    own score per token in place of ``score``: ``HELLO WORLD :2.5``. Phrases are normalised as transcripts are.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file has no phrases, or the model's tokens cannot spell a line; the message names the first
            lines.
    """
    phrases, unwritable = [], []
    for number, line in read_lines(path):
        text, _, own = normalize_text(line).rpartition(" :")
        if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", own, re.IGNORECASE):
            text, own = line, ""
        text = tokenizer.normalize(text)
        if not text:
            continue
        if unknown := tokenizer.unknown_characters(text):
            hint = " (a score is a number, as in HELLO :2.5)" if ":" in unknown else ""
            unwritable.append(f"line {number}: the model has no token for {' '.join(unknown)}{hint}")
        phrases.append((tokenizer.encode(text), float(own) if own else score))
    if unwritable:
        more = f"; and {len(unwritable) - 5} more of {len(phrases)} lines" if len(unwritable) > 5 else ""
        raise ValueError(
            f"{path}, {'; '.join(unwritable[:5])}{more}: write phrases like the training transcripts, including upper "
            "and lower case"
        )
    if not phrases:
        raise ValueError(f"{path} has no phrases: write one per line")
    return phrases
