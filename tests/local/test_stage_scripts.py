"""The stage scripts as they are called by prepare.sh: exit codes and what they tell."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSegment
from lhotse.recipes import prepare_musan

from summarymix.data.manifests import write_manifest
from summarymix.data.tokens import Tokenizer


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["audio\ttext\tspeaker\tsplit"]
    for i in range(12):
        samples = np.random.default_rng(i).standard_normal(12000) * 0.1
        soundfile.write(tmp_path / f"{i}.wav", samples, 16000)
        rows.append(f"{i}.wav\tTURN LEFT {'ONE TWO' if i % 2 else 'THREE'}\ts{i // 3}\t{'train' if i < 9 else 'dev'}")
    rows.append("nope.wav\tSTOP\ts0\ttrain")
    (tmp_path / "table.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.tsv"


def test_table_to_tokens(run, table: Path, tmp_path: Path) -> None:
    result = run("local/prepare_table.py", "--table", table, "--audio-dir", tmp_path, "--prefix", "p")
    assert result.code == 0, result.err
    assert "skipped 1: 1 missing audio; see data/manifests/skipped-p-table.tsv" in result.out

    (tmp_path / "0.wav").unlink()
    result = run("local/compute_fbank.py", "--prefix", "p", "--splits", "train", "dev")
    assert result.code == 0, result.err
    assert "train: skipped 1: 1 missing audio; see data/fbank/skipped-p-train-audio.tsv" in result.out
    assert "dev: skipped 0" in result.out

    (tmp_path / "1.wav").unlink()
    result = run("local/validate_cuts.py", "--prefix", "p", "--splits", "train", "dev", "--disjoint-speakers")
    assert result.code == 0, result.err
    assert "train: 7 utterances" in result.out
    assert "train: skipped 1: 1 bad audio; see data/fbank/skipped-p-train-validate.tsv" in result.out

    supervisions = "data/manifests/p_supervisions_train.jsonl.gz"
    result = run("local/train_bpe.py", "--supervisions", supervisions, "--lang-dir", "l", "--vocab-size", 900)
    assert result.code == 1
    assert "--vocab-size 900 is too large" in result.err
    assert not (tmp_path / "l").exists()
    result = run("local/train_bpe.py", "--supervisions", supervisions, "--lang-dir", "l", "--vocab-size", 15)
    assert result.code == 0, result.err
    assert "l: 15 tokens from 9 transcripts with 31 words" in result.out
    assert Tokenizer.from_lang_dir(tmp_path / "l").vocab_size == 15

    result = run("local/index_cuts.py", "--prefix", "p", "--splits", "train", "--lang-dir", "l", "--nj", 2)
    assert result.code == 0, result.err
    assert "train: 7 cuts indexed in data/fbank/p_cuts_train.index" in result.out


def test_features_of_unfinished_splits_come_first(run, table: Path, tmp_path: Path) -> None:
    run("local/prepare_table.py", "--table", table, "--audio-dir", tmp_path, "--prefix", "p")
    run("local/compute_fbank.py", "--prefix", "p", "--splits", "train")
    result = run("local/compute_fbank.py", "--prefix", "p", "--splits", "train", "dev")
    assert result.code == 0, result.err
    assert result.out.index("dev: skipped 0") < result.out.index("train: skipped 0")


def test_speakers_in_two_splits_are_refused_if_asked(run, table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text().replace("s3", "s2"))
    run("local/prepare_table.py", "--table", table, "--audio-dir", tmp_path, "--prefix", "p")
    run("local/compute_fbank.py", "--prefix", "p", "--splits", "train", "dev", "--storage", "none")
    result = run("local/validate_cuts.py", "--prefix", "p", "--splits", "train", "dev", "--disjoint-speakers")
    assert result.code == 1
    assert "train and dev share 1 speakers: s2\n" in result.out
    assert "move each speaker's utterances to one split" in result.err
    assert (tmp_path / "data/fbank/p-shared-speakers.tsv").read_text() == "s2\ttrain\tdev\n"


def test_musan(run, tmp_path: Path) -> None:
    for part, seconds in (("music", 25), ("noise", 7), ("speech", 4)):
        for source in ("b", "a"):
            folder = tmp_path / "musan" / part / source
            folder.mkdir(parents=True)
            samples = np.random.default_rng(0).standard_normal(seconds * 16000) * 0.1
            soundfile.write(folder / f"{part}-{source}-0000.wav", samples, 16000)
            (folder / "ANNOTATIONS").write_text(f"{part}-{source}-0000 rock,pop N somebody\n")
    theirs = prepare_musan(tmp_path / "musan")
    (tmp_path / "musan" / "noise" / "c.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "musan" / "music" / "d.wav", np.zeros((16000, 2)), 16000)

    result = run("local/prepare_musan.py", "--dl-dir", tmp_path)
    assert result.code == 0, result.err
    assert "musan noise: 2 recordings, 0.00 h, skipped 1: 1 unreadable audio" in result.out
    assert "musan music: 2 recordings, 0.01 h, skipped 1: 1 several channels" in result.out
    for part in ("music", "noise", "speech"):
        ours = RecordingSet.from_jsonl(tmp_path / "data" / "manifests" / f"musan_recordings_{part}.jsonl.gz")
        expected = sorted(theirs[part]["recordings"], key=lambda recording: recording.id)
        assert [recording.id for recording in ours] == [f"{part}-{source}-{part}-{source}-0000" for source in "ab"]
        assert [replace(one, id="") for one in ours] == [replace(other, id="") for other in expected]

    command = (
        "local/compute_fbank.py",
        "--prefix",
        "musan",
        "--splits",
        "music",
        "noise",
        "speech",
        "--noise-windows",
        10,
    )
    result = run(*command, "--nj", 1)
    assert result.code == 0, result.err
    assert "musan: skipped 0" in result.out
    assert "musan: 2 recordings of 5 s or less are left out" in result.err
    manifest = tmp_path / "data" / "fbank" / "musan_cuts.jsonl.gz"
    cuts = CutSet.from_jsonl_lazy(manifest)
    assert sorted((cut.id, cut.duration) for cut in cuts) == [
        ("music-a-music-a-0000-0", 10),
        ("music-a-music-a-0000-1", 10),
        ("music-b-music-b-0000-0", 10),
        ("music-b-music-b-0000-1", 10),
        ("noise-a-noise-a-0000-0", 7),
        ("noise-b-noise-b-0000-0", 7),
    ]
    first = manifest.read_bytes()
    manifest.unlink()
    run(*command, "--nj", 2)
    assert manifest.read_bytes() == first

    result = run("local/prepare_musan.py", "--dl-dir", tmp_path / "musan")
    assert result.code == 1
    assert "--dl-dir must contain musan/music" in result.err


def test_export_shar(run, table: Path, tmp_path: Path) -> None:
    run("local/prepare_table.py", "--table", table, "--audio-dir", tmp_path, "--prefix", "p")
    run("local/compute_fbank.py", "--prefix", "p", "--splits", "train", "dev")
    options = ("--prefix", "p", "--splits", "train", "dev", "--recording", "flac", "--shard-size", 4, "--nj", 1)
    result = run("local/export_shar.py", *options)
    assert result.code == 0, result.err
    assert result.out == "train: skipped 0\ndev: skipped 0\n"
    assert sorted(path.name for path in (tmp_path / "data" / "shar").rglob("*0001.*")) == [
        "cuts.000001.jsonl.gz",
        "features.000001.tar",
        "recording.000001.tar",
    ]
    result = run("local/export_shar.py", "--prefix", "p", "--splits", "train", "--features", "none")
    assert result.code == 2
    assert "leaves nothing to export" in result.err


def test_dask_is_asked_for_only_if_wanted(run, table: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    run("local/prepare_table.py", "--table", table, "--audio-dir", tmp_path, "--prefix", "p")
    options = ("local/compute_fbank.py", "--prefix", "p", "--splits", "dev", "--executor")
    result = run(*options, "dask")
    assert result.code == 1
    assert "pip install distributed" in result.err
    result = run(*options, "thread", "--dask-scheduler", "tcp://x:1")
    assert result.code == 2
    assert "--dask-scheduler needs --executor dask" in result.err
    assert run(*options, "thread").code == 0


def test_musan_is_downloaded_unless_it_is_there(run, tmp_path: Path) -> None:
    (tmp_path / "dl" / "musan").mkdir(parents=True)
    result = run("local/download_musan.py", "--dl-dir", "dl")
    assert (result.code, result.out) == (0, "dl/musan is there already\n")


def test_what_the_user_can_mend_is_told_in_one_line(run) -> None:
    result = run("local/compute_fbank.py", "--prefix", "p", "--splits", "train")
    assert result.code == 1
    assert "compute_fbank.py: No manifest" in result.err
    result = run(
        "local/compute_fbank.py", "--prefix", "p", "--splits", "train", "--sample-rate", 8000, "--num-mel-bins", 128
    )
    assert "compute_fbank.py: " in result.err
    assert "128" in result.err
    result = run("local/validate_cuts.py", "--prefix", "p", "--splits", "train")
    assert "validate_cuts.py: No manifest" in result.err
    result = run("local/train_bpe.py", "--supervisions", "nope.jsonl.gz", "--lang-dir", "l")
    assert "train_bpe.py: " in result.err
    assert "nope.jsonl.gz" in result.err


SPLIT = ("--prefix", "p", "--splits", "train")


@pytest.mark.parametrize(
    ("script", "options", "code", "message"),
    [
        ("compute_fbank.py", (*SPLIT, "--sample-rate", 16), 1, "sample_rate must be at least 1000 Hz, not 16"),
        (
            "compute_fbank.py",
            (*SPLIT, "--noise-windows", 0),
            2,
            "argument --noise-windows: '0' is not a number above 0",
        ),
        ("compute_fbank.py", (*SPLIT, "--speed-perturb", "0,1.1"), 2, "--speed-perturb: '0' is not a number above 0"),
        ("export_shar.py", (*SPLIT, "--shard-size", 0), 2, "--shard-size: '0' is not a whole number above 0"),
        ("train_rnn_lm.py", ("--num-epochs", "0.5"), 2, "--num-epochs: '0.5' is not a whole number above 0"),
        (
            "train_ngram.py",
            ("--words", "--out", "x"),
            2,
            "there is nothing to read: give --supervisions, --text, or both",
        ),
        ("train_rnn_lm.py", ("--lr", "nan"), 2, "--lr: 'nan' is not a number above 0"),
    ],
)
def test_numbers_without_meaning_are_refused(run, script: str, options: tuple, code: int, message: str) -> None:
    result = run(f"local/{script}", *options)
    assert (result.code, message in result.err) == (code, True), result.err


def test_tokens_per_word_are_those_of_the_normalised_texts(run, tmp_path: Path) -> None:
    supervisions = [SupervisionSegment(f"u{i}", "r", i, 1, text="one - two") for i in range(3)]
    write_manifest(supervisions, tmp_path / "s.jsonl.gz")
    options = ("--model-type", "char", "--text-case", "upper", "--punctuation", "remove")
    result = run("local/train_bpe.py", "--supervisions", "s.jsonl.gz", "--lang-dir", "l", *options)
    assert "from 3 transcripts with 6 words, 4.00 tokens per word" in result.out
    assert "Warning" not in result.out


def test_characters_without_a_token_are_told(run, tmp_path: Path) -> None:
    texts = ["ab", "ab", "abc", "d"]
    write_manifest(
        [SupervisionSegment(f"u{i}", "r", i, 1, text=t) for i, t in enumerate(texts)], tmp_path / "s.jsonl.gz"
    )
    options = ("--supervisions", "s.jsonl.gz", "--lang-dir", "l", "--model-type", "char")
    result = run("local/train_bpe.py", *options, "--vocab-size", 5)
    told = "Warning: 2 characters have no token, such as 'c': training leaves out the 2 transcripts with them. "
    assert f"{told}--vocab-size 7 has them all" in result.out
    assert "Warning" not in run("local/train_bpe.py", *options, "--vocab-size", 7).out


def test_pieces_that_sentencepiece_reserves_are_told(run, tmp_path: Path) -> None:
    """sentencepiece leaves them out, so that a larger vocabulary does not have their characters."""
    supervisions = [SupervisionSegment(f"u{i}", "r", i, 1, text=t) for i, t in enumerate(["ab", "a <unk>", "<unk> b"])]
    write_manifest(supervisions, tmp_path / "s.jsonl.gz")
    options = ("--supervisions", "s.jsonl.gz", "--lang-dir", "l", "--model-type", "char")
    result = run("local/train_bpe.py", *options)
    assert "Warning: 2 transcripts contain <unk>, " in result.out
    assert "--vocab-size" not in result.out
    assert (
        "such as 'b': training leaves out the 1 transcripts"
        in run("local/train_bpe.py", *options, "--vocab-size", 4).out
    )
