"""N-gram language models of tokens: their estimation, and their use in a beam search (shallow fusion)."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from summarymix.files import atomic_write
from summarymix.lm.text import open_text

Word = TypeVar("Word", str, int)

# In place of a token's number, of what ARPA files have beside words.
BEGIN, END, OTHER = -1, -2, -3
MARKS = {"<s>": BEGIN, "</s>": END, "<unk>": OTHER, "<UNK>": OTHER}


class NgramLM:
    """A back-off language model of tokens, from a file in ARPA format. It is a
    :class:`~summarymix.lm.scorers.TokenScorer`; its state is the tokens that the next one depends on.

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
        self._scores, self._backoffs = read_arpa(path, numbers.__getitem__)
        self._order = max(map(len, self._scores))
        self.start = (BEGIN,)[: self._order - 1]
        known = [score for ngram, score in self._scores.items() if len(ngram) == 1 and ngram[0] >= 0]
        if not known:
            raise ValueError(f"{path} has no 1-grams of tokens")
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


def read_arpa(
    path: Path, name: Callable[[str], Word]
) -> tuple[dict[tuple[Word, ...], float], dict[tuple[Word, ...], float]]:
    """The decadic logarithms of the probability of each n-gram of an ARPA file, and of the back-off weight behind it.

    Args:
        path: the file, which may be compressed with gzip.
        name: what a word is to be called; a ``KeyError`` says that it is none of the model's tokens.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or has other words; names the line.
    """
    scores: dict[tuple[Word, ...], float] = {}
    backoffs: dict[tuple[Word, ...], float] = {}
    for line, order, (log_prob, *words) in _read_ngrams(path):
        try:
            backoff = float(words.pop()) if len(words) == order + 1 else None
            ngram = tuple(map(name, words))
            scores[ngram] = float(log_prob)
            if len(ngram) != order:
                raise ValueError(f"{len(ngram)} words")
        except KeyError as error:
            raise ValueError(
                f"{path}, line {line}: {error} is none of the model's tokens: the language model must be one of "
                "tokens, trained on transcripts that were written with them"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}, line {line} is no {order}-gram of an ARPA file") from error
        if backoff is not None:
            backoffs[ngram] = backoff
    if not scores:
        raise ValueError(f"{path} has no n-grams: it is no ARPA file, or not whole")
    return scores, backoffs


def _read_ngrams(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """The number of each line with an n-gram, its order, and its fields."""
    with open_text(path) as file:
        order = 0
        for number, line in enumerate(file, 1):
            if section := re.fullmatch(r"\\(\d+)-grams:\s*", line):
                order = int(section.group(1))
            elif order and (fields := line.split()) and not line.startswith("\\end\\"):
                yield number, order, fields


def write_ngrams(path: Path, sentences: Iterable[Sequence[str]], tokens: Iterable[str], order: int) -> None:
    """Estimate a language model by interpolated Kneser-Ney smoothing (S. F. Chen, J. Goodman, Computer Speech and
    Language 13, 1999), with one discount for each order, and write it in ARPA format. All n-grams are held in memory.

    Args:
        path: the file to write.
        sentences: transcripts as tokens, or words.
        tokens: those that are to have a probability even if they are not seen.
        order: n.

    Raises:
        ValueError: there is no sentence.
    """
    counts = [Counter[tuple[str, ...]]() for _ in range(order)]
    for sentence in sentences:
        marked = ("<s>", *sentence, "</s>")
        for n, counter in enumerate(counts, 1):
            counter.update(marked[i : i + n] for i in range(len(marked) - n + 1))
    if not counts[0]:
        raise ValueError("no transcripts: there is nothing to estimate a language model from")
    # Of shorter n-grams, in how many contexts they were seen counts, not how often; but before <s> there is no context.
    for counter, longer in pairwise(counts):
        contexts = Counter(ngram[1:] for ngram in longer)
        counter.update({ngram: contexts[ngram] - n for ngram, n in counter.items() if ngram[0] != "<s>"})
    del counts[0][("<s>",)]

    vocabulary = [(token,) for token in dict.fromkeys([*tokens, *(seen for (seen,) in counts[0]), "</s>"])]
    probabilities: dict[tuple[str, ...], float] = {(): 1 / len(vocabulary)}
    backoffs: dict[tuple[str, ...], float] = {}
    for counter in counts:
        frequencies = Counter(counter.values())
        # Where nothing was seen just once, there is no telling.
        discount = frequencies[1] / (frequencies[1] + 2 * frequencies[2]) if frequencies[1] else 0.5
        totals, kinds = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        for ngram, n in counter.items():
            totals[ngram[:-1]] += n
            kinds[ngram[:-1]] += 1
        backoffs |= {context: discount * kinds[context] / total for context, total in totals.items()}
        for ngram in vocabulary if counter is counts[0] else counter:
            context = ngram[:-1]
            seen = max(counter[ngram] - discount, 0) / totals[context]
            probabilities[ngram] = seen + backoffs[context] * probabilities[ngram[1:]]
    with atomic_write(path) as file:
        print("\\data\\", file=file)
        sizes = [len(vocabulary) + 1, *map(len, counts[1:])]  # with <s>
        for n, size in enumerate(sizes, 1):
            print(f"ngram {n}={size}", file=file)
        by_order: list[list[str]] = [[] for _ in counts]
        for ngram, probability in [(("<s>",), 1e-99), *probabilities.items()]:
            if ngram:
                backoff = f"\t{math.log10(backoffs[ngram]):.6f}" if ngram in backoffs else ""
                by_order[len(ngram) - 1].append(f"{math.log10(probability):.6f}\t{' '.join(ngram)}{backoff}")
        for n, lines in enumerate(by_order, 1):
            print(f"\n\\{n}-grams:", *lines, sep="\n", file=file)
        print("\n\\end\\", file=file)
