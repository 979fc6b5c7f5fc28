"""Check the utterances of a corpus and write lhotse manifests. Unusable utterances are listed, the rest is kept.

Readers (:mod:`summarymix.data.corpus.table`, ``kaldi``, ``lhotse_manifests``) turn a corpus into rows and recordings;
:func:`gather` checks them against each other and :meth:`Corpus.write` writes the manifests of every split.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lhotse import Recording, SupervisionSegment

from summarymix.data.audio_file import END_TOLERANCE
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, SkippedItems

TextCase = Literal["keep", "lower", "upper"]


@dataclass(frozen=True)
class Row:
    """One utterance as the corpus lists it, before its audio is opened."""

    audio: str
    """Key of its recording."""
    text: str
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


@dataclass
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


@dataclass
class Corpus:
    """Usable utterances of a corpus, skipped ones, and findings for the report."""

    utterances: list[Utterance]
    skipped: SkippedItems
    num_rows: int
    num_not_nfc: int = 0
    """Number of transcripts that were converted to Unicode's composed form (NFC)."""
    unnamed_audio: list[Path] = field(default_factory=list)
    """Audio files that no row names."""
    notes: list[str] = field(default_factory=list)
    """Decisions for the report, one sentence each."""
    audio: AudioFindings = field(default_factory=AudioFindings)

    def splits(self) -> dict[str, list[Utterance]]:
        """Utterances by split: first training splits, then dev splits, then all others."""
        found: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            found.setdefault(utterance.split, []).append(utterance)
        return dict(sorted(found.items(), key=lambda item: (["train", "dev", "test"].index(kind_of(item[0])), item[0])))

    def write(self, prefix: str, out_dir: Path) -> None:
        """Write ``{prefix}_{recordings,supervisions}_{split}.jsonl.gz`` for every split, and ``skipped-table.tsv``.

        If files were converted, they are listed in ``converted.tsv``.
        Manifests of splits that the corpus no longer has are removed.

        Raises:
            ValueError: no utterance can be used.
        """
        self.skipped.write(Path(out_dir) / "skipped-table.tsv")
        self.audio.write(Path(out_dir) / "converted.tsv")
        if not self.utterances:
            raise ValueError(
                f"none of {self.num_rows} utterances is usable; {self.skipped.summary()}; "
                f"see {out_dir}/skipped-table.tsv"
            )
        written = set()
        for split, utterances in self.splits().items():
            recordings = {utterance.recording.id: utterance.recording for utterance in utterances}
            supervisions = [utterance.supervision for utterance in utterances]
            for kind, items in (("recordings", recordings.values()), ("supervisions", supervisions)):
                path = Path(out_dir) / f"{prefix}_{kind}_{split}.jsonl.gz"
                write_manifest(items, path)
                written.add(path)
        for kind in ("recordings", "supervisions"):
            for path in Path(out_dir).glob(f"{prefix}_{kind}_*.jsonl.gz"):
                if path not in written:
                    path.unlink()


def kind_of(split: str) -> Literal["train", "dev", "test"]:
    """Kind of a split by its name: train…, dev… (or val…); every other name is test data."""
    if split.startswith("train"):
        return "train"
    return "dev" if split.startswith(("dev", "val")) else "test"


def gather(
    rows: Iterable[Row],
    recordings: Mapping[str, Recording | Skipped],
    channel: int | None = None,
    text_case: TextCase = "keep",
    findings: AudioFindings | None = None,
) -> Corpus:
    """Check rows against their recordings and each other.

    Args:
        rows: the utterances.
        recordings: recording, or its problem, by the rows' ``audio``. Duplicate ids get a number appended.
        channel: channel to use of multi-channel audio if the row gives none; if both are None, the row is left out.
        text_case: case of the transcripts, which are also converted to Unicode NFC with single spaces.
        findings: truncated and converted recordings.

    Raises:
        ValueError: a split's name cannot be part of a file name.
    """
    rows = list(rows)
    names = _Names()
    recordings = {key: _renamed(recording, names.unique(recording.id)) for key, recording in recordings.items()}
    names = _Names(row.id for row in rows if row.id)
    originals = findings.originals if findings else {}
    seen_ids: set[str] = set()
    seen_audio: dict[tuple[str, float, float | None, int | None], str] = {}
    corpus = Corpus([], SkippedItems(), len(rows), audio=findings or AudioFindings())
    for row in rows:
        split = row.split or "train"
        if not re.fullmatch(r"[\w.-]+", split):
            raise ValueError(f"The split name {split!r} is invalid: use letters, digits, dots, dashes and underscores")
        recording = recordings[row.audio]
        id_ = row.id or names.unique(_generated_id(row, recording))
        text = normalize_text(row.text, text_case)
        corpus.num_not_nfc += not unicodedata.is_normalized("NFC", row.text)
        audio = (row.audio, row.start, row.duration, row.channel)
        problem: tuple[str, str, str]
        if id_ in seen_ids:
            problem = ("duplicate id", "the first is kept", "give every utterance a unique id")
        elif not text:
            problem = ("empty transcript", "", "add the transcript")
        elif isinstance(recording, Skipped):
            problem = (recording.reason, recording.detail, recording.remedy)
        elif audio in seen_audio:
            problem = ("duplicate audio", f"the same as {seen_audio[audio]}", "keep one of the rows")
        elif row.duration is None and row.audio in corpus.audio.truncated:
            lengths = f"{recording.duration:.2f} of {corpus.audio.truncated[row.audio]:.2f} s"
            problem = ("truncated audio", lengths, "restore the file, or give start and duration of what is in it")
        elif isinstance(segment := _segment(row, recording, channel), tuple):
            problem = segment
        else:
            seen_ids.add(id_)
            seen_audio[audio] = id_
            corpus.utterances.append(Utterance(recording, replace(segment, id=id_, text=text), split))
            continue
        file = _file_of(recording)
        corpus.skipped.add(Skipped(id_, originals.get(file, file), *problem))
    return corpus


def normalize_text(text: str, case: TextCase) -> str:
    """Convert to Unicode NFC with single spaces and the given case."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return {"keep": text, "lower": text.lower(), "upper": text.upper()}[case]


def name_of(path: str | Path) -> str:
    """A readable id for a relative path: without its suffix, slashes replaced by dashes, spaces by underscores."""
    return re.sub(r"\s+", "_", "-".join(part for part in Path(path).with_suffix("").parts if part not in ("/", "..")))


def _segment(row: Row, recording: Recording, channel: int | None) -> SupervisionSegment | tuple[str, str, str]:
    """Supervision of a row, without id and text, or its problem: reason, detail and remedy."""
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
    """Set of names in use."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def unique(self, name: str) -> str:
        """Add and return ``name``, with -2, -3, … appended if it is in use."""
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}-{number}"
        self._taken.add(candidate)
        return candidate


def _renamed(recording: Recording | Skipped, id_: str) -> Recording | Skipped:
    return recording if recording.id == id_ else replace(recording, id=id_)


def _file_of(recording: Recording | Skipped) -> str:
    if isinstance(recording, Skipped):
        return recording.file
    return " ".join(str(source.source) for source in recording.sources)
