"""Subword units of transcripts: a sentencepiece model and the table of its pieces (the "lang dir")."""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from summarymix.files import atomic_write

BLANK, BLANK_ID = "<blk>", 0
UNKNOWN, UNKNOWN_ID = "<unk>", 1

ModelType = Literal["unigram", "bpe", "char"]


class Tokenizer:
    """Turns transcripts into token ids and back. Id 0 is the blank, id 1 stands for unknown characters."""

    def __init__(self, model: bytes) -> None:
        """``model`` is a serialised sentencepiece model as :meth:`train` makes it.

        Raises:
            ValueError: its first two pieces are not blank and unknown.
        """
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.tokens: list[str] = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        # sentencepiece writes U+2581 for a space.
        self._characters = frozenset(piece.replace("\u2581", " ") for piece in self.tokens if len(piece) == 1)
        if self.tokens[:2] != [BLANK, UNKNOWN]:
            raise ValueError(
                f"The sentencepiece model begins with {self.tokens[:2]}, but {[BLANK, UNKNOWN]} is needed: "
                "make it with local/train_bpe.py"
            )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, model_type: ModelType = "unigram") -> "Tokenizer":
        """Train a model. The same texts in the same order give the same bytes.

        Args:
            texts: transcripts.
            vocab_size: number of tokens, blank and unknown included; for ``char``, an upper bound.
            model_type: sentencepiece's ``unigram`` (Kudo 2018), ``bpe`` or ``char``.

        Raises:
            ValueError: the texts are empty, or ``vocab_size`` is too large or too small for them.
        """
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise ValueError("All transcripts are empty: tokens cannot be trained without text")
        buffer = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                # An iterator and a writer, because file names would become part of the model.
                sentence_iterator=iter(texts),
                model_writer=buffer,
                model_type=model_type,
                vocab_size=vocab_size,
                # ``char`` takes all characters, even if they are fewer than vocab_size.
                hard_vocab_limit=model_type != "char",
                character_coverage=1.0,
                normalization_rule_name="identity",
                max_sentence_length=1 << 20,
                num_threads=1,
                pad_id=BLANK_ID,
                pad_piece=BLANK,
                unk_id=UNKNOWN_ID,
                unk_piece=UNKNOWN,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_explain(str(error), vocab_size)) from error
        return cls(buffer.getvalue())

    @classmethod
    def from_lang_dir(cls, lang_dir: Path | str) -> "Tokenizer":
        """Read ``bpe.model`` and check it against ``tokens.txt``.

        Raises:
            FileNotFoundError: the folder has no ``bpe.model``.
            ValueError: the two files do not match.
        """
        lang_dir = Path(lang_dir)
        model, table = lang_dir / "bpe.model", lang_dir / "tokens.txt"
        if not model.is_file():
            raise FileNotFoundError(f"No token model {model}: run ./prepare.sh, or correct --data.lang_dir")
        tokenizer = cls(model.read_bytes())
        if not table.is_file() or table.read_text(encoding="utf-8") != tokenizer._table():
            raise ValueError(f"{table} does not match {model}: make both again with local/train_bpe.py")
        return tokenizer

    def write(self, lang_dir: Path | str) -> None:
        """Write ``bpe.model``, ``bpe.vocab`` (piece, score) and, last, ``tokens.txt`` (piece, id)."""
        lang_dir = Path(lang_dir)
        with atomic_write(lang_dir / "bpe.model", "wb") as file:
            file.write(self._model)
        with atomic_write(lang_dir / "bpe.vocab") as file:
            for i, piece in enumerate(self.tokens):
                print(piece, f"{self._processor.get_score(i):g}", sep="\t", file=file)
        with atomic_write(lang_dir / "tokens.txt") as file:
            file.write(self._table())

    def _table(self) -> str:
        return "".join(f"{piece} {i}\n" for i, piece in enumerate(self.tokens))

    def state(self) -> dict[str, Any]:
        """The tokenizer as a dictionary for a checkpoint; :meth:`from_state` reads it."""
        return {"bpe_model": self._model, "tokens": list(self.tokens)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tokenizer":
        """Restore a tokenizer from its :meth:`state`."""
        return cls(state["bpe_model"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._model,)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, blank and unknown included."""
        return len(self.tokens)

    @property
    def unk_id(self) -> int:
        """The id of unknown characters."""
        return UNKNOWN_ID

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript; empty for an empty one."""
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; blanks are ignored."""
        return self._processor.decode(list(ids))

    def covers(self, text: str) -> bool:
        """True if every character has a token of its own, so that no token of the transcript is unknown."""
        return self._characters.issuperset(text)

    def unknown_characters(self, text: str) -> list[str]:
        """The characters of ``text`` that occur in no token, each once, in order."""
        known = set("".join(self.tokens[2:]))
        return [character for character in dict.fromkeys(text) if not character.isspace() and character not in known]


def _explain(message: str, vocab_size: int) -> str:
    """Rephrase an error message of sentencepiece in terms of the option."""
    if found := re.search(r"too high \(\d+\).*?<= (\d+)", message):
        return (
            f"--vocab-size {vocab_size} is too large for these transcripts, which allow at most {found.group(1)} "
            "tokens: reduce it, or add more text"
        )
    if found := re.search(r"smaller than required_chars. (\d+) vs (\d+)", message):
        return (
            f"--vocab-size {vocab_size} is too small: the characters of these transcripts alone need {found.group(2)} "
            "tokens. Increase it, or remove rare characters from the transcripts"
        )
    return f"sentencepiece could not make {vocab_size} tokens from these transcripts: {message}"
