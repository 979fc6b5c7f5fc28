"""Reader of tables of audio files and transcripts, the simplest format for your own corpus."""

import csv
import json
import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from summarymix.data.corpus.base import Corpus, Row
from summarymix.data.corpus.gather import gather, name_of
from summarymix.data.corpus.on_disk import DiskDict
from summarymix.data.corpus.recordings import AudioFindings, open_files, unnamed_audio
from summarymix.data.names import is_path, printable
from summarymix.data.skipped import Skipped
from summarymix.data.text_files import read_lines

NEEDED_COLUMNS = ("audio", "text")
NUMBERS = ("start", "duration", "channel")
COLUMNS = (*NEEDED_COLUMNS, "id", "speaker", "split", *NUMBERS, "language")
# A longer line is no utterance: its quotation marks or its line end are lost.
MAX_LINE = 1 << 17
# A field with more line breaks lacks its closing quotation mark.
MAX_LINES = 100
# A quoted field of a .tsv without its closing quotation mark.
_OPEN_FIELD = r'"(?:[^"]|"")*'


@dataclass(frozen=True)
class _Rows:
    """The rows of a table, which each iteration reads again, because those of a large corpus take much memory."""

    table: Path
    audio_dir: Path
    ignored: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Row | Skipped]:
        return read_table(self.table, self.audio_dir, self.ignored)


class _Malformed(Exception):
    """A line that is no utterance."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem, self.remedy = problem, remedy


def read_table(table: Path, audio_dir: Path, ignored: set[str] | None = None) -> Iterator[Row | Skipped]:
    """Read a ``.tsv``, ``.csv`` or ``.jsonl`` file, one utterance a line.

    Columns: audio (a path relative to ``audio_dir``), text, and optionally id, speaker, split, start and duration (in
    seconds; several rows may be parts of one long recording), channel (from 0), language. Other columns are
    ignored, but not ``Split`` for ``split``, or ``end`` beside ``start``. An empty field counts as missing.

    Args:
        table: the file.
        audio_dir: base folder of relative paths.
        ignored: gets the names of the other columns.

    Yields:
        A row, or the reason why there is none, for each line that is not empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is unknown, the encoding is another one, or the header lacks a needed column.
    """
    table = Path(table)
    if table.suffix not in (".tsv", ".csv", ".jsonl"):
        raise ValueError(f"{table}: unknown suffix; a table is a .tsv, .csv or .jsonl file")
    ignored = set() if ignored is None else ignored
    lines = ((number, line) for number, line in read_lines(table) if line.strip())
    columns: list[str] = []
    if table.suffix != ".jsonl":
        for number, line in lines:
            try:
                columns = _header(_fields(line, table.suffix), table.suffix)
                ignored |= _other_columns({*columns})
            except _Malformed as error:
                raise ValueError(f"{printable(table)}, line {number}: {error}") from None
            break
    for record in _records(lines, table.suffix, len(columns)):
        for number, line in record:
            where, id_ = f"{printable(table)}, line {number}", ""
            try:
                if len(record) > 1:
                    raise _Malformed("a line break in a field", "write each utterance on one line")
                if table.suffix == ".jsonl":
                    fields = _json_object(line)
                    ignored |= _other_columns(fields.keys())
                else:
                    fields = _by_column(columns, _fields(line, table.suffix, len(columns)))
                id_ = str(fields.get("id") or "")
                yield _row(fields, audio_dir, where)
            except _Malformed as error:
                yield Skipped(id_ or f"line {number}", where, "malformed row", error.problem, error.remedy)


def _records(lines: Iterator[tuple[int, str]], suffix: str, num_columns: int) -> Iterator[list[tuple[int, str]]]:
    """Group numbered lines into records: the lines of an utterance with line breaks in quoted fields, or one line.

    A quotation mark that opens a field which no line closes within MAX_LINES and MAX_LINE spoils no other line.
    """
    ahead: deque[tuple[int, str]] = deque()

    def following() -> tuple[int, str] | None:
        return ahead.popleft() if ahead else next(lines, None)

    while line := following():
        record, text = [line], line[1]
        is_whole = _is_whole(text, suffix, num_columns)
        while is_whole is None and len(record) < MAX_LINES and len(text) <= MAX_LINE and (line := following()):
            record.append(line)
            text += "\n" + line[1]
            if '"' in line[1]:
                is_whole = _is_whole(text, suffix, num_columns)
        if not is_whole:
            ahead.extendleft(reversed(record[1:]))
            del record[1:]
        yield record


def _is_whole(text: str, suffix: str, num_columns: int) -> bool | None:
    """True if ``text`` is a record, None if it lacks the end of a quoted field, False if it cannot be a record."""
    if suffix == ".jsonl":
        return True
    if len(text) > MAX_LINE:
        return False
    if suffix == ".tsv":
        fields = text.split("\t")
        is_open = bool(re.fullmatch(_OPEN_FIELD, fields[-1]))
        broken = [field for field in fields[: len(fields) - is_open] if "\n" in field]
        if len(fields) > num_columns or not all(re.fullmatch(_OPEN_FIELD + '"', field) for field in broken):
            return False
        return None if is_open else True
    try:
        return len(_csv_fields(text)) <= num_columns
    except csv.Error:
        try:
            _csv_fields(text + '"')
        except csv.Error:
            return False
        return None


def _header(columns: list[str], suffix: str) -> list[str]:
    columns = [column.strip() for column in columns]
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise _Malformed(f"{columns.count(column)} columns are named {column}", "rename all but one")
        if column in NEEDED_COLUMNS and column not in columns:
            names, separator = ", ".join(columns), "tabs" if suffix == ".tsv" else "commas"
            remedy = f"name the columns in the first line, separated by {separator}"
            raise _Malformed(f"no {column!r}. The columns are: {names:.500}", remedy)
    return columns


def _other_columns(columns: Set[str]) -> Set[str]:
    """Columns that are ignored.

    Raises:
        _Malformed: one has nearly the name of a column that is read, or says when an utterance ends.
    """
    others = columns - {*COLUMNS}
    for column in others:
        if (known := column.strip().lower()) in COLUMNS:
            raise _Malformed(f"a column is named {column!r}", f"name it {known}")
        if known == "end" and "start" in columns:
            raise _Malformed(f"there is a column {column!r}", "give the duration, end - start, instead")
    return others


def _fields(line: str, suffix: str, num_columns: int | None = None) -> list[str]:
    """Fields of a line. Every line is read alone, so that an unbalanced quotation mark spoils no other row."""
    _check_length(line)
    if suffix == ".tsv":
        return _tsv_fields(line, num_columns)
    try:
        return _csv_fields(line)
    except csv.Error as error:
        raise _Malformed(
            f"unbalanced quotation marks, or a line break in a field ({error})",
            'write each utterance on one line, and double the quotation marks in quoted fields ("")',
        ) from None


def _csv_fields(text: str) -> list[str]:
    (values,) = csv.reader([text], strict=True)
    return values


def _tsv_fields(line: str, num_columns: int | None) -> list[str]:
    """Fields of a line of a .tsv, in which quotation marks are ordinary characters, or quote as spreadsheets do.

    A spreadsheet quotes a field with a tab, a comma or a quotation mark, which it doubles.
    """
    fields = line.split("\t")
    if num_columns is not None and len(fields) > num_columns:
        fields = [match[1] for match in re.finditer(r'(?:^|\t)("(?:[^"]|"")*"(?=\t|$)|[^\t]*)', line)]
    return [
        field[1:-1].replace('""', '"') if re.fullmatch(r'"(?=.*(""|[\t,]))(?:[^"]|"")*"', field) else field
        for field in fields
    ]


def _check_length(line: str) -> None:
    if len(line) > MAX_LINE:
        raise _Malformed(f"{len(line)} characters", "end each utterance with a line break, and balance quotation marks")


def _by_column(columns: list[str], values: list[str]) -> dict[str, Any]:
    if len(values) > len(columns):
        raise _Malformed(
            f"{len(values)} fields for {len(columns)} columns", "quote or remove separators within the text"
        )
    if missing := [column for column in columns[len(values) :] if column in NEEDED_COLUMNS]:
        raise _Malformed(f"{len(values)} fields, no {' and '.join(missing)}", "complete the row")
    return dict(zip(columns, values, strict=False))


def _json_object(line: str) -> dict[str, Any]:
    _check_length(line)
    try:
        fields = json.loads(line)
    # ValueError: also for a number of thousands of digits
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"no JSON ({error})", "correct the line") from None
    if not isinstance(fields, dict):
        raise _Malformed("not an object of columns and values", "write one JSON object a line")
    return fields


def _row(fields: Mapping[str, Any], audio_dir: Path, where: str) -> Row:
    row = {column: text for column in COLUMNS if (text := _text(column, fields.get(column)))}
    if "audio" not in row:
        raise _Malformed("no audio", "name the audio file in the column audio")
    channel = _number(row, "channel")
    if channel is not None and channel != int(channel):
        raise _Malformed(f"channel is {channel:g}", "channels are 0, 1, …")
    return Row(
        audio=os.path.join(audio_dir, row["audio"]),
        text=None if _is_missing("text", fields.get("text")) else row.get("text", ""),
        id=row.get("id"),
        speaker=row.get("speaker"),
        split=row.get("split"),
        start=_number(row, "start") or 0.0,
        duration=_number(row, "duration"),
        channel=None if channel is None else int(channel),
        language=row.get("language"),
        where=where,
    )


def _text(column: str, value: Any) -> str:
    """A field as text; empty if it is missing."""
    if isinstance(value, bool | list | dict):
        raise _Malformed(f"{column} is {json.dumps(value):.80}", "give it as a string or a number")
    return "" if _is_missing(column, value) else str(value)


def _is_missing(column: str, value: Any) -> bool:
    """True for a field without a value, which JSON writes as null and some programs as NaN."""
    return value is None or (value != value and column not in NUMBERS)


def _number(row: Mapping[str, str], column: str) -> float | None:
    if column not in row:
        return None
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Malformed(f"{column} is {row[column]!a:.80}", "start and duration are seconds, channel is 0, 1, …")
    return value


def read_table_corpus(
    table: Path, audio_dir: Path, findings: AudioFindings, num_jobs: int = 1, **options: Any
) -> Corpus:
    """Read the corpus in a table; ``options`` are passed to :func:`summarymix.data.corpus.gather.gather`."""
    rows = _Rows(table, audio_dir)
    names: DiskDict[str] = DiskDict()
    for row in rows:
        if isinstance(row, Row) and row.audio not in names and is_path(row.audio):
            names[row.audio] = name_of(os.path.relpath(row.audio, audio_dir))
    corpus = gather(rows, open_files(names, findings, num_jobs), findings, **options)
    if rows.ignored:
        ignored = printable(", ".join(sorted(rows.ignored)))
        corpus.notes.append(f"these columns of the table are not used: {ignored:.500}")
    corpus.unnamed_audio = unnamed_audio(audio_dir, names, findings)
    return corpus
