"""Report on a corpus before training: a few lines to print, and lists in files."""

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from summarymix.data.corpus.base import Corpus, Utterance, Utterances, skipped_path
from summarymix.data.corpus.validate import shared_speakers
from summarymix.data.names import is_guessed, kind_of, printable
from summarymix.data.skipped import Skipped, write_skipped
from summarymix.data.transcripts import has_unspaced, is_punctuation, num_words
from summarymix.files import atomic_write, write_list

RARE = 5  # characters in fewer utterances can hardly be learnt
MIN_WORDS_PER_SECOND, MAX_WORDS_PER_SECOND = 0.2, 8.0
EXAMPLES = 5


def corpus_report(corpus: Corpus, prefix: str, out_dir: Path) -> list[str]:
    """Report on a corpus whose manifests :meth:`Corpus.write` has written, with the same arguments.

    Writes ``characters-{prefix}.tsv``, and ``suspicious-{prefix}.tsv`` and ``unnamed-audio-{prefix}.txt`` if there is
    anything to list.

    Returns:
        The lines to print. Lines about problems begin with "Warning".
    """
    everything = corpus.utterances
    lines = [f"{len(everything)} utterances, {_hours(everything.seconds)}; {corpus.skipped.summary()}"]
    if len(corpus.skipped):
        lines[0] += f"; see {skipped_path(out_dir, prefix)}"
    if silent := array("d", (seconds for text, seconds in everything.columns("text, duration") if not text)):
        lines.append(f"{len(silent)} of them are recordings without speech, {_hours(sum(silent))}")
    lines.append(f"audio: {_formats(everything)}")
    for split, utterances in corpus.splits().items():
        ((num_recordings,),) = utterances.columns("count(DISTINCT recording_id)", "")
        lines.append(
            f"{split}: {len(utterances)} utterances, {_hours(utterances.seconds)}, {num_recordings} recordings, "
            f"{len(utterances.speakers()) or 'unknown'} speakers"
        )
    if corpus.audio.converted:
        lines.append(
            f"{len(corpus.audio.converted)} audio files are used as copies in {corpus.audio.folder}, because "
            f"training would not read them, or not to their ends; see {out_dir}/converted-{prefix}.tsv"
        )
    lines += corpus.notes
    lines += _guessed_kinds(corpus)
    lines += _shared_speakers(corpus)
    lines += _characters(corpus, out_dir / f"characters-{prefix}.tsv")
    listing = out_dir / f"suspicious-{prefix}.tsv"
    suspicious = write_skipped((item for utterance in everything for item in _suspicion(utterance)), listing)
    if not suspicious:
        listing.unlink()
    else:
        lines.append(
            f"Warning: {suspicious} utterances have more than {MAX_WORDS_PER_SECOND:g} or less than "
            f"{MIN_WORDS_PER_SECOND:g} words a second. They are kept; listen to some of {listing}"
        )
    unnamed = out_dir / f"unnamed-audio-{prefix}.txt"
    write_list(unnamed, [printable(path) for path in corpus.unnamed_audio])
    if corpus.unnamed_audio:
        lines.append(
            f"Warning: {len(corpus.unnamed_audio)} audio files belong to no utterance, for example "
            f"{printable(corpus.unnamed_audio[0])}; see {unnamed}"
        )
    return lines


def hours_by_rate(utterances: Iterable[Utterance]) -> dict[tuple[int, int], float]:
    """Hours of speech by sample rate and number of channels of the recordings, in descending order."""
    hours: dict[tuple[int, int], float] = {}
    for utterance in utterances:
        key = (utterance.recording.sampling_rate, utterance.recording.num_channels)
        hours[key] = hours.get(key, 0.0) + utterance.seconds / 3600
    return dict(sorted(hours.items(), key=lambda item: -item[1]))


def _formats(utterances: Utterances) -> str:
    return ", ".join(
        f"{rate} Hz {'mono' if channels == 1 else f'with {channels} channels'} {hours:.2f} h"
        for (rate, channels), hours in hours_by_rate(utterances).items()
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h"


def _guessed_kinds(corpus: Corpus) -> list[str]:
    meaning = {"train": "trained on", "dev": "dev data", "test": "test data"}
    return [
        f"Warning: {split} is {meaning[kind_of(split)]}, a guess from its name: if this is wrong, rename it to train…, "
        "dev… or test…, without another of these words"
        for split in corpus.splits()
        if is_guessed(split)
    ]


def _shared_speakers(corpus: Corpus) -> list[str]:
    speakers = {split: utterances.speakers() for split, utterances in corpus.splits().items()}
    return [
        f"Warning: {a} and {b} share {len(shared)} speakers ({_some(shared)}): error rates will look better than for "
        "new speakers. Move each speaker's utterances to one split"
        for (a, b), shared in shared_speakers(speakers).items()
    ]


def _characters(corpus: Corpus, path: Path) -> list[str]:
    """Write the counts of characters to a table; return a summary, and warnings on unnormalised transcripts."""
    characters: Counter[str] = Counter()
    in_utterances: Counter[str] = Counter()
    num_unspaced = 0
    for (text,) in corpus.utterances.columns("text"):
        num_unspaced += len(text) > 8 and " " not in text and not has_unspaced(text)
        text = text.replace(" ", "")
        characters.update(text)
        in_utterances.update(set(text))
    with atomic_write(path) as file:
        print("character", "count", "utterances", "name", sep="\t", file=file)
        for character, count in characters.most_common():
            name = unicodedata.name(character, f"U+{ord(character):04X}")
            print(character, count, in_utterances[character], name, sep="\t", file=file)
    lines = [f"characters: {len(characters)} different ones; see {path}"]

    def warn(found: list[str], what: str, remedy: str) -> None:
        if found:
            lines.append(f"Warning: {what} ({_some(found)}): {remedy}")

    rare = [character for character in characters if in_utterances[character] < RARE]
    # In a smaller corpus, every character is rare.
    if len(corpus.utterances) >= 10 * RARE:
        warn(rare, f"{len(rare)} characters occur in less than {RARE} utterances", "replace or remove them")
    digits = [character for character in characters if unicodedata.category(character) == "Nd"]
    warn(digits, "digits in transcripts", "write numbers as they are spoken")
    symbols = [c for c in characters if unicodedata.category(c)[0] in "PS" and not is_punctuation(c)]
    warn(symbols, "symbols in transcripts", "write them as they are spoken, or remove them")
    lines += _punctuation(corpus)
    upper = any(character.isupper() for character in characters)
    lower = any(character.islower() for character in characters)
    if upper and lower:
        lines.append("Warning: upper and lower case in transcripts: --text-case lower merges The and the")
    if corpus.num_not_nfc:
        lines.append(f"{corpus.num_not_nfc} transcripts were not in Unicode's composed form (NFC) and were converted")
    if num_unspaced > len(corpus.utterances) / 2:
        lines.append("Warning: most transcripts have no spaces: put spaces between words")
    return lines


def _punctuation(corpus: Corpus) -> list[str]:
    """A line on the punctuation of the transcripts, and one on words in brackets that lost them."""
    found, total = corpus.punctuation, len(corpus.utterances)
    if not found.count:
        return []
    before, after = (f"{text:.60}" for text in found.example)
    if not found.removed:
        return [
            f"Warning: punctuation in {found.count} of {total} transcripts, such as {before!r}: "
            f"--punctuation remove makes it {after!r}; keep it if the model should write punctuation"
        ]
    lines = [f"punctuation was removed from {found.count} transcripts, such as {before!r}, now {after!r}"]
    if found.brackets:
        lines.append(
            f"Warning: words in brackets ({_some(list(found.brackets))}) stay in the transcripts, now as words: remove "
            "them from the corpus if they are not spoken"
        )
    return lines


def _suspicion(utterance: Utterance) -> list[Skipped]:
    if not utterance.supervision.text:
        return []
    words = num_words(utterance.supervision.text)
    rate = words / utterance.seconds
    if MIN_WORDS_PER_SECOND <= rate <= MAX_WORDS_PER_SECOND:
        return []
    detail = f"{words:g} words in {utterance.seconds:.2f} s: {utterance.supervision.text}"
    reason = "too many words" if rate > MAX_WORDS_PER_SECOND else "too few words"
    remedy = "check that transcript and audio belong together"
    return [Skipped(utterance.supervision.id, utterance.file, reason, detail, remedy)]


def _some(items: list[str]) -> str:
    shown = [item if item.isprintable() else ascii(item) for item in items[:EXAMPLES]]
    return " ".join(shown) + (" …" if len(items) > EXAMPLES else "")
