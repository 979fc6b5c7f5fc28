"""Kaldi data folders (wav.scp, text and optionally segments, utt2spk, utt2lang).

lhotse's reader gives every recording the same sample rate, rounds durations down to milliseconds, and stops at the
first missing file. This reader measures rates and durations exactly, and lists missing files as skipped.
"""

import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from summarymix.cli import say
from summarymix.data.corpus.base import Corpus, Row
from summarymix.data.corpus.commands import TIMEOUT
from summarymix.data.corpus.gather import gather, no_utterance
from summarymix.data.corpus.on_disk import DiskDict, DiskList, DiskSet
from summarymix.data.corpus.recordings import AudioFindings, command_in, open_commands, open_files
from summarymix.data.names import check_name, is_encodable, is_path, printable
from summarymix.data.skipped import Skipped
from summarymix.data.text_files import read_lines


def read_kaldi_corpus(
    kaldi_dir: Path,
    audio_dir: Path,
    findings: AudioFindings,
    num_jobs: int = 1,
    command_timeout: float = TIMEOUT,
    **options: Any,
) -> Corpus:
    """Read a Kaldi data folder, or a folder of several, whose names become the names of the splits.

    Keys and values are separated by spaces or tabs. Malformed lines are listed as skipped. Pipes in wav.scp
    (``sph2pipe … |``) stay commands: each runs once here to measure its length, and once per utterance when features
    are computed.

    Args:
        kaldi_dir: folder with a wav.scp, or folder of such folders.
        audio_dir: base folder of relative paths in wav.scp; its commands run there.
        findings: gets what is found about the recordings.
        num_jobs: files to open, or commands to run, at a time.
        command_timeout: seconds that a command may take.
        options: passed to :func:`summarymix.data.corpus.gather.gather`.

    Raises:
        ValueError: there is no wav.scp, the name of a folder cannot be the name of a split, or a file has another
            encoding.
        FileNotFoundError: there is no file named text.
    """

    def is_command(source: str) -> bool:
        return source.startswith(command_in(audio_dir, "")) and is_encodable(source)

    rows: DiskList[Row | Skipped] = DiskList()
    files: DiskDict[str] = DiskDict()  # recording names by file
    commands: DiskDict[str] = DiskDict()  # recording names by command
    missing: DiskDict[Skipped] = DiskDict()
    # Name and place of all recordings in wav.scp by their values there; several folders may list the same.
    places: DiskDict[tuple[str, str]] = DiskDict()
    used = DiskSet()  # values of those with an utterance
    for split, folder in _folders(kaldi_dir).items():
        scp = _Table(folder / "wav.scp")
        places.update((value, (name, scp.where(name))) for name, value in scp.values.items())
        for name, value in scp.values.items():
            source = _audio(value, audio_dir)
            if is_command(source):
                commands[source] = name
            elif is_path(source):
                files[source] = name
        for row in _rows(folder, split, scp, used):
            if isinstance(row, Row) and row.audio in scp.values:
                row = replace(row, audio=_audio(scp.values[row.audio], audio_dir))
            elif isinstance(row, Row):
                file = printable(folder / "wav.scp")
                missing[row.audio] = Skipped(row.audio, file, "missing audio", "", "add the recording to wav.scp")
            rows.append(row)
    for value, place in places.items():
        if value not in used:
            rows.append(no_utterance(*place))
    if commands:
        say(
            f"{len(commands)} recordings in wav.scp are commands. They run now, for at most {command_timeout:g} s each "
            f"(--command-timeout), such as: {printable(next(iter(commands)))}"
        )
    opened = open_commands(commands, findings, num_jobs, command_timeout)
    recordings = open_files(files, findings, num_jobs)
    recordings.update(itertools.chain(opened.items(), missing.items()))
    corpus = gather(rows, recordings, findings, **options)
    if commands:
        corpus.notes.append(
            f"{len(commands)} recordings are commands in wav.scp, which run once per utterance; for recordings with "
            "many utterances, files are faster"
        )
    return corpus


def _folders(kaldi_dir: Path) -> dict[str | None, Path]:
    """Data folders by split: ``kaldi_dir`` itself, whose split is None, or those in it.

    Raises:
        ValueError: there is none, or its name cannot be the name of a split.
    """
    if (kaldi_dir / "wav.scp").is_file():
        return {None: kaldi_dir}
    folders: dict[str | None, Path] = {}
    for path in sorted(kaldi_dir.glob("*/wav.scp")):
        check_name(path.parent.name, f"{printable(path.parent)}: the split")
        folders[path.parent.name] = path.parent
    if not folders:
        raise ValueError(f"No wav.scp in {kaldi_dir} or the folders in it: correct --kaldi-dir")
    return folders


def _audio(value: str, audio_dir: Path) -> str:
    """Path or shell command of a recording in wav.scp."""
    if value.endswith("|"):
        return command_in(audio_dir, value[:-1].strip())
    return os.path.join(audio_dir, value)


def _rows(folder: Path, split: str | None, scp: "_Table", used: DiskSet) -> Iterator[Row | Skipped]:
    """Utterances of a folder, with the name of the recording as ``audio``, and lines that cannot be used. The
    recordings of both are added to ``used``, by their values in wav.scp.
    """
    texts = _Table(folder / "text")
    speakers, languages = (_Table(folder / name, optional=True) for name in ("utt2spk", "utt2lang"))
    segments = _Table(folder / "segments", optional=True)
    yield from (line for table in (scp, segments, texts, speakers, languages) for line in table.unusable)
    # Kaldi's convention for unknown speakers
    unknown = all(id_ == speaker for id_, speaker in speakers.values.items())
    malformed: set[str] = set()
    spans: DiskDict[tuple[str, float, float | None]] = DiskDict()
    if not (folder / "segments").is_file():
        spans.update((id_, (id_, 0.0, None)) for id_ in scp.values)
    else:
        for id_, value in segments.values.items():
            if (span := _span(value)) is None:
                malformed.add(id_)
                used.add(scp.values.get("".join(value.split()[:1])))
                remedy = "give a recording, a start and an end in seconds"
                yield Skipped(id_, segments.where(id_), "malformed segment", repr(value), remedy)
            else:
                spans[id_] = span
    # A transcript without a segment is taken as a whole recording, and reported if wav.scp does not list it.
    for id_ in itertools.chain(spans, (id_ for id_ in texts.values if id_ not in spans)):
        if id_ in malformed:
            continue
        audio, start, duration = spans.get(id_, (id_, 0.0, None))
        used.add(scp.values.get(audio))
        yield Row(
            audio=audio,
            text=texts.values.get(id_),
            id=id_,
            speaker=None if unknown else speakers.values.get(id_),
            split=split,
            start=start,
            duration=duration,
            language=languages.values.get(id_),
            where=texts.where(id_) or segments.where(id_) or scp.where(id_),
        )


def _span(value: str) -> tuple[str, float, float | None] | None:
    """Recording, start and duration of a line of segments; None if it is malformed."""
    try:
        recording, start, end = value.split()
        times = float(start), float(end)
    except ValueError:
        return None
    if not all(map(math.isfinite, times)):
        return None
    # -1 is the end of the recording
    return recording, times[0], None if times[1] < 0 else times[1] - times[0]


class _Table:
    """A Kaldi file, with a key and a value on each line.

    Raises:
        FileNotFoundError: the file does not exist and is not ``optional``.
        ValueError: it has another encoding.
    """

    def __init__(self, path: Path, optional: bool = False) -> None:
        self.values: DiskDict[str] = DiskDict()
        self.unusable: list[Skipped] = []
        self._path = printable(path)
        self._numbers: DiskDict[int] = DiskDict()
        if optional and not path.is_file():
            return
        for number, line in read_lines(path):
            key, *value = re.split("[ \t]+", line.strip(" \t"), maxsplit=1)
            if key in self.values:
                remedy = "give every line of the file its own key"
                where = f"{self._path}, line {number}"
                self.unusable.append(Skipped(key, where, "duplicate key", "the first is kept", remedy))
            elif key:
                self.values[key] = "".join(value)
                self._numbers[key] = number

    def where(self, key: str) -> str:
        """File and line of a key; empty if there is none."""
        return f"{self._path}, line {self._numbers[key]}" if key in self._numbers else ""
