"""Check the utterances of a corpus and write lhotse manifests. Unusable utterances are listed, the rest is kept.

Readers (:mod:`summarymix.data.corpus.table`, ``kaldi``, ``lhotse_manifests``) turn a corpus into rows and recordings;
:func:`gather` checks them against each other and :meth:`Corpus.write` writes the manifests of every split.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lhotse import Recording, SupervisionSegment

from summarymix.data.audio_file import END_TOLERANCE
from summarymix.data.corpus.on_disk import Database, DiskDict, DiskSet
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.cuts import IF_NO_SPEECH, NO_SPEECH
from summarymix.data.manifests import manifest_path, write_manifest
from summarymix.data.names import NAME_RULE, is_encodable, is_id, is_name, kind_of, printable
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.data.transcripts import Punctuation, TextCase, normalize_text
from summarymix.files import atomic_write

Problem = tuple[str, str, str]
"""Reason, detail and remedy of an utterance that is left out."""

_KINDS = ("train", "dev", "test")
_MIN_SECONDS = 0.01  # a feature frame
_FIELDS = ("id", "recording_id", "start", "duration", "channel", "text", "language", "speaker")


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance as the corpus lists it, before its audio is opened."""

    audio: str
    """Key of its recording."""
    text: str | None
    """None: the corpus has no transcript, not even an empty one."""
    id: str | None = None
    """None: the id is made from the recording's name."""
    speaker: str | None = None
    split: str | None = None
    """None: training data, from which dev and test may be taken."""
    start: float = 0.0
    """Seconds from the recording's beginning."""
    duration: float | None = None
    """Seconds; None: to the recording's end."""
    channel: int | None = None
    """None: the recording's only channel, or the one given to :func:`gather`."""
    language: str | None = None
    where: str = field(default="", compare=False)
    """File and line, for human-readable lists."""


@dataclass(slots=True)
class Utterance:
    """One usable utterance."""

    recording: Recording
    supervision: SupervisionSegment
    split: str

    @property
    def seconds(self) -> float:
        return self.supervision.duration

    @property
    def file(self) -> str:
        """Audio file or command, for human-readable lists."""
        return _file_of(self.recording)


class Utterances:
    """The utterances of a corpus, or of some of its splits. They are on disk, and each access reads them from there.

    Args:
        recordings: recordings by the ``audio`` of rows.
    """

    def __init__(self, recordings: Mapping[str, Recording | Skipped]) -> None:
        self._recordings = recordings
        self._splits: Sequence[str] | None = None
        # Without types, so that numbers come back as what they were. A span is the hash of a place in the audio.
        self.database = Database(f"""
            CREATE TABLE utterances (number INTEGER PRIMARY KEY, span, split, audio, {", ".join(_FIELDS)}, no_speech);
            CREATE INDEX by_span ON utterances (span);
            CREATE INDEX by_id ON utterances (id);
            CREATE INDEX by_split ON utterances (split);
        """)

    def append(self, row: Row, supervision: SupervisionSegment, split: str, span: int) -> None:
        """Add the utterance of a row; ``span`` is the hash of its place in the audio."""
        values = [getattr(supervision, name) for name in _FIELDS]
        self.database.execute(
            f"INSERT INTO utterances VALUES (NULL, {', '.join('?' * (len(values) + 4))})",
            (span, split, row.audio, *values, supervision.custom is not None),
        )

    def of(self, splits: Sequence[str]) -> "Utterances":
        """The utterances of these splits, one split after the other."""
        part = copy(self)
        part._splits = splits
        return part

    def columns(self, names: str, rest: str = "ORDER BY number") -> Iterator[tuple[Any, ...]]:
        """Iterate over columns of the table, of all utterances, or of each split.

        Args:
            names: the columns, such as ``split``, ``id``, ``recording_id``, ``duration``, ``text`` and ``speaker``.
            rest: end of the SQL statement.
        """
        if self._splits is None:
            yield from self.database.execute(f"SELECT {names} FROM utterances {rest}")
        for split in self._splits or ():
            yield from self.database.execute(f"SELECT {names} FROM utterances WHERE split = ? {rest}", (split,))

    def __len__(self) -> int:
        return sum(number for (number,) in self.columns("count(*)", ""))

    def __iter__(self) -> Iterator[Utterance]:
        for (audio, split), supervision in zip(self.columns("audio, split"), self.supervisions(), strict=True):
            yield Utterance(self._recording(audio), supervision, split)

    def __getitem__(self, number: int) -> Utterance:
        return next(islice(self, number, None))

    @property
    def seconds(self) -> float:
        """Their duration together."""
        return sum(seconds for (seconds,) in self.columns("duration"))

    def speakers(self) -> set[str]:
        """Names of their speakers, where these are known."""
        return {speaker for (speaker,) in self.columns("DISTINCT speaker", "") if speaker}

    def supervisions(self) -> Iterator[SupervisionSegment]:
        """Iterate over their supervisions alone."""
        for no_speech, *values in self.columns(f"no_speech, {', '.join(_FIELDS)}"):
            custom = NO_SPEECH if no_speech else None
            yield SupervisionSegment(**dict(zip(_FIELDS, values, strict=True)), custom=custom)

    def recordings(self) -> Iterator[Recording]:
        """Iterate over the recordings of one split in the order of the utterances."""
        for (audio,) in self.columns("audio", "GROUP BY audio ORDER BY min(number)"):
            yield self._recording(audio)

    def _recording(self, audio: str) -> Recording:
        recording = self._recordings[audio]
        assert isinstance(recording, Recording)
        return recording


@dataclass
class PunctuationFindings:
    """Transcripts with punctuation, which is kept or removed."""

    removed: bool = False
    count: int = 0
    example: tuple[str, str] = ("", "")
    """The first of them, with and without punctuation."""
    brackets: dict[str, None] = field(default_factory=dict)
    """Words in square, curly or angle brackets, in order, such as [noise]."""

    def add(self, text: str, case: TextCase) -> None:
        """Add a transcript, in its form with punctuation, of a corpus with this case."""
        bare = normalize_text(text, case, "remove")
        if bare != text:
            self.count += 1
            self.example = self.example if self.example[0] else (text, bare)
            self.brackets |= dict.fromkeys(re.findall(r"\[[^]\s]+\]|\{[^}\s]+\}|<[^>\s]+>", text))


@dataclass
class Corpus:
    """Usable utterances of a corpus, skipped ones, and findings for the report."""

    utterances: Utterances
    skipped: SkippedItems
    num_rows: int
    audio: AudioFindings
    num_not_nfc: int = 0
    """Number of transcripts that were converted to Unicode's composed form (NFC)."""
    punctuation: PunctuationFindings = field(default_factory=PunctuationFindings)
    unnamed_audio: list[Path] = field(default_factory=list)
    """Audio files that no row names."""
    notes: list[str] = field(default_factory=list)
    """Decisions for the report, one sentence each."""

    def splits(self) -> dict[str, Utterances]:
        """Utterances by split: first training splits, then dev splits, then all others."""
        names = [split for (split,) in self.utterances.columns("DISTINCT split", "")]
        names.sort(key=lambda split: (_KINDS.index(kind_of(split)), split))
        return {split: self.utterances.of([split]) for split in names}

    def write(self, prefix: str, out_dir: Path) -> None:
        """Write ``{prefix}_{recordings,supervisions}_{split}.jsonl.gz`` for every split, and
        ``skipped-{prefix}-table.tsv``.

        If files were converted, they are listed in ``converted-{prefix}.tsv``.
        Manifests that an earlier call wrote, of splits that the corpus no longer has, are removed.

        Raises:
            ValueError: no utterance can be used.
        """
        out_dir = Path(out_dir)
        self.skipped.write(skipped := skipped_path(out_dir, prefix))
        self.audio.write(out_dir / f"converted-{prefix}.tsv")
        if not self.utterances:
            first = next((f"; the first: {item}" for item in self.skipped.items), "")
            raise ValueError(
                f"none of {self.num_rows} utterances is usable; {self.skipped.summary()}; see {skipped}{first}"
            )
        listing = out_dir / f".{prefix}-manifests.txt"
        before = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
        written: list[str] = []
        for split, utterances in self.splits().items():
            manifests = (("recordings", utterances.recordings()), ("supervisions", utterances.supervisions()))
            for kind, items in manifests:
                path = manifest_path(out_dir, prefix, kind, split)
                write_manifest(items, path)
                written.append(path.name)
        for name in before:
            if name not in written and Path(name).name == name:
                (out_dir / name).unlink(missing_ok=True)
        with atomic_write(listing) as file:
            file.writelines(f"{name}\n" for name in written)


def skipped_path(out_dir: Path, prefix: str) -> Path:
    """List of the utterances of a corpus that are left out."""
    return out_dir / f"skipped-{prefix}-table.tsv"


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
        file = _file_of(recording)
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


def _file_of(recording: Recording | Skipped) -> str:
    if isinstance(recording, Skipped):
        return recording.file
    return " ".join(str(source.source) for source in recording.sources)
