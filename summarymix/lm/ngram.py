"""N-gram language models of tokens: estimation, and use in a beam search (shallow fusion)."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from summarymix.data.text_files import read_lines
from summarymix.files import atomic_write

Word = TypeVar("Word", str, int)

# Numbers of the symbols in ARPA files that are not tokens.
BEGIN, END, OTHER = -1, -2, -3
MARKS = {"<s>": BEGIN, "</s>": END, "<unk>": OTHER, "<UNK>": OTHER}


class NgramLM:
    """A :class:`~summarymix.lm.scorers.TokenScorer` with a back-off language model of tokens from an ARPA file. Its
    state is the tokens that the next one depends on.

    A token without a 1-gram is as likely as ``<unk>``, or without ``<unk>`` as the least likely token. The end of an
    utterance scores 0, as in icefall and sherpa-onnx: the end of a stream does not depend on its words.

    Args:
        path: the file, which may be compressed with gzip.
        tokens: all tokens, in the order of their numbers; they are the words of this language model.
        scale: scale of the natural log-probabilities. LODR (arXiv 2203.16776) uses a low-order model of the training
            transcripts with a scale below 0, to subtract the language model that the transducer has learnt.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not an ARPA file, or a word is not a token; the message names the line.
    """

    def __init__(self, path: Path, tokens: Sequence[str], scale: float) -> None:
        numbers = MARKS | {token: i for i, token in enumerate(tokens) if token not in MARKS}
        self._scale = scale * math.log(10)
        self._scores, self._backoffs = read_arpa(path, numbers.__getitem__)
        self._order = max(map(len, self._scores))
        self.start = (BEGIN,)[: self._order - 1]
        known = [score for ngram, score in self._scores.items() if len(ngram) == 1 and ngram[0] >= 0]
        if not known:
            raise ValueError(f"{path} has no 1-grams of tokens: give a language model of the model's tokens")
        self._other = self._scores.get((OTHER,), min(known))

    def step(self, state: tuple[int, ...], token: int) -> tuple[float, tuple[int, ...]]:
        """Return the score of ``token`` in ``state``, and the next state."""
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
        """Return 0."""
        return 0.0


def read_arpa(
    path: Path, name: Callable[[str], Word]
) -> tuple[dict[tuple[Word, ...], float], dict[tuple[Word, ...], float]]:
    """Read the decadic logarithms of the probability and of the back-off weight of each n-gram in an ARPA file.

    Args:
        path: the file, which may be compressed with gzip.
        name: maps a word to its name in the result; raises ``KeyError`` if it is not a token of the model.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is incomplete or not an ARPA file, or a word is not a token; the message names the line.
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
                f"{path}, line {line}: {error} is not a token of the model: give a language model trained on "
                "transcripts that were split into these tokens"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}, line {line} is not a {order}-gram of an ARPA file") from error
        if backoff is not None:
            backoffs[ngram] = backoff
    if not scores:
        raise ValueError(f"{path} has no n-grams: it is not an ARPA file, or incomplete")
    return scores, backoffs


def _read_ngrams(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the line number, the order, and the fields of each n-gram.

    Raises:
        ValueError: there are fewer or more n-grams than the file announces, or its end is missing.
    """
    order, ended = 0, False
    announced, found = Counter[int](), Counter[int]()
    for number, line in read_lines(path):
        ended = ended or line.startswith("\\end\\")
        if section := re.fullmatch(r"\\(\d+)-grams:\s*", line):
            order = int(section.group(1))
        elif size := re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)\s*", line):
            announced[int(size.group(1))] = int(size.group(2))
        elif order and not ended and (fields := line.split()):
            found[order] += 1
            yield number, order, fields
    if order and not ended:
        raise ValueError(f"{path} is incomplete, its last line \\end\\ is missing: copy it again")
    for order, number in announced.items():
        if found[order] != number:
            raise ValueError(f"{path} has {found[order]} of {number} {order}-grams: copy it again")


def write_ngrams(path: Path, sentences: Iterable[Sequence[str]], tokens: Iterable[str], order: int) -> None:
    """Estimate a language model by interpolated Kneser-Ney smoothing (S. F. Chen, J. Goodman, Computer Speech and
    Language 13, 1999), with one discount for each order, and write it in ARPA format. All n-grams are held in memory.

    Args:
        path: the file to write.
        sentences: transcripts as tokens, or words.
        tokens: tokens that get a probability even if they are not seen.
        order: order of the language model.

    Raises:
        ValueError: there are no sentences.
    """
    counts = [Counter[tuple[str, ...]]() for _ in range(order)]
    for sentence in sentences:
        marked = ("<s>", *sentence, "</s>")
        for n, counter in enumerate(counts, 1):
            counter.update(marked[i : i + n] for i in range(len(marked) - n + 1))
    if not counts[0]:
        raise ValueError("no transcripts: there is nothing to estimate a language model from")
    # Shorter n-grams count by number of contexts, not by occurrences; those that begin with <s> have no context.
    for counter, longer in pairwise(counts):
        contexts = Counter(ngram[1:] for ngram in longer)
        counter.update({ngram: contexts[ngram] - n for ngram, n in counter.items() if ngram[0] != "<s>"})
    del counts[0][("<s>",)]

    vocabulary = [(token,) for token in dict.fromkeys([*tokens, *(seen for (seen,) in counts[0]), "</s>"])]
    probabilities: dict[tuple[str, ...], float] = {(): 1 / len(vocabulary)}
    backoffs: dict[tuple[str, ...], float] = {}
    for counter in counts:
        frequencies = Counter(counter.values())
        # Without n-grams seen once there is no estimate.
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
