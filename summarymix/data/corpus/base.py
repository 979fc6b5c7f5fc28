"""From the utterances that a corpus names to lhotse manifests. What cannot be used is listed, the rest is kept.

Readers (:mod:`summarymix.data.corpus.table`, ``kaldi``, ``lhotse_manifests``) turn a corpus into rows and recordings;
:func:`gather` checks them against each other and :meth:`Corpus.write` makes the manifests of every split.
"""

import io
import re
import shlex
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import soundfile
from lhotse import AudioSource, Recording, SupervisionSegment

from summarymix.data.audio import END_TOLERANCE
from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, SkippedItems

TextCase = Literal["keep", "lower", "upper"]


@dataclass(frozen=True)
class Row:
    """One utterance as the corpus names it; nothing has been opened yet."""

    audio: str
    """Key of its recording."""
    text: str
    id: str | None = None
    """None: one is made from the recording's name."""
    speaker: str | None = None
    split: str | None = None
    """None: training data, of which dev and test may be taken."""
    start: float = 0.0
    """Seconds from the recording's beginning."""
    duration: float | None = None
    """Seconds; None: to the recording's end."""
    channel: int | None = None
    """None: the only one there is."""
    language: str | None = None


@dataclass
class Utterance:
    """One utterance that can be used."""

    recording: Recording
    supervision: SupervisionSegment
    split: str

    @property
    def seconds(self) -> float:
        return self.supervision.duration

    @property
    def file(self) -> str:
        """The audio file or command, for lists that a person reads."""
        return _file_of(self.recording)


@dataclass
class Corpus:
    """The utterances of a corpus, and what was found out about it on the way."""

    utterances: list[Utterance]
    skipped: SkippedItems
    num_rows: int
    num_not_nfc: int = 0
    """Transcripts that were not in Unicode's composed form (NFC), and are now."""
    unnamed_audio: list[Path] = field(default_factory=list)
    """Audio files beside those that are used."""
    notes: list[str] = field(default_factory=list)
    """What was decided, a sentence each."""

    def splits(self) -> dict[str, list[Utterance]]:
        """The utterances by split: training splits, dev splits, all others."""
        found: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            found.setdefault(utterance.split, []).append(utterance)
        return dict(sorted(found.items(), key=lambda item: (["train", "dev", "test"].index(kind_of(item[0])), item[0])))

    def write(self, prefix: str, out_dir: Path) -> None:
        """Write ``{prefix}_{recordings,supervisions}_{split}.jsonl.gz`` of every split and ``skipped-table.tsv``.

        Manifests of splits that the corpus no longer has are removed.

        Raises:
            ValueError: there is no utterance.
        """
        self.skipped.write(Path(out_dir) / "skipped-table.tsv")
        if not self.utterances:
            raise ValueError(
                f"no utterance of {self.num_rows} is left; {self.skipped.summary()}; see {out_dir}/skipped-table.tsv"
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
    """What a split is for, by its name: train…, dev… or val…, and everything else is decoded as test data."""
    if split.startswith("train"):
        return "train"
    return "dev" if split.startswith(("dev", "val")) else "test"


def gather(
    rows: Iterable[Row],
    recordings: Mapping[str, Recording | Skipped],
    channel: int | None = None,
    text_case: TextCase = "keep",
) -> Corpus:
    """Check rows against their recordings and each other.

    Args:
        rows: the utterances.
        recordings: by the rows' ``audio``; a :class:`Skipped` says what is wrong with it. Their ids become unique by
            a number behind them where necessary.
        channel: which one to take of audio with several, where the row does not say; without it such rows are left out.
        text_case: of the transcripts; in any case they are brought into Unicode's NFC, with single spaces.

    Raises:
        ValueError: the name of a split cannot be part of a file's name.
    """
    rows = list(rows)
    names = _Names()
    recordings = {key: _renamed(recording, names.unique(recording.id)) for key, recording in recordings.items()}
    names = _Names(row.id for row in rows if row.id)
    seen_ids: set[str] = set()
    seen_audio: dict[tuple[str, float, float | None, int | None], str] = {}
    corpus = Corpus([], SkippedItems(), len(rows))
    for row in rows:
        split = row.split or "train"
        if not re.fullmatch(r"[\w.-]+", split):
            raise ValueError(f"The split {split!r} is not made of letters, digits, dots, dashes and underscores")
        recording = recordings[row.audio]
        id_ = row.id or names.unique(_generated_id(row, recording))
        text = normalize_text(row.text, text_case)
        corpus.num_not_nfc += not unicodedata.is_normalized("NFC", row.text)
        audio = (row.audio, row.start, row.duration, row.channel)
        problem: tuple[str, str, str]
        if id_ in seen_ids:
            problem = ("duplicate id", "the first is kept", "give every utterance an id of its own")
        elif not text:
            problem = ("empty transcript", "", "add the transcript")
        elif isinstance(recording, Skipped):
            problem = (recording.reason, recording.detail, recording.remedy)
        elif audio in seen_audio:
            problem = ("duplicate audio", f"the same as {seen_audio[audio]}", "keep one of the rows")
        elif isinstance(segment := _segment(row, recording, channel), tuple):
            problem = segment
        else:
            seen_ids.add(id_)
            seen_audio[audio] = id_
            corpus.utterances.append(Utterance(recording, replace(segment, id=id_, text=text), split))
            continue
        corpus.skipped.add(Skipped(id_, _file_of(recording), *problem))
    return corpus


def normalize_text(text: str, case: TextCase) -> str:
    """Unicode NFC, single spaces, and the letters' case."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return {"keep": text, "lower": text.lower(), "upper": text.upper()}[case]


def open_files(paths: Mapping[str, str], num_jobs: int = 1) -> dict[str, Recording | Skipped]:
    """Read the headers of audio files: the path of each to its recording, or to what is wrong with it.

    Args:
        paths: the name of each recording by its path.
        num_jobs: files to open at a time.
    """
    return _open_all(paths, _open_file, num_jobs)


def open_commands(commands: Mapping[str, str], num_jobs: int = 1) -> dict[str, Recording | Skipped]:
    """Run commands that print an audio file, such as ``sph2pipe -f wav -p -c 1 x.sph``, to learn its length.

    Args:
        commands: the name of each recording by its command.
        num_jobs: commands to run at a time.
    """
    return _open_all(commands, _open_command, num_jobs)


def command_in(folder: Path, command: str) -> str:
    """The shell command that runs ``command`` in ``folder``."""
    return f"cd {shlex.quote(str(folder))} && {command}"


def name_of(path: str | Path) -> str:
    """A readable id for a relative path: without its suffix, slashes replaced by dashes, spaces by underscores."""
    return re.sub(r"\s+", "_", "-".join(part for part in Path(path).with_suffix("").parts if part not in ("/", "..")))


def _open_all(
    names: Mapping[str, str], open_one: Callable[[str, str], Recording | Skipped], num_jobs: int
) -> dict[str, Recording | Skipped]:
    # Only headers are read, or other programs run, so threads do.
    with ThreadPoolExecutor(num_jobs) as executor:
        return dict(zip(names, executor.map(open_one, names, names.values()), strict=True))


def _open_file(path: str, name: str) -> Recording | Skipped:
    if not Path(path).is_file():
        return Skipped(name, path, "missing audio", "", "restore the file, or correct its path")
    try:
        info = soundfile.info(path)
    # soundfile.SoundFileError is a RuntimeError
    except (OSError, RuntimeError) as error:
        return Skipped(
            name, path, "unreadable audio", f"{error}", "restore the file, or convert it: ffmpeg -i IN OUT.flac"
        )
    if info.frames == 0:
        return Skipped(name, path, "unreadable audio", "no samples", "restore the file")
    source = AudioSource("file", list(range(info.channels)), path)
    return Recording(name, [source], info.samplerate, info.frames, info.frames / info.samplerate)


def _open_command(command: str, name: str) -> Recording | Skipped:
    remedy = "run the command by hand to see what fails"
    done = subprocess.run(command, shell=True, capture_output=True)
    if done.returncode != 0:
        detail = f"exit status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
        return Skipped(name, command, "unreadable audio", detail, remedy)
    try:
        samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)  # (n, channels)
    except RuntimeError as error:
        return Skipped(name, command, "unreadable audio", f"{error}", remedy)
    num_samples, num_channels = samples.shape
    if num_samples == 0:
        return Skipped(name, command, "unreadable audio", "no samples", remedy)
    source = AudioSource("command", list(range(num_channels)), command)
    return Recording(name, [source], rate, num_samples, num_samples / rate)


def _segment(row: Row, recording: Recording, channel: int | None) -> SupervisionSegment | tuple[str, str, str]:
    """The part of the recording that a row means, or what is wrong with it."""
    channels = recording.channel_ids
    if row.channel is not None:
        channel = row.channel
    elif len(channels) == 1:
        channel = channels[0]
    if channel is None:
        return (
            "several channels",
            f"channels {', '.join(map(str, channels))}",
            "name the one in a column channel (a row for each, if a speaker has a channel), or give --channel",
        )
    if channel not in channels:
        return ("no such channel", f"{channel} of {', '.join(map(str, channels))}", "correct the channel")
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
    """The recording's name, and where in it: ``call1-ch1-0012500`` for channel 1 from 12.5 s on."""
    channel = "" if row.channel is None else f"-ch{row.channel}"
    start = "" if row.start == 0 and row.duration is None else f"-{round(1000 * row.start):07d}"
    return f"{recording.id}{channel}{start}"


class _Names:
    """Names that are taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def unique(self, name: str) -> str:
        """``name``, or with -2, -3, … behind it if that is taken; it is taken then."""
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
