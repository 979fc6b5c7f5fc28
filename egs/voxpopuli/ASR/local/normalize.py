"""Transcripts of European Parliament debates (VoxPopuli): one spelling of each character, and what is unusual in them.

Nothing is respelled: digits, symbols and foreign letters stay, but :class:`CharacterReport` lists them.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from summarymix.files import atomic_write

# The letters that a language writes beside a-z. Those of stress marks and common loans are included.
LETTERS = {
    "en": "",
    "de": "äöüß",
    "fr": "àâæçèéêëîïôùûüÿœ",
    "es": "áéíñóúü",
    "pl": "ąćęłńóśźż",
    "it": "àèéìíïòóù",
    "ro": "ăâîșț",
    "hu": "áéíóöőúüű",
    "cs": "áčďéěíňóřšťúůýž",
    "nl": "àáçèéêëíïóöúü",
    "fi": "äåö",
    "hr": "čćđšž",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čšž",
    "et": "äõöüšž",
    "lt": "ąčęėįšųūž",
}

# "normed_text" is not free of punctuation in every language: the first Croatian utterance ends with a full stop.
# VoxPopuli's own preparation of text for language models treats these marks in the same way.
_SEPARATORS = "-‐‑–—/·"
_UNSPOKEN = '.,;:!?¡¿"“”„‟″«»‹›‘‚…•*_()[]{}'
_MARKS = str.maketrans({"’": "'"} | dict.fromkeys(_SEPARATORS, " ") | dict.fromkeys(_UNSPOKEN, ""))

# Letters with two codes. Romanian is written with a comma below; older fonts had the Turkish cedilla only (Unicode
# standard, chapter 7.1), and the parliament's texts of those years have it.
_SAME_LETTER = {"ro": str.maketrans("şţŞŢ", "șțȘȚ")}


def clean(text: str, language: str) -> str:
    """Unicode NFC, one code for each letter, single spaces; nothing else is changed."""
    text = unicodedata.normalize("NFC", text).translate(_SAME_LETTER.get(language, {}))
    return " ".join(text.split())


def normalize(text: str, language: str) -> str:
    """:func:`clean`, lower case, without punctuation; hyphens and slashes separate words, apostrophes stay."""
    return clean(text.lower().translate(_MARKS), language)


@dataclass
class CharacterReport:
    """Counts the characters of transcripts that are not of their language's alphabet or punctuation."""

    language: str
    occurrences: Counter[str] = field(default_factory=Counter)
    """Of every character, lower case."""
    utterances: dict[str, list[str]] = field(default_factory=dict)
    """The ids of the utterances that have a foreign character, by character."""

    def add(self, utterance: str, text: str) -> None:
        """Count one transcript."""
        characters = Counter(text.lower())
        self.occurrences.update(characters)
        for character in self._foreign(characters):
            self.utterances.setdefault(character, []).append(utterance)

    @property
    def unused_letters(self) -> str:
        """The language's own letters that never occur: in a large corpus a sign that they have been lost."""
        return "".join(letter for letter in LETTERS[self.language] if not self.occurrences[letter])

    def summary(self) -> str:
        """One line for a person."""
        count = sum(self.occurrences[character] for character in self.utterances)
        affected = len({utterance for utterances in self.utterances.values() for utterance in utterances})
        line = f"{count} characters of {len(self.utterances)} kinds are not of the alphabet, in {affected} utterances"
        return line + (f"; never used: {' '.join(self.unused_letters)}" if self.unused_letters else "")

    def write(self, path: Path) -> None:
        """Write a table: each foreign character, the most frequent first, its code and name, its number, and where."""
        with atomic_write(path) as file:
            print("character", "code", "name", "occurrences", "utterances", sep="\t", file=file)
            for character in sorted(self.utterances, key=lambda c: (-self.occurrences[c], c)):
                name = unicodedata.name(character, "unnamed")
                code, count = f"U+{ord(character):04X}", self.occurrences[character]
                shown = character if character.isprintable() else ""
                print(shown, code, name, count, " ".join(self.utterances[character]), sep="\t", file=file)

    def _foreign(self, characters: Iterable[str]) -> Iterable[str]:
        known = {*"abcdefghijklmnopqrstuvwxyz'’ ", *LETTERS[self.language], *_SEPARATORS, *_UNSPOKEN}
        return (character for character in characters if character not in known)
