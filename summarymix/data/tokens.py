"""Subword units of transcripts: a sentencepiece model and the table of its pieces (the "lang dir")."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import sentencepiece

from summarymix.data.transcripts import Punctuation, TextCase, normalize_text
from summarymix.files import atomic_write

BLANK, BLANK_ID = "<blk>", 0
UNKNOWN, UNKNOWN_ID = "<unk>", 1
# sentencepiece writes U+2585 for unknown characters.
_RESERVED = (BLANK, UNKNOWN, "\u2585")

ModelType = Literal["unigram", "bpe", "char"]

# The form of the transcripts: attributes of the tokenizer, files of a lang dir, and their values.
_FORM = {"text_case": get_args(TextCase), "punctuation": get_args(Punctuation)}


class Tokenizer:
    """Turns transcripts into token ids and back. Id 0 is the blank, id 1 stands for unknown characters."""

    def __init__(self, model: bytes, text_case: TextCase = "keep", punctuation: Punctuation = "keep") -> None:
        """
        Args:
            model: a serialised sentencepiece model as :meth:`train` makes it.
            text_case: case to which the corpus converts its transcripts, and :meth:`normalize` any other text.
            punctuation: "remove" if the corpus removes it from its transcripts, and :meth:`normalize` from any other.

        Raises:
            ValueError: its first two pieces are not blank and unknown.
        """
        self._model, self.text_case, self.punctuation = model, text_case, punctuation
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.tokens: list[str] = [self._processor.id_to_piece(i) for i in range(self._processor.vocab_size())]
        self._written = frozenset("".join(self.tokens[2:]))
        # sentencepiece writes U+2581 for a space.
        self._characters = frozenset(piece.replace("\u2581", " ") for piece in self.tokens if len(piece) == 1)
        if self.tokens[:2] != [BLANK, UNKNOWN]:
            raise ValueError(
                f"The sentencepiece model begins with {self.tokens[:2]}, but {[BLANK, UNKNOWN]} is needed: "
                "make it with local/train_bpe.py"
            )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        model_type: ModelType = "unigram",
        text_case: TextCase = "keep",
        punctuation: Punctuation = "keep",
    ) -> "Tokenizer":
        """Train a model. The same texts in the same order give the same bytes.

        Args:
            texts: transcripts, which are converted first.
            vocab_size: number of tokens, blank and unknown included; for ``char``, an upper bound.
            model_type: sentencepiece's ``unigram`` (Kudo 2018), ``bpe`` or ``char``.
            text_case: case of all texts that meet the tokens.
            punctuation: "remove" to remove it from them.

        Raises:
            ValueError: the texts are empty, or ``vocab_size`` is too large or too small for them.
        """
        texts = [text for text in (normalize_text(text, text_case, punctuation) for text in texts) if text]
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
        return cls(buffer.getvalue(), text_case, punctuation)

    @classmethod
    def from_lang_dir(cls, lang_dir: Path | str) -> "Tokenizer":
        """Read ``bpe.model``, and ``text_case`` and ``punctuation`` if they are there; check ``tokens.txt``.

        Raises:
            FileNotFoundError: the folder has no ``bpe.model``.
            ValueError: ``tokens.txt`` does not match the model, or ``text_case`` or ``punctuation`` is unknown.
        """
        lang_dir = Path(lang_dir)
        model, table = lang_dir / "bpe.model", lang_dir / "tokens.txt"
        if not model.is_file():
            raise FileNotFoundError(f"No token model {model}: run ./prepare.sh, or correct --data.lang_dir")
        form = {name: _read_choice(lang_dir / name, choices) for name, choices in _FORM.items()}
        tokenizer = cls(model.read_bytes(), **form)
        if not table.is_file() or table.read_text(encoding="utf-8") != tokenizer._table():
            raise ValueError(f"{table} does not match {model}: make both again with local/train_bpe.py")
        return tokenizer

    def write(self, lang_dir: Path | str) -> None:
        """Write ``bpe.model``, ``bpe.vocab`` (piece, score) and, last, ``tokens.txt`` (piece, id).

        If the transcripts were converted to upper or lower case, or their punctuation was removed, ``text_case`` and
        ``punctuation`` say so.
        """
        lang_dir = Path(lang_dir)
        for name in ("tokens.txt", *_FORM):  # without the table, other files do not count
            (lang_dir / name).unlink(missing_ok=True)
        for name, value in self._form().items():
            with atomic_write(lang_dir / name) as file:
                print(value, file=file)
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
        # Checkpoints of earlier versions have no case and no punctuation.
        return {"bpe_model": self._model, "tokens": list(self.tokens), **self._form()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tokenizer":
        """Restore a tokenizer from its :meth:`state`."""
        return cls(state["bpe_model"], **{name: state[name] for name in _FORM if name in state})

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._model, self.text_case, self.punctuation)

    def _form(self) -> dict[str, str]:
        """Names and values of the changes to the form of the transcripts."""
        return {name: value for name in _FORM if (value := getattr(self, name)) != "keep"}

    @property
    def vocab_size(self) -> int:
        """Number of tokens, blank and unknown included."""
        return len(self.tokens)

    @property
    def unk_id(self) -> int:
        """The id of unknown characters."""
        return UNKNOWN_ID

    def normalize(self, text: str) -> str:
        """Convert text to the form of the transcripts that the tokens were trained on."""
        return normalize_text(text, self.text_case, self.punctuation)

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
        return [c for c in dict.fromkeys(text) if not c.isspace() and c not in self._written]


def reserved_pieces(text: str) -> list[str]:
    """Pieces in ``text`` that sentencepiece reserves. It removes them from the texts that it learns from."""
    return [piece for piece in _RESERVED if piece in text]


@dataclass
class Coverage:
    """Count of the words that the tokens can and cannot write."""

    tokenizer: Tokenizer
    words: int = 0
    unwritable: int = 0
    characters: int = 0
    unknown: int = 0
    """Number of characters that occur in no token."""
    examples: list[str] = field(default_factory=list)
    """Up to five words that cannot be written."""

    def add(self, text: str) -> None:
        """Count the words of a text."""
        words = text.split()
        self.words += len(words)
        self.characters += sum(map(len, words))
        if not self.tokenizer.unknown_characters(text):
            return
        for word in words:
            if unknown := self.tokenizer.unknown_characters(word):
                self.unwritable += 1
                self.unknown += sum(map(word.count, unknown))
                if len(self.examples) < 5 and word not in self.examples:
                    self.examples.append(word)

    @property
    def is_foreign(self) -> bool:
        """True if the text is not of the kind that the tokens were trained on.

        Words count in languages with spaces. In others, a single character spoils a sentence, so characters count too.
        """
        return 2 * self.unwritable > self.words and 5 * self.unknown > self.characters

    @property
    def likely_cause(self) -> str:
        """The likely cause of a foreign text, with its remedy."""
        cases: tuple[TextCase, ...] = ("upper", "lower")
        for case in cases:
            if not any(self.tokenizer.unknown_characters(normalize_text(word, case)) for word in self.examples):
                return f"its case is wrong: convert the text to {case} case"
        return "it is in another language, script or spelling than the training transcripts: give text like these"

    def __str__(self) -> str:
        return f"{self.unwritable} of {self.words} words, such as {' '.join(map(_shown, self.examples))}"


def _shown(word: str) -> str:
    return word if word.isprintable() and len(word) <= 40 else f"{word!a:.60}"


def _read_choice(path: Path, choices: tuple[Any, ...]) -> Any:
    """A choice of the form of transcripts in a lang dir.

    Raises:
        ValueError: it is unknown.
    """
    choice = path.read_text(encoding="utf-8").strip() if path.is_file() else "keep"
    if choice not in choices:
        raise ValueError(f"{path}: {choice!r} is none of {', '.join(choices)}: make it with local/train_bpe.py")
    return choice


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
