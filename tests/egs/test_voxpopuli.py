"""The VoxPopuli recipe on a miniature of the corpus in its real layouts: whole sessions, and segmented audio."""

import gzip
import os
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.recipes import voxpopuli
from manifest_cuts import load_cuts

from summarymix.data.corpus.measured import changed_file
from summarymix.data.skipped import SkippedItems
from summarymix.runs import load_model

RECIPE = Path(__file__).parents[2] / "egs" / "voxpopuli" / "ASR"
SESSION_COLUMNS = [
    *("session_id", "id_", "split", "start_time", "end_time", "vad", "speaker_id", "gender", "original_text"),
    *("normed_text", "is_gold_transcript", "accent"),
]
SEGMENT_COLUMNS = ["id", "raw_text", "normalized_text", "speaker_id", "split", "gender", "is_gold_transcript", "accent"]

# Sessions of German: seconds of their audio, None for a file that is missing, 0 for one that is none.
SESSIONS = {
    "20090112-0900-PLENARY-3": 20.0,
    "20090113-0900-PLENARY-4": 108.0,
    "20100301-1500-PLENARY-1": 12.0,
    "20110907-0900-PLENARY-2": 12.0,
    "20120101-0900-PLENARY-1": None,
    "20130101-0900-PLENARY-1": 0.0,
}
# (session, end of the id, split, start, end, raw, normed)
GOOD_ROWS = [
    ("20090112-0900-PLENARY-3", 0, "train", 0.5, 3.25, "Wir danken Ihnen.", "wir danken ihnen."),
    ("20090112-0900-PLENARY-3", 1, "train", 3.25, 6.1, '"Herr Präsident" ist da', "herr präsident ist da"),
    ("20090112-0900-PLENARY-3", 2, "train", 7.0, 20.05, "", "das ist e\u0301in anfang"),
    ("20090113-0900-PLENARY-4", 0, "train", 1.0, 4.0, "Es geht um 5 %", "es geht um fünf %"),
    ("20100301-1500-PLENARY-1", 0, "dev", 0.0, 4.0, "Vielen Dank", "vielen dank"),
    ("20100301-1500-PLENARY-1", 1, "dev", 5.0, 9.5, "Wir sind da", "wir sind da"),
    ("20110907-0900-PLENARY-2", 0, "test", 1.0, 5.0, "Ja", "ja"),
    ("20110907-0900-PLENARY-2", 1, "test", 6.123456, 11.0, "Das ist ein Ende", "das ist ein ende"),
]
BAD_ROWS = [
    ("20090112-0900-PLENARY-3", 3, "train", 6.2, 6.9, "Ach so", "ach so"),
    ("20090112-0900-PLENARY-3", 4, "train", 6.2, 6.9, "(Beifall)", " "),
    ("20090112-0900-PLENARY-3", 5, "train", 18.0, 26.0, "Das geht zu weit", "das geht zu weit"),
    ("20090112-0900-PLENARY-3", 0, "train", 6.2, 6.9, "Das ist doppelt da", "das ist doppelt da"),
    ("20090112-0900-PLENARY-3", 6, "invalid", 6.2, 6.9, "Das ist nicht da", "das ist nicht da"),
    ("20090113-0900-PLENARY-4", 1, "train", 4.0, 105.0, "Das ist sehr lang", "das ist sehr lang"),
    ("20090112-0900-PLENARY-3", 7, "train", "früh", 6.9, "Das ist keine Zeit", "das ist keine zeit"),
    ("20120101-0900-PLENARY-1", 0, "train", 1.0, 4.0, "Das ist nicht da", "das ist nicht da"),
    ("20130101-0900-PLENARY-1", 0, "train", 1.0, 4.0, "Das ist kein Ton", "das ist kein ton"),
]
REASONS = {
    "too few words for train": 1,
    "empty transcript": 1,
    "outside its recording": 1,
    "duplicate id": 1,
    "not in a split": 1,
    "too long for train": 1,
    "malformed row": 2,
    "missing audio": 1,
    "unreadable audio": 1,
}


def write_audio(path: Path, seconds: float | None) -> None:
    if seconds is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if seconds == 0:
        path.write_bytes(b"OggS")
        return
    rng = np.random.default_rng(int(seconds * 100))
    n = int(16000 * seconds)
    # Tones that change every second, in a little noise: no two parts are equal.
    pitch = np.repeat(rng.uniform(0.05, 0.8, int(seconds) + 1), 16000)[:n]
    soundfile.write(path, 0.3 * np.sin(np.cumsum(pitch)) + 0.01 * rng.standard_normal(n), 16000, format="OGG")


def segment_end(number: object) -> str:
    return f"de_20090112-10:00:00_{number}"


def write_table(path: Path, rows: Iterable[tuple], extra: str = "") -> None:
    lines = ["|".join(SESSION_COLUMNS)]
    for session, number, split, start, end, raw, normed in rows:
        speaker = session[-1] + str(number)
        cells = (session, segment_end(number), split, start, end, f"[({start}, {end})]", speaker, "female", raw, normed)
        lines.append("|".join(map(str, [*cells, "False", "None"])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n" + extra).encode()))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw_audios/original of all sessions; encoding takes most of the time here."""
    folder = tmp_path_factory.mktemp("audio")
    for session, seconds in SESSIONS.items():
        write_audio(folder / session[:4] / f"{session}_original.ogg", seconds)
    return folder


@pytest.fixture
def corpus(audio: Path, tmp_path: Path) -> Path:
    """DL_DIR with sessions and the annotations of German, faulty rows among them."""
    root = tmp_path / "download" / "voxpopuli"
    (root / "raw_audios").mkdir(parents=True)
    (root / "raw_audios" / "original").symlink_to(audio)
    write_table(root / "asr_de.tsv.gz", [*GOOD_ROWS[:2], *BAD_ROWS, *GOOD_ROWS[2:]], "half|a|row\n")
    return tmp_path / "download"


def test_whole_sessions(run, corpus: Path, tmp_path: Path) -> None:
    result = run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, "--lang", "de", "--nj", 2)
    assert result.code == 0, result.err
    manifests = tmp_path / "data" / "manifests"
    skipped = SkippedItems.read(manifests / "skipped-voxpopuli-de.tsv")
    assert skipped.counts == REASONS
    assert "train: 4 utterances, 0.01 hours" in result.out
    assert "skipped 10: 2 malformed row, 1 " in result.out

    supervisions = SupervisionSet.from_jsonl(manifests / "voxpopuli-de_supervisions_train.jsonl.gz")
    texts = {supervision.id: supervision.text for supervision in supervisions}
    first, _, third, fourth = sorted(texts)
    assert first == f"20090112-0900-PLENARY-3-{segment_end(0)}"
    assert texts[first] == "wir danken ihnen"
    assert texts[third] == "das ist éin anfang"
    assert texts[fourth] == "es geht um fünf %"
    # The end of the file, which the annotation exceeds by rounding.
    assert supervisions[third].end == 20.0
    # In test nothing is filtered.
    assert len(SupervisionSet.from_jsonl(manifests / "voxpopuli-de_supervisions_test.jsonl.gz")) == 2

    characters = (manifests / "characters-de.tsv").read_text().splitlines()
    assert characters[1:] == [
        f"%\tU+0025\tPERCENT SIGN\t1\t{fourth}",
        f"é\tU+00E9\tLATIN SMALL LETTER E WITH ACUTE\t1\t{third}",
    ]
    assert "2 characters (2 different) are foreign, in 2 utterances; never used: ö ß" in result.out

    # Cuts are read by seeking into the file, and have exactly the samples of the whole one.
    for cut in load_cuts(manifests, "voxpopuli-de", "train"):
        whole, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
        begin = round(cut.start * 16000)
        samples = cut.load_audio()[0]
        np.testing.assert_array_equal(samples, whole[begin : begin + len(samples)])
        assert len(samples) == round(cut.duration * 16000)

    before = {path.name: path.read_bytes() for path in manifests.iterdir() if path.is_file()}
    write_table(corpus / "voxpopuli" / "asr_de.tsv.gz", [*reversed(GOOD_ROWS), *BAD_ROWS[:3]])
    run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, "--lang", "de", "--nj", 1)
    for name in before:
        if "_supervisions_" in name or "_recordings_" in name:
            assert (manifests / name).read_bytes() == before[name], "the order of rows must not matter"


def test_raw_transcripts_keep_case_and_marks_and_are_never_replaced(run, corpus: Path, tmp_path: Path) -> None:
    result = run(
        "egs/voxpopuli/ASR/local/prepare_manifests.py",
        "--dl-dir",
        corpus,
        "--lang",
        "de",
        "--text",
        "raw",
        "--max-seconds",
        120,
    )
    assert result.code == 0, result.err
    manifests = tmp_path / "data" / "manifests"
    supervisions = SupervisionSet.from_jsonl(manifests / "voxpopuli-de_supervisions_train.jsonl.gz")
    texts = [supervision.text for supervision in supervisions]
    assert texts == ["Wir danken Ihnen.", '"Herr Präsident" ist da', "Es geht um 5 %", "Das ist sehr lang"]
    skipped = SkippedItems.read(manifests / "skipped-voxpopuli-de.tsv")
    assert [item.id[-1] for item in skipped.items if item.reason == "empty transcript"] == ["2"]


def test_the_same_as_lhotses_where_lhotse_can(run, corpus: Path, tmp_path: Path, audio: Path) -> None:
    original = corpus / "voxpopuli" / "raw_audios" / "original"
    original.unlink()
    names = {row[0] for row in GOOD_ROWS}
    for path in audio.rglob("*.ogg"):
        if (session := path.stem.removesuffix("_original")) in names:
            # As lhotse and icefall download it: the channel of one language.
            link = original.with_name("de") / session[:4] / f"{session}_de.ogg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    write_table(corpus / "voxpopuli" / "asr_de.tsv.gz", GOOD_ROWS)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "asr_de.tsv.gz").symlink_to(corpus / "voxpopuli" / "asr_de.tsv.gz")
    theirs = voxpopuli.prepare_voxpopuli(corpus / "voxpopuli", tmp_path / "theirs", lang="de")

    result = run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, "--lang", "de")
    assert result.code == 0, result.err
    for split in ("train", "dev", "test"):
        path = tmp_path / "data" / "manifests" / f"voxpopuli-de_{{}}_{split}.jsonl.gz"
        ours = RecordingSet.from_jsonl(str(path).format("recordings"))
        assert list(ours) == sorted(theirs[split]["recordings"], key=lambda recording: recording.id)
        ours = SupervisionSet.from_jsonl(str(path).format("supervisions"))
        for mine, other in zip(ours, sorted(theirs[split]["supervisions"], key=lambda s: s.id), strict=True):
            for name in ("recording_id", "start", "duration", "channel", "language", "speaker", "gender"):
                assert getattr(mine, name) == getattr(other, name)


def write_segmented(root: Path, language: str, texts: dict[str, list[str]]) -> None:
    """transcribed_data/LANG as VoxPopuli's get_asr_data makes it."""
    folder = root / "transcribed_data" / language
    for split, transcripts in texts.items():
        lines = ["\t".join(SEGMENT_COLUMNS)]
        for i, text in enumerate(transcripts):
            name = f"2015010{len(split)}-0900-PLENARY-1-{language}_20150101-09:10:1{i}_{i}"
            write_audio(folder / "2015" / f"{name}.ogg", 2.0 + i / 10 + len(split) / 100)
            lines.append("\t".join([name, text.title(), text, "7", split, "male", "False", "None"]))
        (folder / f"asr_{split}.tsv").write_text("\n".join(lines) + "\n")


def test_segmented_audio_beside_another_language(run, corpus: Path, tmp_path: Path) -> None:
    texts = {"train": ["jako puno hvala", "to je oito", "da"], "dev": ["hvala"], "test": ['rekao "ne"']}
    write_segmented(corpus / "voxpopuli", "hr", texts)
    assert run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, "--lang", "de").code == 0
    result = run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, "--lang", "hr", "--segmented")
    assert result.code == 0, result.err
    assert "train: 2 utterances" in result.out
    assert "skipped 1: 1 too few words for train" in result.out
    # What happened to VoxPopuli's Croatian shows.
    assert "0 characters (0 different) are foreign, in 0 utterances; never used: č ć đ š ž" in result.out
    manifests = tmp_path / "data" / "manifests"
    for language, count in (("de", 2), ("hr", 1)):
        assert len(load_cuts(manifests, f"voxpopuli-{language}", "test")) == count
    for language, name in (("de", "asr_de.tsv.gz"), ("hr", "transcribed_data/hr/asr_dev.tsv")):
        table = corpus / "voxpopuli" / name
        assert changed_file(manifests / f"audio/voxpopuli-{language}") is None
        os.utime(table, (0, 0))
        assert changed_file(manifests / f"audio/voxpopuli-{language}") == str(table)
    (cut,) = load_cuts(manifests, "voxpopuli-hr", "test")
    assert cut.supervisions[0].text == "rekao ne"
    assert cut.duration == cut.recording.duration == cut.supervisions[0].duration


def test_files_to_open_at_a_time_are_at_least_one(run, tmp_path: Path) -> None:
    result = run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", tmp_path, "--lang", "de", "--nj", 0)
    assert (result.code, "--nj: '0' is not a whole number above 0" in result.err) == (2, True), result.err


def test_what_cannot_be_prepared_is_named(run, corpus: Path) -> None:
    def message(*options: object) -> str:
        result = run("egs/voxpopuli/ASR/local/prepare_manifests.py", "--dl-dir", corpus, *options)
        assert result.code != 0
        return result.err

    table = corpus / "voxpopuli" / "asr_de.tsv.gz"
    assert "choose from" in message("--lang", "xx")
    assert "asr_fr.tsv.gz: run ./prepare.sh from stage 0" in message("--lang", "fr")
    assert "asr_train.tsv: run" in message("--lang", "fr", "--segmented")
    write_table(table, [row for row in GOOD_ROWS if row[2] != "dev"])
    assert "No utterance of dev is left; skipped 0" in message("--lang", "de")
    table.write_bytes(table.read_bytes()[:-30])
    assert "asr_de.tsv.gz cannot be read: Compressed file ended" in message("--lang", "de")
    table.write_bytes(gzip.compress(b"session_id|split\n"))
    assert "asr_de.tsv.gz has no column 'id_', only session_id, split" in message("--lang", "de")


@pytest.fixture
def server(tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VoxPopuli's archives of two years and its annotations; a folder instead of a server."""
    folder = tmp_path / "server"
    (folder / "audios").mkdir(parents=True)
    for year in (2010, 2011):
        with tarfile.open(folder / "audios" / f"original_{year}.tar", "w") as file:
            file.add(audio / str(year), f"original/{year}")
    write_table(folder / "annotations" / "asr" / "asr_de.tsv.gz", GOOD_ROWS)
    monkeypatch.setattr(voxpopuli, "DOWNLOAD_BASE_URL", folder.as_uri())
    monkeypatch.setattr(voxpopuli, "YEARS", [2010, 2011])
    return folder


def test_download(run, server: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "dl" / "voxpopuli"

    def download():
        return run("egs/voxpopuli/ASR/local/download.py", "--dl-dir", tmp_path / "dl", "--lang", "de")

    with monkeypatch.context() as full_disk:
        full_disk.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e3))
        result = download()
    assert result.code == 1
    assert "VoxPopuli's audio will take about 0.0 GB in" in result.err
    assert not list(corpus.rglob("*.ogg"))

    # Cut off by an earlier version, then by the server, then whole.
    annotations = server / "annotations" / "asr" / "asr_de.tsv.gz"
    whole = annotations.read_bytes()
    (corpus / "asr_de.tsv.gz").write_bytes(whole[:-20])
    assert "asr_de.tsv.gz is incomplete or damaged (" in download().err
    (corpus / "asr_de.tsv.gz").unlink()
    annotations.write_bytes(whole[:-20])
    result = download()
    assert result.code == 1
    assert "asr_de.tsv.gz has arrived incomplete or damaged (" in result.err
    assert not (corpus / "asr_de.tsv.gz").exists()
    annotations.write_bytes(whole)
    result = download()
    assert result.code == 0, result.err
    assert (corpus / "asr_de.tsv.gz").read_bytes() == whole
    assert "2 archives with 0.0 GB to download" in result.out
    expected = {path.name: path.read_bytes() for year in ("2010", "2011") for path in audio.glob(f"{year}/*.ogg")}
    assert {path.name: path.read_bytes() for path in corpus.rglob("*.ogg")} == expected
    assert not list(corpus.rglob("*.tar"))

    # Killed while it unpacked 2011.
    (corpus / "raw_audios" / "original_2011.tar").write_bytes((server / "audios" / "original_2011.tar").read_bytes())
    next(corpus.rglob("2011*.ogg")).write_bytes(b"half")
    result = download()
    assert "1 archives" in result.out
    assert {path.name: path.read_bytes() for path in corpus.rglob("*.ogg")} == expected
    archive = corpus / "raw_audios" / "original_2010.tar"
    archive.write_bytes(b"x" * (server / "audios" / archive.name).stat().st_size)
    result = download()
    assert result.code == 1
    assert "original_2010.tar is damaged" in result.err
    archive.unlink()
    # All is there: the server is not asked.
    monkeypatch.setattr(voxpopuli, "DOWNLOAD_BASE_URL", "file:///nowhere")
    assert download().code == 0


def test_download_leaves_what_lhotse_downloaded_alone(run, server: Path, tmp_path: Path) -> None:
    (tmp_path / "dl" / "voxpopuli" / "raw_audios" / "de").mkdir(parents=True)
    result = run("egs/voxpopuli/ASR/local/download.py", "--dl-dir", tmp_path / "dl", "--lang", "de")
    assert result.code == 0
    assert "raw_audios/de is there" in result.out
    assert (tmp_path / "dl" / "voxpopuli" / "asr_de.tsv.gz").is_file()
    result = run("egs/voxpopuli/ASR/local/download.py", "--dl-dir", tmp_path / "dl", "--lang", "fr")
    assert result.code == 1
    assert "Run the same command again to continue" in result.err


@pytest.fixture
def prepare_sh(fast_python: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run prepare.sh with options."""

    def call(*options: object) -> subprocess.CompletedProcess[str]:
        command = [RECIPE / "prepare.sh", *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, env=fast_python)

    return call


def test_unknown_language_is_refused_with_the_list(prepare_sh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = prepare_sh("--lang", "xx")
    assert result.returncode == 2
    letters = runpy.run_path(str(RECIPE / "local" / "normalize.py"))["LETTERS"]
    assert f"--lang is one of {' '.join(letters)}, not 'xx'" in result.stderr
    result = prepare_sh("--segmented", "True")
    assert (result.returncode, result.stderr) == (2, "prepare.sh: --segmented is one of auto true false, not 'True'\n")


def test_from_sessions_to_error_rates(
    audio: Path, corpus: Path, prepare_sh, tmp_path: Path, monkeypatch, capsys
) -> None:
    options = ["--dl-dir", corpus, "--lang", "de", "--data-dir", tmp_path / "data", "--nj", 1, "--vocab-size", 26]
    result = prepare_sh("--stage", 1, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(CutSet.from_jsonl(tmp_path / "data" / "fbank" / "voxpopuli-de_cuts_train.jsonl.gz")) == 4
    changed = next(audio.rglob("*.ogg"))
    changed.touch()
    result = prepare_sh("--stage", 1, "--stop-stage", 1, *options)
    assert f"{changed.name} has changed since stage 1" in result.stdout

    monkeypatch.chdir(tmp_path)
    data = ["--data.prefix", "voxpopuli-de", "--data.lang-dir", "data/lang_bpe_26_de"]
    sizes = ["num_layers=1", "dim=16", "feedforward_dim=32", "summary_dim=16"]
    model = [f"--model.conformer.{size}" for size in sizes] + ["--model.predictor_dim=16", "--model.joiner_dim=16"]
    fast = ["--num-epochs", "1", "--data.num-workers", "0", "--precision", "fp32", "--average-period", "1"]
    config = ["--config", str(RECIPE / "conf" / "conformer.yaml")]
    monkeypatch.setattr(sys, "argv", ["train.py", *config, *data, *model, *fast])
    runpy.run_path(str(RECIPE / "train.py"), run_name="__main__")
    assert load_model(Path("exp"))[2]["recipe"] == "voxpopuli"

    modes = ["--mode", "offline", "simulated", "streaming", "--compare", "--chunk-ms", "640", "--left-chunks", "4"]
    monkeypatch.setattr(sys, "argv", ["decode.py", *modes])
    runpy.run_path(str(RECIPE / "decode.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "simulated and streaming are identical in 2 of 2 utterances" in out
