"""N-gram language models of tokens, added to the scores of a beam search (shallow fusion)."""

import gzip
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# In place of a token's number, of what ARPA files have beside words.
BEGIN, END, OTHER = -1, -2, -3
MARKS = {"<s>": BEGIN, "</s>": END, "<unk>": OTHER, "<UNK>": OTHER}


class NgramLM:
    """A back-off language model of tokens, from a file in ARPA format. It is a
    :class:`~summarymix.decoding.beam.TokenScorer`; its state is the tokens that the next one depends on.

    A token that the model does not have is as likely as its ``<unk>``, or else as its least likely token. The end of
    an utterance adds nothing, as in icefall and sherpa-onnx: where a stream ends is not for the words to say.

    Args:
        path: the file, which may be compressed with gzip.
        tokens: all tokens, in the order of their numbers: the words of this language model.
        scale: of the natural logarithms of probabilities. Below 0 the model's are taken away: with that of one of low
            order, trained on the transcripts, in place of what the transducer has learnt of language, this is LODR
            (arXiv 2203.16776).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or has words that are no tokens; names the line.
    """

    def __init__(self, path: Path, tokens: Sequence[str], scale: float) -> None:
        numbers = MARKS | {token: i for i, token in enumerate(tokens) if token not in MARKS}
        self._scale = scale * math.log(10)
        self._scores: dict[tuple[int, ...], float] = {}  # of n-grams, decadic logarithms as in the file
        self._backoffs: dict[tuple[int, ...], float] = {}  # of their beginnings
        self._order = 1
        for line, order, (log_prob, *words) in _read_ngrams(path):
            try:
                backoff = words.pop() if len(words) == order + 1 else None
                ngram = tuple(numbers[word] for word in words)
                self._scores[ngram] = float(log_prob)
                if backoff is not None:
                    self._backoffs[ngram] = float(backoff)
                if len(ngram) != order:
                    raise ValueError(f"{len(ngram)} words")
            except KeyError as error:
                raise ValueError(
                    f"{path}, line {line}: {error} is none of the model's tokens: the language model must be one of "
                    "tokens, trained on transcripts that were written with them"
                ) from error
            except ValueError as error:
                raise ValueError(f"{path}, line {line} is no {order}-gram of an ARPA file") from error
            self._order = max(self._order, order)
        self.start = (BEGIN,)[: self._order - 1]
        known = [score for ngram, score in self._scores.items() if len(ngram) == 1 and ngram[0] >= 0]
        if not known:
            raise ValueError(f"{path} has no 1-grams of tokens: it is no ARPA file, or not whole")
        self._other = self._scores.get((OTHER,), min(known))

    def step(self, state: tuple[int, ...], token: int) -> tuple[float, tuple[int, ...]]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""
        added, context = 0.0, state
        while (score := self._scores.get((*context, token))) is None:
            if not context:
                score = self._other
                break
            added += self._backoffs.get(context, 0.0)
            context = context[1:]
        following = (*state, token)
        return self._scale * (added + score), following[max(len(following) - self._order + 1, 0) :]

    def final(self, state: tuple[int, ...]) -> float:
        """Nothing."""
        return 0.0


def _read_ngrams(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """The number of each line with an n-gram, its order, and its fields."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        order = 0
        for number, line in enumerate(file, 1):
            if section := re.fullmatch(r"\\(\d+)-grams:\s*", line):
                order = int(section.group(1))
            elif order and (fields := line.split()) and not line.startswith("\\end\\"):
                yield number, order, fields
