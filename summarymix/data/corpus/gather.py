"""Check the utterances of a corpus. Unusable ones are listed, the rest is kept.

Readers (:mod:`summarymix.data.corpus.table`, ``kaldi``, ``lhotse_manifests``) turn a corpus into rows and recordings;
:func:`gather` checks them against each other.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lhotse import Recording, SupervisionSegment

from summarymix.data.audio_length import END_TOLERANCE
from summarymix.data.corpus.base import Corpus, Row, Utterances, file_of
from summarymix.data.corpus.on_disk import DiskDict, DiskSet
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.cuts import IF_NO_SPEECH, NO_SPEECH
from summarymix.data.names import NAME_RULE, is_encodable, is_id, is_name, kind_of, printable
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.data.transcripts import Punctuation, TextCase, normalize_text

Problem = tuple[str, str, str]
"""Reason, detail and remedy of an utterance that is left out."""

_MIN_SECONDS = 0.01  # a feature frame


def no_utterance(name: str, file: str) -> Skipped:
    """A recording, listed in ``file``, that no utterance names."""
    return Skipped(name, file, "no utterance", "", "add its transcripts, or remove it from the list")


def gather(
    rows: Iterable[Row | Skipped],
    recordings: Mapping[str, Recording | Skipped],
    findings: AudioFindings,
    channel: int | None = None,
    text_case: TextCase = "keep",
    punctuation: Punctuation = "keep",
    keep_empty: bool = False,
) -> Corpus:
    """Check rows against their recordings and each other. What cannot be used is listed, the rest is kept.

    Args:
        rows: the utterances, and rows that their reader has left out. They are iterated over twice, and not kept.
        recordings: recording, or its problem, by the rows' ``audio``, without those that cannot be paths. Duplicate ids
            get a number appended.
        findings: what was found about the recordings.
        channel: channel to use of multi-channel audio if the row gives none; if both are None, the row is left out.
        text_case: case of the transcripts, see :func:`summarymix.data.transcripts.normalize_text`.
        punctuation: "remove" takes it out of the transcripts.
        keep_empty: an empty transcript means that the recording has no speech; otherwise the row is left out.
    """
    names = _Names()
    recordings = DiskDict(
        (audio, _renamed(recording, names.unique(recording.id))) for audio, recording in recordings.items()
    )
    names = _Names(row.id for row in rows if isinstance(row, Row) and row.id)
    originals = findings.originals
    corpus = Corpus(Utterances(recordings), SkippedItems(), 0, findings)
    corpus.punctuation.removed = punctuation == "remove"
    for row in rows:
        corpus.num_rows += 1
        if isinstance(row, Skipped):
            corpus.skipped.add(row)
            continue
        if problem := _unusable_field(row, recordings):
            corpus.skipped.add(_left_out(row, row.id or "", row.audio, problem))
            continue
        split = row.split or "train"
        recording = recordings[row.audio]
        id_ = row.id or names.unique(_generated_id(row, recording))
        given = row.text or ""
        text = normalize_text(given, text_case, punctuation)
        corpus.num_not_nfc += not unicodedata.is_normalized("NFC", given)
        no_speech = keep_empty and row.text is not None and not given.strip()
        found = (
            _problem(row, id_, split, bool(text) or no_speech, recording, corpus.utterances)
            or _truncation(row, recording, findings)
            or _segment(row, recording, channel)
        )
        file = file_of(recording)
        file = originals.get(file, file)
        if isinstance(found, SupervisionSegment):
            assert isinstance(recording, Recording)
            span = _span(file, recording, found)
            if other := _same_audio(corpus.utterances, span, split):
                found = "duplicate audio", f"the same as {other}", "keep one of the rows"
        if isinstance(found, tuple):
            corpus.skipped.add(_left_out(row, id_, file, found))
            continue
        corpus.punctuation.add(normalize_text(given, text_case), text_case)
        custom = NO_SPEECH if no_speech else None
        corpus.utterances.append(row, replace(found, id=id_, text=text, custom=custom), split, span)
    return corpus


def _unusable_field(row: Row, recordings: Mapping[str, Recording | Skipped]) -> Problem | None:
    """Problem of a field that cannot be written to paths, manifests or lists; None if there is none."""
    if row.split is not None and not is_name(row.split):
        return "unusable split name", ascii(row.split), NAME_RULE
    if row.id is not None and not is_id(row.id):
        return "unusable id", ascii(row.id), "remove line breaks, tabs and other control characters from the id"
    for name in ("text", "speaker", "language"):
        value = getattr(row, name)
        if value and not is_encodable(value):
            return (
                "unusable character",
                f"NUL or half a surrogate pair in {name}: {value!a:.200}",
                "remove the character",
            )
    if row.audio not in recordings:
        return (
            "unusable audio path",
            f"{row.audio!a:.200}",
            "correct the path: it is too long, or has NUL or a surrogate",
        )
    return None


def _problem(
    row: Row, id_: str, split: str, has_text: bool, recording: Recording | Skipped, kept: Utterances
) -> Problem | None:
    """Problem of a row apart from its place in the recording; None if there is none."""
    if _has_id(kept, id_, split):
        return "duplicate id", "the first is kept", "give every utterance a unique id"
    if not has_text:
        detail = "" if row.text is None or not row.text.strip() else f"only punctuation: {row.text!a:.80}"
        return "empty transcript", detail, f"add the transcript; {IF_NO_SPEECH}"
    if isinstance(recording, Skipped):
        return recording.reason, recording.detail, recording.remedy
    return None


def _left_out(row: Row, id_: str, file: str, problem: Problem) -> Skipped:
    reason, detail, remedy = problem
    return Skipped(printable(id_), file, reason, "; ".join(filter(None, (detail, row.where))), remedy)


def _has_id(kept: Utterances, id_: str, split: str) -> bool:
    """True if a row of the same set has the id."""
    same = kept.database.execute("SELECT split FROM utterances WHERE id = ?", (id_,))
    return any(_set_of(other) == _set_of(split) for (other,) in same)


def _same_audio(kept: Utterances, span: int, split: str) -> str | None:
    """Id of an utterance at the same place in the audio that must not be beside one of ``split``; None if there is
    none.
    """
    same = kept.database.execute("SELECT id, split FROM utterances WHERE span = ? ORDER BY number", (span,))
    for id_, other in same:
        if _set_of(other) == _set_of(split) or kind_of(other) != kind_of(split):
            return str(id_)
    return None


def _set_of(split: str) -> str:
    """The set in which an id or a place in the audio may be once.

    All training data are one set. Evaluation sets of a kind may share ids and audio, as parts and versions of a test
    set do.
    """
    return "train" if kind_of(split) == "train" else split


def _span(file: str, recording: Recording, segment: SupervisionSegment) -> int:
    """Hash of the place of a segment in the audio, in whatever way the corpus writes it."""
    changes = repr(recording.transforms)
    return hash((os.path.normpath(file), changes, segment.start, segment.duration, segment.channel))


def name_of(path: str | Path) -> str:
    """A readable id for a relative path: without its suffix, slashes replaced by dashes, spaces by underscores."""
    return re.sub(r"\s+", "_", "-".join(part for part in Path(path).with_suffix("").parts if part not in ("/", "..")))


def _truncation(row: Row, recording: Recording | Skipped, findings: AudioFindings) -> Problem | None:
    """Problem of a row that is all of a truncated recording; None for others."""
    if isinstance(recording, Skipped) or row.duration is not None:
        return None
    if lengths := findings.truncation(row.audio, recording):
        return "truncated audio", lengths, "restore the file, or give start and duration of what is in it"
    return None


def _segment(row: Row, recording: Recording | Skipped, channel: int | None) -> SupervisionSegment | Problem:
    """Supervision of a row, without id and text, or its problem."""
    assert isinstance(recording, Recording)
    channels = recording.channel_ids
    if row.channel is not None:
        channel = row.channel
    elif len(channels) == 1:
        channel = channels[0]
    if channel is None:
        return (
            "several channels",
            f"channels {', '.join(map(str, channels))}",
            "add a column channel, with one row per channel if each has its own speaker, or give --channel",
        )
    if channel not in channels:
        return ("no such channel", f"{channel}; the audio has {', '.join(map(str, channels))}", "correct the channel")
    length = recording.duration
    end = length if row.duration is None else row.start + row.duration
    if not 0 <= row.start < min(end, length) or end > length + END_TOLERANCE:
        detail = f"{row.start:g} to {end:g} s of {length:g} s"
        return ("segment outside its audio", detail, "correct start and duration, in seconds")
    if min(end, length) - row.start < _MIN_SECONDS:
        detail = f"{row.start:g} to {min(end, length):g} s"
        return "segment too short", detail, "correct start and duration, in seconds, or remove the row"
    whole = row.start == 0 and end >= length
    return SupervisionSegment(
        id="",
        recording_id=recording.id,
        start=row.start,
        duration=length if whole else min(end, length) - row.start,
        channel=channel,
        language=row.language,
        speaker=row.speaker,
    )


def _generated_id(row: Row, recording: Recording | Skipped) -> str:
    """Id from recording, channel and start in ms: ``call1-ch1-0012500`` for channel 1 from 12.5 s on."""
    channel = "" if row.channel is None else f"-ch{row.channel}"
    start = "" if row.start == 0 and row.duration is None else f"-{round(1000 * row.start):07d}"
    return f"{recording.id}{channel}{start}"


class _Names:
    """Names in use."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = DiskSet(taken)

    def unique(self, name: str) -> str:
        """Add and return ``name``, with -2, -3, … appended if it is in use."""
        candidate, number = name, 1
        while not self._taken.add(candidate):
            number += 1
            candidate = f"{name}-{number}"
        return candidate


def _renamed(recording: Recording | Skipped, id_: str) -> Recording | Skipped:
    return recording if recording.id == id_ else replace(recording, id=id_)
