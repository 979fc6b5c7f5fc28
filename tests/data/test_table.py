import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet, SupervisionSet

from summarymix.data.skipped import SkippedItems
from summarymix.data.table import prepare_table, read_table

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
    assert (recording.id, recording.duration, recording.sampling_rate) == ("a", 0.1, 16000)
    (supervision,) = SupervisionSet.from_jsonl(tmp_path / "m" / "c_supervisions_train.jsonl.gz")
    assert (supervision.text, supervision.speaker, supervision.recording_id) == ("HELLO WORLD", "s1", "a")
    (supervision,) = SupervisionSet.from_jsonl(tmp_path / "m" / "c_supervisions_test.jsonl.gz")
    assert supervision.text == 'SAY "STOP"'


def test_defaults(tmp_path: Path) -> None:
    (row,) = read_table(write_table(tmp_path / "t.tsv", [{"audio": "x/a.wav", "text": "HI"}]), tmp_path)
    assert (row.id, row.speaker, row.split) == ("x-a", None, "train")


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


def test_malformed_tables(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t.tsv, utterance 1: no 'text'. The columns there are: audio, words"):
        list(read_table(write_table(tmp_path / "t.tsv", [{"audio": "a", "words": "b"}]), tmp_path))
    with pytest.raises(ValueError, match=r"t.txt: a table is a .tsv, .csv or .jsonl file"):
        (tmp_path / "t.txt").write_text("")
        list(read_table(tmp_path / "t.txt", tmp_path))
    with pytest.raises(ValueError, match="no utterance of 2 is left; skipped 2: 2 missing audio"):
        prepare_table(write_table(tmp_path / "t.tsv", ROWS), tmp_path, "c", tmp_path / "m")
