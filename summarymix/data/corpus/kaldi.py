"""Kaldi data folders (wav.scp, text and optionally segments, utt2spk, utt2lang).

lhotse's reader gives every recording the same sample rate and durations rounded down to milliseconds, and ends at the
first missing file; here recordings are as exact, and errors as harmless, as those of a table.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import Recording

from summarymix.data.corpus.base import Corpus, Row, command_in, gather, open_commands, open_files
from summarymix.data.skipped import Skipped


def read_kaldi_corpus(kaldi_dir: Path, audio_dir: Path, num_jobs: int = 1, **options: Any) -> Corpus:
    """The corpus of a Kaldi data folder, or of several beside each other, whose names are then those of the splits.

    Pipes in wav.scp (``sph2pipe … |``) stay commands: each is run once here to learn its length, and once for each
    of its utterances when features are computed.

    Args:
        kaldi_dir: a folder with a wav.scp, or a folder of such.
        audio_dir: what relative paths in wav.scp count from; commands are run there.
        num_jobs: files to open, or commands to run, at a time.
        options: those of :func:`summarymix.data.corpus.base.gather`.

    Raises:
        ValueError: there is no wav.scp, or a line of a file is malformed.
        FileNotFoundError: there is no text.
    """
    folders: dict[str | None, Path] = {None: kaldi_dir}
    if not (kaldi_dir / "wav.scp").is_file():
        folders = {path.parent.name: path.parent for path in sorted(kaldi_dir.glob("*/wav.scp"))}
    if not folders:
        raise ValueError(f"No wav.scp in {kaldi_dir} or the folders in it: is that a Kaldi data folder?")
    rows: list[Row] = []
    names: dict[str, str] = {}  # of recordings, by file or command
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
    recordings = open_files(files, num_jobs) | open_commands(commands, num_jobs) | missing
    corpus = gather(rows, recordings, **options)
    if commands:
        corpus.notes.append(
            f"{len(commands)} recordings are commands in wav.scp, run once for each utterance; where one is cut into "
            "many, files are faster"
        )
    return corpus


def _audio(value: str, audio_dir: Path) -> str:
    """The file or the command of a line in wav.scp."""
    if value.endswith("|"):
        return command_in(audio_dir, value[:-1].strip())
    return os.path.join(audio_dir, value)


def _rows(folder: Path, split: str | None) -> Iterator[Row]:
    """The utterances of a folder; ``audio`` is the name of a recording."""
    texts = dict(_pairs(folder / "text"))
    speakers, languages = (dict(_pairs(folder / name, optional=True)) for name in ("utt2spk", "utt2lang"))
    spans: dict[str, tuple[str, float, float | None]]
    if (folder / "segments").is_file():
        spans = {id_: _segment(folder / "segments", id_, value) for id_, value in _pairs(folder / "segments")}
    else:
        spans = {id_: (id_, 0.0, None) for id_, _ in _pairs(folder / "wav.scp")}
    # A transcript without a segment is looked for in wav.scp, and missed there.
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
    """The first word of each line, and the rest."""
    if optional and not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                key, _, value = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
                yield key, value.strip()
