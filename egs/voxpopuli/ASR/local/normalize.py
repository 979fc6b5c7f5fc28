"""Normalise transcripts of European Parliament debates (VoxPopuli), and report unusual characters.

Words are not respelled: digits, symbols and foreign letters stay, but :class:`CharacterReport` lists them.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from summarymix.files import atomic_write

# Letters of each language in addition to a-z, including those for stress marks and in common loan words.
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

# Letters with two codes. Romanian has a comma below, but older fonts had only the Turkish cedilla (Unicode standard,
# chapter 7.1), which the parliament's texts of those years use.
_SAME_LETTER = {"ro": str.maketrans("şţŞŢ", "șțȘȚ")}


def clean(text: str, language: str) -> str:
    """Convert to Unicode NFC, one code for each letter and single spaces, and change nothing more."""
    text = unicodedata.normalize("NFC", text).translate(_SAME_LETTER.get(language, {}))
    return " ".join(text.split())


def normalize(text: str, language: str) -> str:
    """Lowercase, remove punctuation and :func:`clean`; hyphens and slashes separate words, apostrophes stay."""
    return clean(text.lower().translate(_MARKS), language)


@dataclass
class CharacterReport:
    """Count of foreign characters in transcripts: neither in the language's alphabet nor punctuation."""

    language: str
    occurrences: Counter[str] = field(default_factory=Counter)
    """Count of every character, in lower case."""
    utterances: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the utterances with each foreign character."""

    def add(self, utterance: str, text: str) -> None:
        """Count one transcript."""
        characters = Counter(text.lower())
        self.occurrences.update(characters)
        for character in self._foreign(characters):
            self.utterances.setdefault(character, []).append(utterance)

    @property
    def unused_letters(self) -> str:
        """Letters of the language that never occur; in a large corpus, a sign that they were lost."""
        return "".join(letter for letter in LETTERS[self.language] if not self.occurrences[letter])

    def summary(self) -> str:
        """One-line summary."""
        count = sum(self.occurrences[character] for character in self.utterances)
        affected = len({utterance for utterances in self.utterances.values() for utterance in utterances})
        line = f"{count} characters ({len(self.utterances)} different) are foreign, in {affected} utterances"
        return line + (f"; never used: {' '.join(self.unused_letters)}" if self.unused_letters else "")

    def write(self, path: Path) -> None:
        """Write a table of foreign characters, the most frequent first: code, name, count and utterances."""
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
