"""Kaldi data folders (wav.scp, text and optionally segments, utt2spk, utt2lang).

lhotse's reader gives every recording the same sample rate, rounds durations down to milliseconds, and stops at the
first missing file. This reader measures rates and durations exactly, and lists missing files as skipped.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import Recording

from summarymix.data.corpus.base import Corpus, Row, gather
from summarymix.data.corpus.recordings import AudioFindings, command_in, open_commands, open_files
from summarymix.data.skipped import Skipped


def read_kaldi_corpus(
    kaldi_dir: Path, audio_dir: Path, num_jobs: int = 1, findings: AudioFindings | None = None, **options: Any
) -> Corpus:
    """Read a Kaldi data folder, or a folder of several, whose names become the names of the splits.

    Pipes in wav.scp (``sph2pipe … |``) stay commands: each runs once here to measure its length, and once per
    utterance when features are computed.

    Args:
        kaldi_dir: folder with a wav.scp, or folder of such folders.
        audio_dir: base folder of relative paths in wav.scp; its commands run there.
        num_jobs: files to open, or commands to run, at a time.
        findings: gets the converted and the truncated recordings.
        options: passed to :func:`summarymix.data.corpus.base.gather`.

    Raises:
        ValueError: there is no wav.scp, or a line of a file is malformed.
        FileNotFoundError: there is no file named text.
    """
    folders: dict[str | None, Path] = {None: kaldi_dir}
    if not (kaldi_dir / "wav.scp").is_file():
        folders = {path.parent.name: path.parent for path in sorted(kaldi_dir.glob("*/wav.scp"))}
    if not folders:
        raise ValueError(f"No wav.scp in {kaldi_dir} or the folders in it: correct --kaldi-dir")
    rows: list[Row] = []
    names: dict[str, str] = {}  # recording names by file or command
    missing: dict[str, Recording | Skipped] = {}
    for split, folder in folders.items():
        audio = {name: _audio(value, audio_dir) for name, value in _pairs(folder / "wav.scp")}
        names |= {source: name for name, source in audio.items()}
        for row in _rows(folder, split):
            if row.audio not in audio:
                file = str(folder / "wav.scp")
                missing[row.audio] = Skipped(row.audio, file, "missing audio", "", "add the recording to wav.scp")
            rows.append(replace(row, audio=audio.get(row.audio, row.audio)))
    commands = {source: name for source, name in names.items() if source.startswith(command_in(audio_dir, ""))}
    files = {source: name for source, name in names.items() if source not in commands}
    findings = findings or AudioFindings()
    recordings = open_files(files, num_jobs, findings) | open_commands(commands, num_jobs, findings) | missing
    corpus = gather(rows, recordings, findings=findings, **options)
    if commands:
        corpus.notes.append(
            f"{len(commands)} recordings are commands in wav.scp, which run once per utterance; for recordings with "
            "many utterances, files are faster"
        )
    return corpus


def _audio(value: str, audio_dir: Path) -> str:
    """Path or shell command of a recording in wav.scp."""
    if value.endswith("|"):
        return command_in(audio_dir, value[:-1].strip())
    return os.path.join(audio_dir, value)


def _rows(folder: Path, split: str | None) -> Iterator[Row]:
    """Utterances of a folder, with the name of the recording as ``audio``."""
    texts = dict(_pairs(folder / "text"))
    speakers, languages = (dict(_pairs(folder / name, optional=True)) for name in ("utt2spk", "utt2lang"))
    spans: dict[str, tuple[str, float, float | None]]
    if (folder / "segments").is_file():
        spans = {id_: _segment(folder / "segments", id_, value) for id_, value in _pairs(folder / "segments")}
    else:
        spans = {id_: (id_, 0.0, None) for id_, _ in _pairs(folder / "wav.scp")}
    # A transcript without a segment is taken as a whole recording, and reported if wav.scp does not list it.
    for id_ in dict.fromkeys([*spans, *texts]):
        audio, start, duration = spans.get(id_, (id_, 0.0, None))
        yield Row(
            audio=audio,
            text=texts.get(id_, ""),
            id=id_,
            speaker=speakers.get(id_),
            split=split,
            start=start,
            duration=duration,
            language=languages.get(id_),
        )


def _segment(path: Path, id_: str, value: str) -> tuple[str, float, float | None]:
    try:
        recording, start, end = value.split()
        # -1 is the end of the recording
        return recording, float(start), None if float(end) < 0 else float(end) - float(start)
    except ValueError:
        raise ValueError(f"{path}, {id_}: {value!r} is not a recording, a start and an end in seconds") from None


def _pairs(path: Path, optional: bool = False) -> Iterator[tuple[str, str]]:
    """Key and value of each line: its first word and the rest."""
    if optional and not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                key, _, value = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
                yield key, value.strip()
