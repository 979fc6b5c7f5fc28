"""Reader of tables of audio files and transcripts, the simplest format for your own corpus."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from summarymix.data.corpus.base import Corpus, Row, gather, name_of
from summarymix.data.corpus.recordings import AudioFindings, open_files
from summarymix.data.skipped import SkippedItems

NEEDED_COLUMNS = ("audio", "text")

AUDIO_SUFFIXES = {
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".oga",
    ".opus",
    ".aiff",
    ".au",
    ".sph",
    ".m4a",
    ".mp4",
    ".aac",
    ".wma",
}


def read_table(table: Path, audio_dir: Path) -> Iterator[Row]:
    """Read a ``.tsv``, ``.csv`` or ``.jsonl`` file, one utterance a line.

    Columns: audio (a path relative to ``audio_dir``), text, and optionally id, speaker, split, start and duration (in
    seconds; several rows may be parts of one long recording), channel (from 0), language. Other columns are
    ignored; an empty field counts as missing.

    Raises:
        ValueError: the suffix is unknown, the file is not UTF-8, a needed column is missing, or a number is malformed.
    """
    table = Path(table)
    for number, fields in _lines(table):
        where = f"{table}, line {number}"
        if None in fields:  # csv's key for surplus fields
            raise ValueError(f"{where}: more fields than columns: quote or remove separators in the text")
        for column in NEEDED_COLUMNS:
            if fields.get(column) is None:
                raise ValueError(f"{where}: no {column!r}. The columns are: {', '.join(map(str, fields))}")
        row = {column: str(value) for column, value in fields.items() if value not in (None, "")}
        try:
            start = float(row.get("start", 0))
            duration = float(row["duration"]) if "duration" in row else None
            channel = int(row["channel"]) if "channel" in row else None
        except ValueError as error:
            raise ValueError(f"{where}: {error}; start and duration are seconds, channel is 0, 1, …") from None
        yield Row(
            audio=os.path.join(audio_dir, row.get("audio", "")),
            text=row.get("text", ""),
            id=row.get("id"),
            speaker=row.get("speaker"),
            split=row.get("split"),
            start=start,
            duration=duration,
            channel=channel,
            language=row.get("language"),
        )


def read_table_corpus(
    table: Path, audio_dir: Path, num_jobs: int = 1, findings: AudioFindings | None = None, **options: Any
) -> Corpus:
    """Read the corpus in a table; ``options`` are passed to :func:`summarymix.data.corpus.base.gather`."""
    findings = findings or AudioFindings()
    rows = list(read_table(table, audio_dir))
    names = {row.audio: name_of(os.path.relpath(row.audio, audio_dir)) for row in rows}
    corpus = gather(rows, open_files(names, num_jobs, findings), findings=findings, **options)
    named = {os.path.realpath(path) for path in names}
    corpus.unnamed_audio = [
        path
        for path in sorted(Path(audio_dir).rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
        and os.path.realpath(path) not in named
        and findings.folder not in path.parents
    ]
    return corpus


def prepare_table(table: Path, audio_dir: Path, prefix: str, out_dir: Path, num_jobs: int = 1) -> SkippedItems:
    """Write ``{prefix}_recordings_{split}.jsonl.gz`` and ``{prefix}_supervisions_{split}.jsonl.gz`` for every split.

    Returns:
        The rows that were left out. They are also listed in ``{out_dir}/skipped-table.tsv``.

    Raises:
        ValueError: the table is malformed, or no row can be used.
    """
    corpus = read_table_corpus(table, audio_dir, num_jobs, AudioFindings(Path(out_dir) / "audio"))
    corpus.write(prefix, out_dir)
    return corpus.skipped


def _lines(table: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Number of each line and its fields by column."""
    if table.suffix not in (".tsv", ".csv", ".jsonl"):
        raise ValueError(f"{table}: unknown suffix; a table is a .tsv, .csv or .jsonl file")
    try:
        # utf-8-sig, because spreadsheets write a byte order mark.
        with open(table, encoding="utf-8-sig", newline="") as file:
            if table.suffix == ".jsonl":
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, _json_object(table, number, line)
                return
            tabs = table.suffix == ".tsv"
            # In a .tsv, quotation marks are ordinary characters.
            reader = csv.DictReader(
                file, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            )
            for fields in reader:
                yield reader.line_num, fields
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 ({error.reason}): convert it with iconv -f latin1 -t utf-8") from None


def _json_object(table: Path, number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{table}, line {number}: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{table}, line {number}: not an object of columns and values")
    return fields
