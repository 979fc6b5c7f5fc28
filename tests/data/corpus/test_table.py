import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet, SupervisionSet

from summarymix.data.corpus.base import Row
from summarymix.data.corpus.table import prepare_table, read_table, read_table_corpus
from summarymix.data.skipped import SkippedItems

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
    listed = SkippedItems.read(tmp_path / "m" / "skipped-table.tsv")
    assert listed.counts == skipped.counts
    assert all(item.remedy for item in listed.items)
    assert len(list(RecordingSet.from_jsonl(tmp_path / "m" / "c_recordings_train.jsonl.gz"))) == 1


def malformed(content: str, tmp_path: Path, suffix: str = ".tsv") -> str:
    (tmp_path / f"t{suffix}").write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / f"t{suffix}"))) as error:
        list(read_table(tmp_path / f"t{suffix}", tmp_path))
    return str(error.value)


def test_malformed_tables(tmp_path: Path) -> None:
    assert "line 2: no 'text'. The columns are: audio, words" in malformed("audio\twords\na\tb\n", tmp_path)
    assert "line 3: no 'text'" in malformed("audio\ttext\na\tb\nc\n", tmp_path)
    assert "line 2: more fields than columns" in malformed("audio,text\na,well, no\n", tmp_path, ".csv")
    assert "could not convert string to float: '1,5'" in malformed("audio\ttext\tstart\na\tb\t1,5\n", tmp_path)
    assert "channel is 0, 1" in malformed("audio\ttext\tchannel\na\tb\tleft\n", tmp_path)
    assert "is not UTF-8" in malformed("audio\ttext\na\tä\n", tmp_path)
    assert "line 1: Expecting value" in malformed("audio\ttext\n", tmp_path, ".jsonl")
    assert "line 1: not an object" in malformed("[1]\n", tmp_path, ".jsonl")
    assert "a table is a .tsv, .csv or .jsonl file" in malformed("", tmp_path, ".txt")
    with pytest.raises(ValueError, match="none of 2 utterances is usable; skipped 2: 2 missing audio"):
        prepare_table(write_table(tmp_path / "t.tsv", ROWS), tmp_path, "c", tmp_path / "m")


def test_audio_files_that_no_row_names(tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav", "y/spare.WAV")
    (tmp_path / "y" / "notes.txt").write_text("")
    corpus = read_table_corpus(write_table(tmp_path / "t.tsv", ROWS), tmp_path)
    assert corpus.unnamed_audio == [tmp_path / "y" / "spare.WAV"]


def test_manifests_of_splits_that_are_gone_are_removed(tmp_path: Path) -> None:
    write_audio(tmp_path, "x/a.wav", "x/b.wav")
    prepare_table(write_table(tmp_path / "t.tsv", ROWS), tmp_path, "c", tmp_path / "m")
    prepare_table(write_table(tmp_path / "t.tsv", ROWS[:1]), tmp_path, "c", tmp_path / "m")
    assert [p.name for p in sorted((tmp_path / "m").glob("c_*"))] == [
        "c_recordings_train.jsonl.gz",
        "c_supervisions_train.jsonl.gz",
    ]
