"""A corpus: rows, as they are read, utterances, and lhotse manifests of its splits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lhotse import Recording, SupervisionSegment

from summarymix.data.corpus.on_disk import Database
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.cuts import NO_SPEECH
from summarymix.data.manifests import manifest_path, write_manifest
from summarymix.data.names import kind_of
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.data.transcripts import TextCase, normalize_text
from summarymix.files import atomic_write

_KINDS = ("train", "dev", "test")
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
    """None: the recording's only channel, or the one given to
    :func:`summarymix.data.corpus.gather.gather`."""
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
        return file_of(self.recording)


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


def file_of(recording: Recording | Skipped) -> str:
    """Audio file or command of a recording, for human-readable lists."""
    if isinstance(recording, Skipped):
        return recording.file
    return " ".join(str(source.source) for source in recording.sources)
