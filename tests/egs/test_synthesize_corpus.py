import importlib.util
import os
import sys
import time
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile
from programs import run_program

SCRIPT = Path(__file__).parents[2] / "egs" / "mini" / "ASR" / "local" / "synthesize_corpus.py"


@pytest.fixture(scope="module")
def corpus():
    spec = importlib.util.spec_from_file_location("synthesize_corpus", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthesize_corpus"] = module
    spec.loader.exec_module(module)
    return module


def tasks(corpus, out_dir: Path) -> list:
    speakers = [("train", "f2"), ("train", "Mr serious"), ("test", "whisper")]
    return [corpus.Task(split, speaker, 8.0, 1, out_dir) for split, speaker in speakers]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_files_whatever_the_jobs_and_interruptions(corpus, tmp_path: Path) -> None:
    corpus.run(tasks(corpus, tmp_path / "a"), 1)
    time.sleep(1)  # espeak-ng would seed itself with the second
    corpus.run(tasks(corpus, tmp_path / "b"), 3)
    expected = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == expected
    assert sum(name.endswith(".flac") for name in expected) >= 9

    # Killed while the second voice was being written: its rows are missing, a file is broken.
    done, _, again = tasks(corpus, tmp_path / "b")
    again.table.unlink()
    (again.folder / f"test-{again.id}-9999.flac").write_bytes(b"broken")
    stamp = done.table.stat().st_mtime_ns
    corpus.run(tasks(corpus, tmp_path / "b"), 2)
    assert contents(tmp_path / "b") == expected
    assert done.table.stat().st_mtime_ns == stamp


def test_audio_and_transcripts(corpus, tmp_path: Path) -> None:
    known = {word for text in (*corpus.COMMANDS, *corpus.COMMANDS_WITH_DIGITS) for word in text.split()}
    known |= set(corpus.DIGITS)
    corpus.run(tasks(corpus, tmp_path), 2)
    seconds = 0.0
    for task in tasks(corpus, tmp_path):
        for line in task.table.read_text().splitlines():
            audio, text, name, speaker, split = line.split("\t")
            samples, rate = soundfile.read(tmp_path / audio)
            assert rate == 16000
            assert samples.ndim == 1
            assert 0.01 < np.abs(samples).max() < 1.0
            assert set(text.split()) <= known
            assert name.startswith(f"{split}-{speaker}-")
            seconds += len(samples) / rate
    assert 24 <= seconds < 50


def test_voices_exist_and_belong_to_one_split(corpus) -> None:
    voices = [voice for split in corpus.VOICES.values() for voice in split]
    assert len(voices) == len(set(voices))
    there = os.listdir(Path(espeakng_loader.get_data_path()) / "voices" / "!v")
    assert set(voices) <= set(there)
    # A voice and its numbered copies: Gene and Gene2, iven and iven4
    for split, names in corpus.VOICES.items():
        for other, others in corpus.VOICES.items():
            if split != other:
                stems = {name.rstrip("0123456789").lower() for name in names if len(name) > 2}
                assert not stems & {name.rstrip("0123456789").lower() for name in others if len(name) > 2}


def test_unknown_voice(corpus) -> None:
    with pytest.raises(ValueError, match="no voice 'gmw/nope'"):
        corpus.Espeak().speak("one", "gmw/nope", 150, 50, 50, 0)


def test_a_voice_that_fails_is_named(corpus, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(corpus, "ACCENTS", ("gmw/nope",))
    with pytest.raises(SystemExit, match="Voice 'f2' failed with exit code 1"):
        corpus.run(tasks(corpus, tmp_path)[:1], 1)


def test_errors_that_the_user_can_fix_take_one_line(corpus, tmp_path: Path, capfd) -> None:
    first = tasks(corpus, tmp_path)[0]
    first.folder.mkdir(parents=True)
    (first.folder / "notes.txt").touch()
    with pytest.raises(SystemExit, match="Voice 'f2' failed with exit code 1"):
        corpus.run([first], 1)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"synthesize_corpus.py: {first.folder} is in the way: ")
    (tmp_path / "file").touch()
    result = run_program(SCRIPT, "--out-dir", tmp_path / "file", "--nj", 1)
    lines = result.stderr.splitlines()
    assert (result.returncode, "Traceback" in lines, "Voice 'Alex' failed with exit code 1" in lines) == (
        1,
        False,
        True,
    )
    assert f"synthesize_corpus.py: [Errno 20] Not a directory: '{tmp_path}/file/train/Alex'" in lines
