"""Hostile tables, Kaldi folders and audio: everything is used or listed, and errors name the file."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from summarymix.data.corpus.base import Corpus
from summarymix.data.corpus.kaldi import read_kaldi_corpus
from summarymix.data.corpus.recordings import AudioFindings, open_files
from summarymix.data.corpus.report import corpus_report
from summarymix.data.corpus.table import read_table_corpus
from summarymix.data.names import printable
from summarymix.data.skipped import Skipped, SkippedItems

AUDIO = ("0.wav", "1.wav", "é 2.flac")
PIECES = [
    *AUDIO,
    *('"', '""', "'", ",", "\t", " ", ";", "\\", "\r", "\0", "\ufeff", "\u2028", "\u3000", "\x0c", "\x85", "\ud800"),
    *(
        "ONE",
        "two",
        "ñ",
        "日本",
        "nan",
        "inf",
        "-1",
        "0",
        "0.02",
        "1e400",
        "1,5",
        "..",
        "--help",
        "a/b",
        "train",
        "dev",
    ),
    *("test", "null", "true", "{", "}", "[", "]", "x" * 300, "9" * 400),
]
pieces = st.sampled_from(PIECES) | st.text(max_size=3)
words = st.lists(pieces, max_size=4).map("".join)
COLUMNS = ("audio", "text", "id", "speaker", "split", "start", "duration", "channel", "language")
ENCODINGS = st.sampled_from(["utf-8"] * 4 + ["utf-8-sig", "utf-16", "latin1"])

good_rows = st.fixed_dictionaries({"audio": st.sampled_from(AUDIO), "text": st.sampled_from(["ONE", "TWO"])})
values = words | st.none() | st.booleans() | st.floats() | st.integers() | st.lists(words, max_size=2)
odd_rows = st.dictionaries(st.sampled_from(COLUMNS), values)
rows = st.lists(good_rows | st.builds(lambda good, odd: good | odd, good_rows, odd_rows) | words, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for i, name in enumerate(AUDIO):
        soundfile.write(folder / name, np.random.default_rng(i).uniform(-0.1, 0.1, 800), 8000)
    return folder


def line_of(row: dict | str, suffix: str) -> str:
    if isinstance(row, str):
        return row
    if suffix == ".jsonl":
        return json.dumps(row)
    separator = "\t" if suffix == ".tsv" else ","
    return separator.join("" if row.get(column) is None else str(row[column]) for column in COLUMNS)


def read(reader: Callable[[Path, Path, AudioFindings], Corpus], path: Path, audio_dir: Path) -> Corpus | None:
    """The corpus; None if it is refused with a message that names the file."""
    try:
        return reader(path, audio_dir, AudioFindings(audio_dir / "copies"))
    except UnicodeError:
        raise
    except (ValueError, FileNotFoundError) as error:
        if str(path) not in str(error):
            raise
        return None


def check(corpus: Corpus, folder: Path) -> None:
    """What is not used is listed, and the manifests and lists can be written."""
    assert len(corpus.utterances) + len(corpus.skipped) == corpus.num_rows
    out_dir = folder / "out"
    shutil.rmtree(out_dir, ignore_errors=True)
    if corpus.utterances:
        corpus.write("c", out_dir)
        corpus_report(corpus, "c", out_dir)
    else:
        with pytest.raises(ValueError, match="utterances is usable"):
            corpus.write("c", out_dir)
    listed = SkippedItems.read(out_dir / "skipped-c-table.tsv").items
    assert len(listed) == len(corpus.skipped)
    assert all(item.reason and item.remedy for item in listed)


@settings(max_examples=300)
@given(rows, st.sampled_from([".csv", ".tsv", ".jsonl"]), st.sampled_from(["\n", "\r\n"]), ENCODINGS)
def test_tables(folder: Path, rows: list, suffix: str, end: str, encoding: str) -> None:
    lines = [line_of(row, suffix) for row in rows]
    if suffix != ".jsonl":
        lines.insert(0, line_of({column: column for column in COLUMNS}, suffix))
    table = folder / f"t{suffix}"
    text = end.join(lines)
    if encoding == "latin1":
        text = text.encode(encoding, "replace").decode(encoding)
    table.write_bytes(text.encode(encoding, "surrogatepass"))
    if (corpus := read(read_table_corpus, table, folder)) is None:
        return
    content = [line for line in re.split("\r\n|\r|\n", text) if line.removeprefix("\ufeff").strip()]
    assert corpus.num_rows == max(len(content) - (suffix != ".jsonl"), 0)
    check(corpus, folder)


keys = st.sampled_from(["u0", "u1", "r0", "é"]) | words
kaldi_lines = st.lists(st.builds("{}{}{}".format, keys, st.sampled_from([" ", "\t", " \t", ""]), words), max_size=4)


@settings(max_examples=300)
@given(kaldi_lines, kaldi_lines, kaldi_lines | st.none(), kaldi_lines | st.none(), ENCODINGS)
def test_kaldi_folders(
    folder: Path, scp: list[str], text: list[str], segments: list[str] | None, utt2spk: list[str] | None, encoding: str
) -> None:
    kaldi_dir = folder / "kaldi"
    shutil.rmtree(kaldi_dir, ignore_errors=True)
    kaldi_dir.mkdir()
    good = {"wav.scp": ["u0 0.wav", "r0 1.wav"], "text": ["u0 ONE", "r0 TWO"]}
    for name, lines in {"wav.scp": scp, "text": text, "segments": segments, "utt2spk": utt2spk}.items():
        if lines is not None:
            content = "\n".join([*good.get(name, []), *lines]).replace("|", "")  # no commands
            errors = "replace" if encoding == "latin1" else "surrogatepass"
            (kaldi_dir / name).write_bytes(content.encode(encoding, errors))
    if (corpus := read(read_kaldi_corpus, kaldi_dir, folder)) is None:
        return
    known = {utterance.supervision.id for utterance in corpus.utterances} | {item.id for item in corpus.skipped.items}
    if encoding == "latin1":  # was read as what it is by chance
        encoding = "utf-8"
    for name in ("text", "wav.scp" if segments is None else "segments"):
        for line in re.split("\r\n|\r|\n", (kaldi_dir / name).read_bytes().decode(encoding)):
            if key := re.split("[ \t]+", line.removeprefix("\ufeff").strip(" \t"))[0]:
                assert printable(key) in known
    check(corpus, folder)


@pytest.fixture(scope="module")
def sounds() -> list[bytes]:
    """Half a second of noise in several formats."""
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).clip(-1, 1)
    sounds = []
    for format, subtype in [("WAV", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", None), ("OGG", "OPUS")]:
        file = io.BytesIO()
        soundfile.write(file, samples, 16000, subtype, format=format)
        sounds.append(file.getvalue())
    return sounds


@settings(max_examples=150)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
    st.floats(0.0, 1.0),
)
def test_damaged_audio(folder: Path, sounds: list, number: int, changes: list, part: float) -> None:
    content = bytearray(sounds[number])
    for place, value in changes:
        content[place] = value
    path = folder / "damaged.audio"
    path.write_bytes(content[: round(len(content) * part)])
    [found] = open_files({str(path): "a"}, AudioFindings(folder / "copies")).values()
    if isinstance(found, Skipped):
        assert found.reason
        assert found.detail
    else:
        assert found.num_samples > 0
