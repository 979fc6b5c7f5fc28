"""Training text of language models."""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from summarymix.cli import say
from summarymix.data.manifests import read_items
from summarymix.data.text_files import read_lines
from summarymix.data.tokens import UNKNOWN, Coverage, Tokenizer
from summarymix.data.transcripts import normalize_text


def read_texts(
    supervisions: Iterable[Path], files: Iterable[Path], tokenizer: Tokenizer | None = None
) -> Iterator[str]:
    """Yield the transcripts in lhotse's manifests and the lines of text files, normalised and without empty ones.

    The words ``<s>`` and ``</s>``, which mark sentences in text for SRILM, are left out. With a tokenizer, it prints
    for each file how many words the tokens cannot write.

    Args:
        supervisions: manifests.
        files: text files, compressed with gzip if their suffix is ``.gz``.
        tokenizer: makes tokens of the texts; None: they stay words.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or has another encoding, the tokens cannot write most of its words, or there is no
            text.
    """
    is_empty = True
    sources = [(path, (item.text or "" for item in read_items(path))) for path in supervisions]
    sources += [(path, (line for _, line in read_lines(path))) for path in files]
    for path, texts in sources:
        for text in _normalized(path, texts, tokenizer):
            is_empty = False
            yield text
    if is_empty:
        raise ValueError(f"no text in {', '.join(str(path) for path, _ in sources)}: correct the files")


def _normalized(path: Path, texts: Iterable[str], tokenizer: Tokenizer | None) -> Iterator[str]:
    texts = (re.sub(r"(?<!\S)</?s>(?!\S)", " ", text) for text in texts)
    if tokenizer is None:
        yield from filter(None, map(normalize_text, texts))
        return
    coverage = Coverage(tokenizer)
    for text in filter(None, map(tokenizer.normalize, texts)):
        coverage.add(text)
        yield text
    if coverage.is_foreign:
        raise ValueError(f"{path}: the tokens cannot write {coverage}. Probably {coverage.likely_cause}")
    if coverage.unwritable:
        say(
            f"Warning: {path}: the tokens cannot write {coverage}; {UNKNOWN} stands for unknown characters, and graphs "
            "of words lack such words"
        )


class Sentences:
    """Texts as tokens, in a few bytes per token.

    Args:
        texts: texts, at least one, and none of them empty.
        tokenizer: splits texts into tokens.
    """

    def __init__(self, texts: Iterable[str], tokenizer: Tokenizer) -> None:
        tokens, ends = array("i"), array("q", [0])
        self.num_words = 0
        for text in texts:
            tokens.extend(tokenizer.encode(text))
            ends.append(len(tokens))
            self.num_words += len(text.split())
        # torch.tensor would take them one by one.
        self._tokens = torch.frombuffer(tokens, dtype=torch.int32)
        self._ends = torch.frombuffer(ends, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def checksum(self) -> str:
        """Checksum of the texts."""
        digest = hashlib.blake2b(digest_size=8)
        for values in (self._tokens, self._ends):
            digest.update(values.numpy().data)
        return digest.hexdigest()

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all sentences."""
        return len(self._tokens)

    def batches(self, batch_tokens: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return the indices of all sentences, for :meth:`select`, in batches of similar lengths.

        Args:
            batch_tokens: maximum tokens in a batch, ends of sentences and padding included; a longer sentence is its
                own batch.
            generator: shuffles batches, and sentences of equal length; without it the shortest are first.
        """
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        lengths = self._ends.diff()[order] + 1
        lengths, by_length = lengths.sort(stable=True)
        bounds = [0]
        for i, length in enumerate(lengths.tolist()):
            if i > bounds[-1] and (i + 1 - bounds[-1]) * length > batch_tokens:
                bounds.append(i)
        batches = order[by_length].tensor_split(bounds[1:])
        if generator is None:
            return list(batches)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def select(self, numbers: Tensor) -> list[Tensor]:
        """Return the tokens (U,) of each of the sentences ``numbers`` (N,)."""
        bounds = zip(self._ends[numbers].tolist(), self._ends[numbers + 1].tolist(), strict=True)
        return [self._tokens[begin:end] for begin, end in bounds]
