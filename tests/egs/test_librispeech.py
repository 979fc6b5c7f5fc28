"""LibriSpeech's prepare.sh and run.sh on a miniature tree in the published layout."""

import gzip
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet, SupervisionSet
from lhotse.recipes import prepare_librispeech

from summarymix.data.manifests import read_cuts
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer

RECIPE = Path(__file__).parents[2] / "egs" / "librispeech" / "ASR"
WORDS = ["THE", "CAT", "SAT", "ON", "A", "MAT"]


@pytest.fixture(scope="module")
def dl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the trees of mini LibriSpeech and MUSAN; one file is missing, one is truncated."""
    root = tmp_path_factory.mktemp("download")
    rng = np.random.default_rng(0)
    for part, speakers in (("train-clean-5", (19, 26)), ("dev-clean-2", (84,))):
        for speaker in speakers:
            chapter = root / "LibriSpeech" / part / f"{speaker}" / "198"
            chapter.mkdir(parents=True)
            lines = []
            for i in range(8):
                name = f"{speaker}-198-{i:04d}"
                samples = rng.normal(0, 0.1, int(16000 * rng.uniform(1.2, 2.0))).clip(-1, 1)
                soundfile.write(chapter / f"{name}.flac", samples, 16000)
                lines.append(f"{name} {' '.join(rng.choice(WORDS, 3))}\n")
            (chapter / f"{speaker}-198.trans.txt").write_text("".join(lines))
    for part, seconds in (("music", 16.0), ("noise", 7.0), ("speech", 4.0)):
        folder = root / "musan" / part / "somewhere"
        folder.mkdir(parents=True)
        soundfile.write(folder / f"{part}-0000.wav", rng.normal(0, 0.1, int(16000 * seconds)).clip(-1, 1), 16000)
    train = root / "LibriSpeech" / "train-clean-5" / "19" / "198"
    (train / "19-198-0003.flac").unlink()
    (train / "19-198-0004.flac").write_bytes((train / "19-198-0004.flac").read_bytes()[:9000])
    return root


def command(dl_dir: Path, data_dir: Path, *options: str) -> list[str]:
    tokens = ["--model-type", "char", "--shar", "true"]
    return [str(RECIPE / "prepare.sh"), "--subset", "mini", "--dl-dir", str(dl_dir), "--data-dir", str(data_dir),
            *tokens, *options]  # fmt: skip


Prepare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prepare(fast_python: dict[str, str]) -> Prepare:
    """Run prepare.sh."""
    return lambda *arguments: subprocess.run(command(*arguments), capture_output=True, text=True, env=fast_python)


def contents(data_dir: Path) -> dict[str, bytes]:
    """What the stages have made, unpacked, without the folder's own name and the marks of what is done."""
    made = {}
    for path in sorted(data_dir.rglob("[!.]*")):
        if path.is_file():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if path.name == "measured.jsonl":  # sizes and times of files, some of which are copies
                data = re.sub(rb"\b\d{19}\b", b"TIME", data)
            # The manifest's mark, in the name of its index, depends on the folder's name.
            name = re.sub(r"\.index/\w+/", ".index/", str(path.relative_to(data_dir)))
            made[name] = data.replace(str(data_dir).encode(), b"DATA")
    return made


def test_prepare(dl_dir: Path, prepare: Prepare, tmp_path: Path) -> None:
    """All stages; once more; killed in the features and started again with another number of jobs."""
    done = prepare(dl_dir, tmp_path / "one", "--nj", "2")
    assert done.returncode == 0, done.stderr
    assert "is there" in done.stdout  # nothing is downloaded
    assert "skipped 2: 1 missing audio, 1 truncated audio" in done.stdout
    # 6 + 8 utterances at three speeds
    assert "train-clean-5: 42 utterances" in done.stdout
    assert "19-198-0004" in (tmp_path / "one/manifests/skipped-librispeech-train-clean-5.tsv").read_text()
    assert set("".join(WORDS)) <= set(Tokenizer.from_lang_dir(tmp_path / "one/lang_char").tokens)

    # Windows of 10 s and what is left of more than 5: 10 and 6, 7, none.
    assert len(list(read_cuts(tmp_path / "one/fbank/musan_cuts.jsonl.gz"))) == 3
    assert (tmp_path / "one/shar/train-clean-5.json").is_file()

    again = prepare(dl_dir, tmp_path / "one", "--nj", "2")
    assert again.returncode == 0
    assert again.stdout.count("already done") == 7

    options = ("--nj", "1", "--stop-stage", "3")
    killed = subprocess.Popen(command(dl_dir, tmp_path / "two", *options), start_new_session=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not (tmp_path / "two" / "fbank").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "two/fbank/.librispeech.done").exists()
    resumed = prepare(dl_dir, tmp_path / "two", *options)
    assert resumed.returncode == 0, resumed.stderr
    whole, made = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {f"fbank/librispeech_cuts_{part}.jsonl.gz" for part in ("train-clean-5", "dev-clean-2")} <= made.keys()
    assert made == {name: whole[name] for name in made}

    chapter = dl_dir / "LibriSpeech/train-clean-5/19/198"
    transcripts = chapter / "19-198.trans.txt"
    transcripts.write_text(transcripts.read_text().replace("0000 ", "0000 MAT ", 1))
    edited = prepare(dl_dir, tmp_path / "two", "--stop-stage", "1")
    assert f"{transcripts} has changed since stage 1" in edited.stdout

    shutil.copy(chapter / "19-198-0002.flac", chapter / "19-198-0003.flac")  # the list asks to restore it
    restored = prepare(dl_dir, tmp_path / "two", "--stop-stage", "1")
    (chapter / "19-198-0003.flac").unlink()
    assert f"{chapter}/19-198-0003.flac has changed since stage 1" in restored.stdout
    assert "skipped 1: 1 truncated audio" in restored.stdout


def test_unknown_subsets_and_empty_folders_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    wrong = prepare(tmp_path, tmp_path / "data", "--subset", "99")
    assert wrong.returncode == 2
    assert "--subset is 960, 100 or mini, not '99'" in wrong.stdout
    empty = prepare(tmp_path, tmp_path / "data", "--stage", "1")
    assert empty.returncode == 1
    assert "give --dl-dir, or download them with --stage 0" in empty.stdout


def test_librispeech_is_lhotses_but_not_stopped_by_bad_files(run, tmp_path: Path) -> None:
    folder = tmp_path / "LibriSpeech" / "dev-clean"
    lines = []
    for i in range(6):
        chapter = folder / "19" / "198"
        chapter.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(i).standard_normal(16000) * 0.1
        soundfile.write(chapter / f"19-198-000{i}.flac", samples, 16000)
        lines.append(f"19-198-000{i} SOME WORDS {i}")
    (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n")
    theirs = prepare_librispeech(tmp_path / "LibriSpeech", dataset_parts="dev-clean")["dev-clean"]

    result = run("egs/librispeech/ASR/local/prepare_manifests.py", "--dl-dir", tmp_path, "--parts", "dev-clean")
    assert result.code == 0, result.err
    manifests = tmp_path / "data" / "manifests"
    ours = RecordingSet.from_jsonl(manifests / "librispeech_recordings_dev-clean.jsonl.gz")
    assert list(ours) == sorted(theirs["recordings"], key=lambda recording: recording.id)
    ours = SupervisionSet.from_jsonl(manifests / "librispeech_supervisions_dev-clean.jsonl.gz")
    assert list(ours) == sorted(theirs["supervisions"], key=lambda supervision: supervision.id)

    (chapter / "19-198-0000.flac").unlink()
    (chapter / "19-198-0001.flac").write_bytes(b"")
    lines[2] = "19-198-0002 "
    soundfile.write(chapter / "19-198-0006.flac", samples, 16000)
    assert "Warning" not in result.out
    (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n")
    result = run("egs/librispeech/ASR/local/prepare_manifests.py", "--dl-dir", tmp_path, "--parts", "dev-clean")
    assert result.code == 0, result.err
    skipped = SkippedItems.read(manifests / "skipped-librispeech-dev-clean.tsv")
    assert [(item.id[-1], item.reason) for item in skipped.items] == [
        ("0", "missing audio"),
        ("1", "unreadable audio"),
        ("2", "empty transcript"),
    ]
    assert all(item.file.endswith(f"19/198/{item.id}.flac") for item in skipped.items)
    listing = manifests / "unnamed-audio-librispeech-dev-clean.txt"
    assert listing.read_text() == f"{chapter / '19-198-0006.flac'}\n"
    assert "Warning: 1 audio files have no transcript, for example" in result.out


def test_download_uses_what_is_there_and_ends_in_one_line(run, tmp_path: Path) -> None:
    for part in ("dev-clean-2", "train-clean-5"):
        (tmp_path / "dl" / "LibriSpeech" / part).mkdir(parents=True)
    script = "egs/librispeech/ASR/local/download.py"
    result = run(script, "--dl-dir", "dl", "--mini")
    assert (result.code, result.out.count("is there already")) == (0, 2)
    nowhere = ("--base-url", "http://127.0.0.1:9")
    result = run(script, "--dl-dir", "dl", "--parts", "dev-clean-2", "dev-clean", *nowhere)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith("dev-clean: <urlopen error")


def test_files_to_open_at_a_time_are_at_least_one(run, tmp_path: Path) -> None:
    options = ("--dl-dir", tmp_path, "--parts", "dev-clean-2", "--nj", 0)
    result = run("egs/librispeech/ASR/local/prepare_manifests.py", *options)
    assert (result.code, "--nj: '0' is not a whole number above 0" in result.err) == (2, True), result.err
