import json
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet, SupervisionSet
from tables import prepare_table

from summarymix.data.corpus.base import Row
from summarymix.data.corpus.recordings import AudioFindings, unnamed_audio
from summarymix.data.corpus.table import read_table, read_table_corpus
from summarymix.data.skipped import Skipped, SkippedItems

ROWS = [
    {"audio": "x/a.wav", "text": "HELLO  WORLD", "id": "a", "speaker": "s1", "split": "train"},
    {"audio": "x/b.wav", "text": 'SAY "STOP"', "id": "b", "speaker": "s2", "split": "test"},
]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        path.write_text("\n".join("\t".join(values) for values in [rows[0], *(row.values() for row in rows)]) + "\n")
    else:
        lines = [",".join(rows[0])]
        lines += [",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


def write_audio(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(folder / name, np.zeros(1600), 16000)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_manifests_of_a_table(suffix: str, tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav")
    skipped = prepare_table(write_table(tmp_path / f"t{suffix}", ROWS), tmp_path, "c", tmp_path / "m", num_jobs=2)
    assert len(skipped) == 0
    (recording,) = RecordingSet.from_jsonl(tmp_path / "m" / "c_recordings_train.jsonl.gz")
    assert (recording.id, recording.duration, recording.sampling_rate) == ("x-a", 0.1, 16000)
    (supervision,) = SupervisionSet.from_jsonl(tmp_path / "m" / "c_supervisions_train.jsonl.gz")
    assert (supervision.text, supervision.speaker, supervision.recording_id) == ("HELLO WORLD", "s1", "x-a")
    (supervision,) = SupervisionSet.from_jsonl(tmp_path / "m" / "c_supervisions_test.jsonl.gz")
    assert supervision.text == 'SAY "STOP"'


def test_defaults(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.tsv", [{"audio": "x/a.wav", "text": "HI", "id": "", "start": "", "split": ""}])
    (row,) = read_table(path, tmp_path)
    assert row == Row(audio=str(tmp_path / "x/a.wav"), text="HI")


def test_all_columns(tmp_path: Path) -> None:
    fields = {"audio": "a.wav", "text": "HI", "id": 7, "speaker": "s", "split": "dev", "start": 1.5, "duration": 2}
    fields |= {"channel": 1, "language": "en", "mood": "glad"}
    wanted = Row(str(tmp_path / "a.wav"), "HI", "7", "s", "dev", 1.5, 2.0, 1, "en")
    (tmp_path / "t.jsonl").write_text(json.dumps(fields) + "\n\n")
    assert list(read_table(tmp_path / "t.jsonl", tmp_path)) == [wanted]
    table = write_table(tmp_path / "t.csv", [{column: str(value) for column, value in fields.items()}])
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))  # as a spreadsheet saves it
    assert list(read_table(table, tmp_path)) == [wanted]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_columns_that_are_not_used_are_told(suffix: str, tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav")
    rows = [row | {"mood": "glad", "end": "7"} for row in ROWS]
    table = write_table(tmp_path / f"t{suffix}", rows)
    corpus = read_table_corpus(table, tmp_path, AudioFindings(tmp_path / "copies"))
    assert corpus.notes == ["these columns of the table are not used: end, mood"]
    with table.open("a") as file:
        file.write(json.dumps(ROWS[0] | {"Split": "dev"}) + "\n")
    if suffix == ".jsonl":
        (item,) = read_table_corpus(table, tmp_path, AudioFindings(tmp_path / "copies")).skipped.items
        assert (item.reason, item.detail) == ("malformed row", "a column is named 'Split'")


def test_bad_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    rows = [dict(ROWS[0], id=name, audio=f"{name}.wav") for name in ("good", "missing", "broken", "silent", "empty")]
    rows[3]["text"] = " "
    rows.append(dict(rows[0]))
    write_audio(tmp_path, "good.wav", "silent.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    skipped = prepare_table(write_table(tmp_path / "t.tsv", rows), tmp_path, "c", tmp_path / "m")
    assert {item.id: item.reason for item in skipped.items} == {
        "missing": "missing audio",
        "broken": "unreadable audio",
        "silent": "empty transcript",
        "empty": "unreadable audio",
        "good": "duplicate id",
    }
    listed = SkippedItems.read(tmp_path / "m" / "skipped-c-table.tsv")
    assert listed.counts == skipped.counts
    assert all(item.remedy for item in listed.items)
    assert len(list(RecordingSet.from_jsonl(tmp_path / "m" / "c_recordings_train.jsonl.gz"))) == 1


def refused(content: bytes, tmp_path: Path, suffix: str = ".tsv") -> str:
    (tmp_path / f"t{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / f"t{suffix}"))) as error:
        list(read_table(tmp_path / f"t{suffix}", tmp_path))
    return str(error.value)


def test_tables_without_a_header_or_of_another_encoding_are_refused(tmp_path: Path) -> None:
    assert "line 1: no 'text'. The columns are: audio, words" in refused(b"audio\twords\na\tb\n", tmp_path)
    assert "line 1: 2 columns are named text" in refused(b"audio,text,text\na,b,c\n", tmp_path, ".csv")
    assert "line 1: unbalanced quotation marks" in refused(b'audio,"text\na,b\n', tmp_path, ".csv")
    assert "line 2 is not UTF-8" in refused("audio\ttext\na\tä\n".encode("latin1"), tmp_path)
    assert "a table is a .tsv, .csv or .jsonl file" in refused(b"", tmp_path, ".txt")
    assert "line 1: a column is named 'Split': name it split" in refused(b"audio,text,Split\na,b,c\n", tmp_path, ".csv")
    end = refused(b"audio\ttext\tstart\tEnd\na\tb\t1\t2\n", tmp_path)
    assert "line 1: there is a column 'End': give the duration, end - start, instead" in end
    with pytest.raises(
        ValueError, match=r"none of 2 utterances is usable; skipped 2: 2 missing audio.*the first: .*a.wav"
    ):
        prepare_table(write_table(tmp_path / "t.tsv", ROWS), tmp_path, "c", tmp_path / "m")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_spreadsheets(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('audio,text\r\na.wav,"é, ü"\r\n'.encode(encoding))
    assert list(read_table(tmp_path / "t.csv", tmp_path)) == [Row(str(tmp_path / "a.wav"), "é, ü")]


GOOD = {".tsv": "{}.wav\tGOOD", ".csv": "{}.wav,GOOD", ".jsonl": '{{"audio": "{}.wav", "text": "GOOD"}}'}


@pytest.mark.parametrize(
    ("suffix", "line", "kept"),
    [
        (".tsv", "b.wav\t", True),
        (".csv", 'b.wav,""', True),
        (".jsonl", '{"audio": "b.wav", "text": " "}', True),
        (".jsonl", '{"audio": "b.wav", "text": null}', False),
        (".jsonl", '{"audio": "b.wav", "text": NaN}', False),
        (".jsonl", '{"audio": "b.wav"}', False),
    ],
)
def test_an_empty_transcript_may_mean_no_speech_a_missing_one_does_not(
    suffix: str, line: str, kept: bool, tmp_path: Path
) -> None:
    write_audio(tmp_path, "b.wav")
    header = {".tsv": "audio\ttext", ".csv": "audio,text", ".jsonl": ""}[suffix]
    table = tmp_path / f"t{suffix}"
    table.write_text(f"{header}\n{line}\n")
    corpus = read_table_corpus(table, tmp_path, AudioFindings(tmp_path / "copies"), keep_empty=True)
    assert ([u.supervision.text for u in corpus.utterances], len(corpus.skipped)) == (([""], 0) if kept else ([], 1))


@pytest.mark.parametrize(
    ("suffix", "line", "reason", "detail"),
    [
        (".csv", 'b.wav,"BAD', "malformed row", "unbalanced quotation marks"),
        (".csv", 'b.wav,"BAD"X', "malformed row", "unbalanced quotation marks"),
        (".csv", "b.wav,BAD,WORSE", "malformed row", "3 fields for 2 columns"),
        (".csv", "b.wav", "malformed row", "1 fields, no text"),
        (".tsv", "b.wav\t" + "X" * 140_000, "malformed row", "140006 characters"),
        (".tsv", "\tBAD", "malformed row", "no audio"),
        (".tsv", "b.wav\t\u3000", "empty transcript", "line 3"),
        (".tsv", "b\0.wav\tBAD", "unusable audio path", "line 3"),
        (".tsv", "x" * 256 + ".wav\tBAD", "unusable audio path", "line 3"),
        (".tsv", "x/" * 2500 + "b.wav\tBAD", "unusable audio path", "line 3"),
        (".jsonl", '{"audio": "b.wav", "text": null}', "empty transcript", "line 3"),
        (".jsonl", '{"audio": "b.wav", "text": NaN}', "empty transcript", "line 3"),
        (".jsonl", '{"audio": "", "text": "BAD"}', "malformed row", "no audio"),
        (".jsonl", '{"audio": "b.wav", "text": {"a": [1]}}', "malformed row", 'text is {"a": [1]}'),
        (".jsonl", '{"audio": "b.wav", "text": true}', "malformed row", "text is true"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "start": NaN}', "malformed row", "start is 'nan'"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "start": -Infinity}', "malformed row", "start is '-inf'"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "duration": "1,5"}', "malformed row", "duration is '1,5'"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "channel": 0.5}', "malformed row", "channel is 0.5"),
        (".jsonl", '{"audio": "b.wav", "text": "B\\ud800D"}', "unusable character", "in text"),
        (".jsonl", '{"audio": "b\\ud800.wav", "text": "BAD"}', "unusable audio path", "line 3"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "id": "a\\nb"}', "unusable id", "line 3"),
        (".jsonl", '{"audio": "b.wav", "text": "BAD", "split": ".."}', "unusable split name", "line 3"),
        (".jsonl", "[1]", "malformed row", "not an object"),
        (".jsonl", "[" * 100_000, "malformed row", "no JSON"),
        (".jsonl", '{"audio": "b.wav", "start": ' + "1" * 5000 + "}", "malformed row", "no JSON"),
    ],
)
def test_a_bad_row_is_listed_and_the_rest_is_used(
    suffix: str, line: str, reason: str, detail: str, tmp_path: Path
) -> None:
    write_audio(tmp_path, "a.wav", "c.wav")
    header = {".tsv": "audio\ttext", ".csv": "audio,text", ".jsonl": ""}[suffix]
    lines = [header, GOOD[suffix].format("a"), line, GOOD[suffix].format("c")]
    table = tmp_path / f"t{suffix}"
    table.write_text("\n".join(lines) + "\n")
    corpus = read_table_corpus(table, tmp_path, AudioFindings(tmp_path / "copies"))
    assert [utterance.recording.id for utterance in corpus.utterances] == ["a", "c"]
    corpus.write("c", tmp_path / "m")
    (item,) = SkippedItems.read(tmp_path / "m" / "skipped-c-table.tsv").items
    assert item.reason == reason
    assert detail in item.detail
    assert f"{table}, line 3" in item.file + item.detail
    assert item.remedy


def test_an_utterance_on_two_lines_spoils_no_other_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('audio,text\na.wav,"ONE\nTWO"\nb.wav,"3 "" SIGNS"\n')
    rows = list(read_table(tmp_path / "t.csv", tmp_path))
    assert [isinstance(row, Skipped) for row in rows] == [True, True, False]
    assert rows[2] == Row(str(tmp_path / "b.wav"), '3 " SIGNS')


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"3 "" SIGNS, ""PLEASE"""', '3 " SIGNS, "PLEASE"'),
        ('"A, B"', "A, B"),
        ('"A\tB"', "A\tB"),
        ('"A"', '"A"'),
        ('"A, SHE SAID', '"A, SHE SAID'),
        ('3" PIPE, 4" PIPE', '3" PIPE, 4" PIPE'),
        ('"A," HE SAID, "B"', '"A," HE SAID, "B"'),
        ('""', '""'),
    ],
)
def test_tsv_as_spreadsheets_quote_it(field: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(f"audio\ttext\tid\na.wav\t{field}\t1\nb.wav\tGOOD\t2\n")
    rows = list(read_table(tmp_path / "t.tsv", tmp_path))
    assert [(row.text, row.id) for row in rows if isinstance(row, Row)] == [(text, "1"), ("GOOD", "2")]


def test_tsv_with_a_line_break_in_a_quoted_field(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('audio\ttext\na.wav\t"ONE, ""TWO""\nTHREE"\nb.wav\t"GOOD\nc.wav\tGOOD\n')
    rows = list(read_table(tmp_path / "t.tsv", tmp_path))
    assert [isinstance(row, Skipped) for row in rows] == [True, True, False, False]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".tsv", 'audio\ttext\tspeaker\na.wav\t"ONE\nTWO"\ts\nb.wav\tGOOD\ts\n'),
        (".tsv", 'audio\ttext\tspeaker\na.wav\t"ONE\n\nTWO"\nb.wav\tGOOD\ts\n'),
        (".tsv", 'text\taudio\tspeaker\n"ONE\nTWO"\ta.wav\ts\nGOOD\tb.wav\ts\n'),
        (".csv", 'text,audio,speaker\n"ONE\nTWO",a.wav,s\n"GOOD",b.wav,s\n'),
        (".csv", 'text,speaker,audio\n"ONE, ""TWO""\nTHREE, ""FOUR""",s,a.wav\nGOOD,s,b.wav\n'),
    ],
)
def test_no_part_of_an_utterance_on_two_lines_is_used(suffix: str, content: str, tmp_path: Path) -> None:
    (tmp_path / f"t{suffix}").write_text(content)
    *bad, good = read_table(tmp_path / f"t{suffix}", tmp_path)
    assert good == Row(str(tmp_path / "b.wav"), "GOOD", speaker="s")
    lines = [2, 4] if "\n\n" in content else [2, 3]
    assert [item.file for item in bad if isinstance(item, Skipped)] == [
        f"{tmp_path}/t{suffix}, line {n}" for n in lines
    ]
    assert {(item.reason, item.detail) for item in bad} == {("malformed row", "a line break in a field")}


@pytest.mark.parametrize("fields", [('"A', 'B"'), ('"A\ts', 'B"\ts'), ('"A ""B', '"C"')])
def test_quotation_marks_that_two_utterances_share_are_ordinary_characters(fields: list[str], tmp_path: Path) -> None:
    lines = (f"{name}.wav\t{field}\n" for name, field in zip("ab", fields, strict=True))
    (tmp_path / "t.tsv").write_text("audio\ttext\tspeaker\n" + "".join(lines))
    rows = list(read_table(tmp_path / "t.tsv", tmp_path))
    assert [row.text for row in rows if isinstance(row, Row)] == [field.split("\t")[0] for field in fields]


def test_audio_files_that_no_row_names(tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav", "y/spare.WAV")
    (tmp_path / "y" / "notes.txt").write_text("")
    corpus = read_table_corpus(write_table(tmp_path / "t.tsv", ROWS), tmp_path, AudioFindings(tmp_path / "copies"))
    assert corpus.unnamed_audio == [tmp_path / "y" / "spare.WAV"]


def test_manifests_of_splits_that_are_gone_are_removed(tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav")
    prepare_table(write_table(tmp_path / "t.tsv", ROWS), tmp_path, "c", tmp_path / "m")
    prepare_table(write_table(tmp_path / "t.tsv", ROWS[:1]), tmp_path, "c", tmp_path / "m")
    assert [p.name for p in sorted((tmp_path / "m").glob("c_*"))] == [
        "c_recordings_train.jsonl.gz",
        "c_supervisions_train.jsonl.gz",
    ]


def test_unnamed_audio_in_the_order_of_folders_with_any_names(tmp_path: Path) -> None:
    """Links to named files are named, links to folders are not followed, and names need not be in UTF-8."""
    write_audio(tmp_path, "a/named.wav")
    for name in ("a-b.wav", "a/2.wav", "a/..wav", "a/.wav", "a/text.txt", "copies/0.wav"):
        write_audio(tmp_path, str(Path(name).parent / "other.wav"))
        os.renames(tmp_path / Path(name).parent / "other.wav", tmp_path / name)
    (tmp_path / os.fsdecode(b"\xff.wav")).touch()
    (tmp_path / "link.wav").symlink_to("a/named.wav")
    (tmp_path / "folder").symlink_to("a")
    found = unnamed_audio(tmp_path, [str(tmp_path / "a/named.wav")], AudioFindings(tmp_path / "copies"))
    names = [os.fsencode(path.relative_to(tmp_path)) for path in found]
    assert names == [b"a/..wav", b"a/2.wav", b"a-b.wav", b"\xff.wav"]


def test_memory_of_a_row(tmp_path: Path) -> None:
    """Neither rows nor the utterances that they become are kept in memory."""
    write_audio(tmp_path, "0.wav")
    lines = (f"0.wav\tA FEW WORDS {i}\tid-{i}\t{i / 1e5:.5f}\t0.05\n" for i in range(2000))
    table = tmp_path / "t.tsv"
    table.write_text("audio\ttext\tid\tstart\tduration\n" + "".join(lines))
    tracemalloc.start()
    try:
        corpus = read_table_corpus(table, tmp_path, AudioFindings(tmp_path / "copies"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(corpus.utterances) == 2000
    assert peak / 2000 < 150, "bytes"
