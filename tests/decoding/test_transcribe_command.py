"""transcribe.py from the outside: files of all kinds, standard input, output and exit statuses."""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import pytest
import soundfile
from recognizer_cases import LETTERS, NUM_BINS, make_audio, talking_model
from saved_runs import save_epoch

import summarymix
from summarymix.chunking import DynamicChunkConfig
from summarymix.data.config import DataConfig
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.transcribe import _pcm, _read_ahead, main
from summarymix.model import LossConfig
from summarymix.training.averaging import RunningMean
from summarymix.training.config import TrainConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, the first of which was selected, and audio."""
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(
        exp_dir=folder / "exp",
        data=DataConfig(num_mel_bins=NUM_BINS),
        chunk=DynamicChunkConfig(max_left=2),
        loss=LossConfig(rnnt_type="modified"),
    )
    model = talking_model()
    average = RunningMean(model)
    for epoch in (1, 2):
        save_epoch(config.exp_dir, epoch, model, average, LETTERS, config)
        model.joiner.out.bias.data[0] = 100  # never says anything again
    (config.exp_dir / "selected.json").write_text(json.dumps({"epoch": 1, "avg": 1, "splits": ["dev"]}))
    for name, seed in (("a.wav", 0), ("b.flac", 1), ("c.ogg", 2)):
        soundfile.write(folder / name, make_audio(7.5, seed), 16000)
    (folder / "bad.mp3").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Recognizer:
    return summarymix.load(folder / "exp", device="cpu")


def in_shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run ``command``, in which T stands for transcribe.py, and end with the exit status of T."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from summarymix.decoding.transcribe import main; main()"
    script = f'T() {{ {sys.executable} -c {shlex.quote(code)} "$@"; }}; {command}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)


def test_reader_that_leaves_early_and_closed_input_give_no_traceback(folder: Path) -> None:
    done = in_shell(folder, "T exp --device cpu a.wav b.flac c.ogg a.wav b.flac | head -c 1")
    assert (done.returncode, done.stderr) == (141, "")
    assert len(done.stdout) == 1
    done = in_shell(folder, "T exp --device cpu --stdin <&-")
    assert done.returncode == 1
    assert done.stderr == "transcribe.py: --stdin: standard input is closed: pipe 16-bit PCM into it\n"


def transcribe(folder: Path, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main(["exp", "--device", "cpu", *options.split()])


def test_load(folder: Path, recognizer: Recognizer) -> None:
    text = recognizer.transcribe(folder / "a.wav").text
    assert len(text) > 10
    assert recognizer.left_chunks == 2
    assert summarymix.load(folder / "exp" / "epoch-1.pt").transcribe(folder / "a.wav").text == text
    assert summarymix.load(folder / "exp", epoch=2, avg=0).transcribe(folder / "a.wav").text == ""
    with pytest.raises(
        FileNotFoundError, match=r"No .*exq: give the folder of a training run, a checkpoint, or an export"
    ):
        summarymix.load(folder / "exq")
    with pytest.raises(ValueError, match=r"epoch-1.pt is a single checkpoint"):
        summarymix.load(folder / "exp" / "epoch-1.pt", avg=1)


def test_the_example_of_the_documentation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recognizer: Recognizer
) -> None:
    monkeypatch.chdir(folder)
    soundfile.write("talk.mp3", make_audio(6), 16000)
    code = textwrap.dedent(
        "\n".join(line for line in str(sys.modules[Recognizer.__module__].__doc__).splitlines() if line[:1].isspace())
    )
    shown: list[str] = []
    microphone = make_audio(6, rate=48000).split(4800)
    exec(code, {"summarymix": summarymix, "microphone": microphone, "show": shown.append})
    out = capsys.readouterr().out.splitlines()
    assert out[0] == recognizer.transcribe("talk.mp3").text != ""
    assert "".join(out[1:]).split()
    assert any(shown)


def test_text_of_one_and_of_several(folder: Path, monkeypatch, capsys, recognizer: Recognizer) -> None:
    texts = {name: recognizer.transcribe(folder / name, chunk_ms=320).text for name in ("a.wav", "b.flac", "c.ogg")}
    transcribe(folder, "a.wav --chunk-ms 320", monkeypatch)
    assert capsys.readouterr().out == texts["a.wav"] + "\n"
    transcribe(folder, "a.wav --chunk_ms 320 b.flac c.ogg", monkeypatch)
    assert capsys.readouterr().out == "".join(f"{name}: {text}\n" for name, text in texts.items())
    transcribe(folder, "a.wav b.flac --mode offline --window-seconds 5 --overlap-seconds 1 --out-dir out", monkeypatch)
    offline = recognizer.transcribe(folder / "b.flac", mode="offline", window_seconds=5, overlap_seconds=1).text
    assert (folder / "out" / "b.txt").read_text() == offline + "\n"
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.txt", "b.txt"]


def test_other_searches(folder: Path, monkeypatch, capsys) -> None:
    texts = []
    for method in ("greedy_search", "modified_beam_search"):
        recognizer = summarymix.load(folder / "exp", device="cpu")
        recognizer.search = SearchOptions(method).build(recognizer.model, recognizer.tokenizer)
        texts.append(recognizer.transcribe(folder / "a.wav").text)
        transcribe(folder, f"a.wav --method {method}", monkeypatch)
        assert capsys.readouterr().out == texts[-1] + "\n"
    assert texts[0] != texts[1]


def test_json_and_subtitles(folder: Path, monkeypatch, capsys, recognizer: Recognizer) -> None:
    expected = recognizer.transcribe(folder / "a.wav")
    transcribe(folder, "--format json a.wav b.flac", monkeypatch)
    found, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["file"], found["text"], found["duration"]) == ("a.wav", expected.text, 7.5)
    assert found["rtf"] > 0
    assert [word["word"] for word in found["words"]] == [word.word for word in expected.words]
    assert [token["start"] for token in found["tokens"]] == pytest.approx([token.start for token in expected.tokens])
    assert {"start", "end", "confidence"} < found["words"][0].keys()

    transcribe(folder, "--format srt a.wav --cue-chars 5", monkeypatch)
    cues = capsys.readouterr().out.split("\n\n")
    assert re.fullmatch(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\w.*", cues[0])
    assert " ".join(cue.split("\n")[2] for cue in cues[:-1]) == expected.text
    transcribe(folder, "--format vtt a.wav b.flac --out-dir vtt", monkeypatch)
    assert (folder / "vtt" / "b.vtt").read_text().startswith("WEBVTT\n\n00:00:0")


def test_bad_files_are_named_and_the_others_done(folder: Path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit, match=r"transcribe.py: 2 of 4 files could not be transcribed"):
        transcribe(folder, "a.wav bad.mp3 gone.wav b.flac", monkeypatch)
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["a.wav", "b.flac"]
    bad, gone = captured.err.splitlines()
    assert re.fullmatch(r"transcribe.py: bad.mp3: .*ffmpeg.*", bad)
    assert gone == "transcribe.py: gone.wav: no such file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "give either audio files or --stdin"),
        ("--stdin a.wav", "give either audio files or --stdin"),
        ("--stdin --format srt", "--stdin needs"),
        ("a.wav --overlap-seconds inf", "argument --overlap-seconds: 'inf' is not a number above 0"),
        ("--stdin --window-seconds 5", "--window-seconds and --overlap-seconds are for --mode offline"),
        ("a.wav --cue-chars 30", "--cue-chars and --cue-seconds are for --format srt and vtt"),
        ("a.wav --format srt --cue-chars 0", "'0' is not a whole number above 0"),
        ("a.wav b.flac --format srt", "subtitles of 2 files need a folder: give --out-dir"),
        ("a.wav x/a.mp3 --out-dir out", "a.wav and x/a.mp3 would both become out/a.txt"),
        ("a.wav --nbest 3 --method modified_beam_search", "unrecognized arguments: --nbest"),
        ("a.wav --max-sym-per-frame 2", "trained with --loss.rnnt-type modified, at most one token per frame"),
        ("a.wav --beam-size 3", "--beam-size applies to --method modified_beam_search"),
        ("a.wav --chunk-ms 650", "--chunk-ms 650 is not a multiple"),
        ("a.wav --mode offline --overlap-seconds 20", "windows of 30 s with an overlap of 20 s"),
        ("a.wav --epoch 7", r"No checkpoint .*epoch-7.pt"),
    ],
)
def test_mistakes_are_explained(folder: Path, options: str, message: str, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        transcribe(folder, options, monkeypatch)
    assert caught.value.code not in (None, 0)
    assert re.search(message, f"{caught.value.code}\n{capsys.readouterr().err}")


def test_standard_input_of_a_recipe(folder: Path) -> None:
    """A byte that is missing at the end, blocks that cut samples in two, and segments that lose nothing."""
    audio = (make_audio(8, rate=8000) * 32767).short()
    command = [sys.executable, str(ROOT / "egs/mini/ASR/transcribe.py"), str(folder / "exp"), "--stdin"]
    command += ["--sample-rate", "8000", "--endpoint-silence", "0.1", "--max-segment-seconds", "2", "--device", "cpu"]
    command += ["--backend", "torch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        for block in np.array_split(np.frombuffer(audio.numpy().tobytes() + b"\0", np.uint8), 7):
            process.stdin.write(block.tobytes())
            process.stdin.flush()
        out, err = (part.decode() for part in process.communicate())
    assert process.returncode == 0, err
    expected = summarymix.load(folder / "exp", device="cpu").transcribe(audio, 8000)
    segments = out.splitlines()
    assert len(segments) > 1
    letters = "".join(expected.text.split())
    assert "".join(out.split()) == letters
    partials = err.splitlines()
    assert len(partials) > 1
    assert all("".join(partial.split()) in letters for partial in partials)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFF$\0\0\0WAVEfmt ", "--stdin got a file with a header (b'RIFF'), not raw samples: give the file itself"),
        (b"ID3\4" + bytes(100), "--stdin got a file with a header"),
        (b"", "--stdin got no audio: pipe 16-bit PCM into it"),
    ],
)
def test_files_on_standard_input_are_refused(
    folder: Path, data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stdin").write_bytes(data)
    with (folder / "stdin").open() as file, pytest.raises(SystemExit) as caught:
        monkeypatch.setattr(sys, "stdin", file)
        transcribe(folder, "--stdin --backend torch", monkeypatch)
    assert message in str(caught.value.code)


def test_samples_of_standard_input_in_blocks_of_any_size() -> None:
    data = np.random.default_rng(0).bytes(100)
    for size in (1, 2, 3, 7, 100):
        blocks = [data[i : i + size] for i in range(0, len(data), size)]
        np.testing.assert_array_equal(np.concatenate(list(_pcm(blocks))), np.frombuffer(data, "<i2"))
    assert [len(samples) for samples in _pcm([b"ab"])] == [1]
    for data in (b"RIFF$", b"ID3\4"):
        with pytest.raises(ValueError, match="a file with a header"):
            list(_pcm([data[i : i + 1] for i in range(len(data))]))
    assert len(np.concatenate(list(_pcm([b"abcdef", b"RIFF"])))) == 5
    with pytest.raises(ValueError, match="got no audio"):
        list(_pcm([b"a"]))


def test_standard_input_is_read_while_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More is written than fits the pipe before anything is taken."""
    source, sink = os.pipe()
    data = np.random.default_rng(0).bytes(1 << 18)

    def write() -> None:
        with os.fdopen(sink, "wb") as file:
            file.write(data)

    writer = Thread(target=write, daemon=True)
    with os.fdopen(source, "rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        with _read_ahead() as blocks:
            writer.start()
            writer.join(timeout=20)
            assert not writer.is_alive()
            assert b"".join(blocks) == data


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, even if the tests run in the background, where shells let it be ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_ctrl_c_ends_live_audio_and_loses_none(interruptible: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording program keeps the pipe open."""
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as file, os.fdopen(sink, "wb", buffering=0) as recorder:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(KeyboardInterrupt), _read_ahead() as blocks:
            recorder.write(b"abc")
            taken = [next(blocks)]
            for piece in (b"def", b"ghi"):
                recorder.write(piece)
                while select.select([file], [], [], 0)[0]:  # until the thread has read it
                    sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            taken += blocks
            # The thread may not have passed on the last piece.
            assert b"".join(taken) in (b"abcdef", b"abcdefghi")
            os.kill(os.getpid(), signal.SIGINT)
            sleep(20)
