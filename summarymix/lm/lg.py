"""LG graphs for fast beam search: a lexicon composed with a language model of words.

The graph contains only token sequences that spell words of the language model. Its arcs carry tokens only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from summarymix import optional_k2
from summarymix.data.tokens import Tokenizer
from summarymix.files import atomic_write
from summarymix.lm.ngram import MARKS, read_arpa
from summarymix.runs import read_file


def read_lg(path: Path, tokens: Sequence[str], scale: float) -> Any:
    """Read a graph (``k2.Fsa``) from a file of :func:`write_lg`, or of icefall's ``compile_lg.py``.

    Args:
        path: the file.
        tokens: the model's tokens, compared with the graph's; icefall's files do not contain tokens.
        scale: scale of the graph's scores.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not a graph, or was compiled for other tokens.
        ImportError: k2 cannot be used.
    """
    k2 = optional_k2.require("--lg")
    if not path.is_file():
        raise FileNotFoundError(f"No graph {path}: make it with local/compile_lg.py, or correct --lg")
    with torch.serialization.safe_globals([k2.RaggedTensor]):  # icefall's graphs have words on the arcs
        content = read_file(path, "a graph", "Compile it with local/compile_lg.py")
    if not isinstance(content, dict) or "arcs" not in content:
        raise ValueError(f"{path} is not a graph: it has no arcs. Compile it with local/compile_lg.py")
    graph = k2.Fsa(content["arcs"])
    if "tokens" in content and content["tokens"] != list(tokens):
        raise ValueError(
            f"{path} was compiled for other tokens than the model's: compile it with the model's --lang-dir"
        )
    graph.scores *= scale
    return graph


def compile_lg(arpa: Path, tokenizer: Tokenizer) -> tuple[Any, list[str]]:
    """Compose a language model with its lexicon: all its words, as the tokenizer spells them.

    Args:
        arpa: language model of words in ARPA format, which may be compressed with gzip.
        tokenizer: the model's tokenizer.

    Returns:
        The graph (``k2.Fsa``), and the words left out because the tokenizer cannot spell them.

    Raises:
        FileNotFoundError, ValueError: see :func:`~summarymix.lm.ngram.read_arpa`; or the file has no words or no
            ``</s>``.
        ImportError: k2 cannot be used.
    """
    k2 = optional_k2.require("local/compile_lg.py")
    scores, backoffs = read_arpa(arpa, str)
    words = [ngram[0] for ngram in scores if len(ngram) == 1 and ngram[0] not in MARKS]
    spellings = {word: tokenizer.encode(word) for word in words if tokenizer.covers(word)}
    if not spellings:
        raise ValueError(f"{arpa} has no words that the tokens can spell: give a language model of words")
    if all(ngram[-1] != "</s>" for ngram in scores):
        raise ValueError(f"{arpa} has no </s>: give a language model with sentence ends")
    marks = _Marks(tokenizer.vocab_size, tokenizer.vocab_size + 1, len(spellings) + 1)
    numbers = {word: i for i, word in enumerate(spellings, 1)}
    lexicon = _lexicon(spellings, marks, k2)
    grammar = _grammar(scores, backoffs, numbers, marks, k2)
    graph = k2.connect(k2.compose(k2.arc_sort(lexicon), k2.arc_sort(grammar)))
    del graph.aux_labels  # only tokens remain
    graph = k2.connect(k2.determinize(graph))
    labels = graph.labels.clone()
    labels[labels >= tokenizer.vocab_size] = 0
    graph.labels = labels
    return k2.arc_sort(k2.connect(k2.remove_epsilon(graph))), [word for word in words if word not in spellings]


def write_lg(path: Path, graph: Any, tokens: Sequence[str]) -> None:
    """Write a graph with its tokens, for :func:`read_lg`."""
    with atomic_write(path, "wb") as file:
        torch.save({"arcs": graph.as_dict()["arcs"], "tokens": list(tokens)}, file)


@dataclass(frozen=True)
class _Marks:
    """Disambiguation symbols, removed at the end. Without them determinisation would not terminate."""

    end: int  # a token: after a word, because some words are prefixes of others
    backoff: int  # a token: the language model backs off
    backoff_word: int  # the word of ``backoff``


def _lexicon(spellings: Mapping[str, Sequence[int]], marks: _Marks, k2: Any) -> Any:
    """Make the transducer from tokens to words, which have the numbers 1, 2, … in order."""
    arcs = [(0, 0, marks.backoff, marks.backoff_word, 0.0)]
    last = 0
    for number, tokens in enumerate(spellings.values(), 1):
        path = [0, *range(last + 1, last + len(tokens) + 1), 0]
        last += len(tokens)
        outputs = [number] + [0] * len(tokens)
        arcs += [
            (*states, token, word, 0.0)
            for states, token, word in zip(pairwise(path), [*tokens, marks.end], outputs, strict=True)
        ]
    return _fsa([*arcs, (0, last + 1, -1, -1, 0.0)], k2)


def _grammar(
    scores: dict[tuple[str, ...], float],
    backoffs: dict[tuple[str, ...], float],
    numbers: Mapping[str, int],
    marks: _Marks,
    k2: Any,
) -> Any:
    """Make the graph of the language model: a state for each history, with an arc for each word seen after it, and
    one to the shorter history. So a word seen after both has two paths.
    """
    known = numbers.keys() | {"<s>"}
    histories: set[tuple[str, ...]] = {ngram[:-1] for ngram in scores if known.issuperset(ngram[:-1])} | {()}
    start: tuple[str, ...] = ("<s>",) if ("<s>",) in histories else ()
    states = {history: i for i, history in enumerate([start, *sorted(histories - {start})])}

    def longest(history: tuple[str, ...]) -> int:
        """Return the state of the longest suffix of a history that has one."""
        while history not in states:
            history = history[1:]
        return states[history]

    final, scale = len(states), math.log(10)
    arcs = []
    for ngram, score in scores.items():
        history, word = ngram[:-1], ngram[-1]
        if history in states and word == "</s>":
            arcs.append((states[history], final, -1, -1, scale * score))
        elif history in states and word in numbers:
            arcs.append((states[history], longest(ngram), numbers[word], 0, scale * score))
    arcs += [
        (source, longest(history[1:]), marks.backoff_word, 0, scale * backoffs.get(history, 0.0))
        for history, source in states.items()
        if history
    ]
    return _fsa(arcs, k2)


def _fsa(arcs: Iterable[tuple[int, int, int, int, float]], k2: Any) -> Any:
    """Make a transducer from arcs (from, to, label, output, score). State 0 is initial, the highest number final."""
    ordered = sorted(arcs, key=itemgetter(0))
    numbers = torch.tensor([(*arc[:3], 0) for arc in ordered], dtype=torch.int32)
    fsa = k2.Fsa(numbers, aux_labels=torch.tensor([arc[3] for arc in ordered], dtype=torch.int32))
    fsa.scores = torch.tensor([arc[4] for arc in ordered])
    return fsa
