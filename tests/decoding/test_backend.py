"""Streams of a trained model by ONNX Runtime in the place of PyTorch."""

import errno
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import make_audio, make_model, save_run

import summarymix
from summarymix.chunking import ChunkConfig
from summarymix.data.config import DataConfig
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.export.bundle import Export
from summarymix.export.onnx_step import CACHE, OnnxStep

SETTING = {"chunk_ms": 320, "left_chunks": 2, "lookahead_ms": 80}
SECONDS = (0.02, 0.3, 2.1, 3.0)  # the last chunks of most are partial


def make_run(folder: Path) -> Path:
    save_run(make_model("conformer"), DataConfig(num_mel_bins=16), folder)
    return folder


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is exported for ``SETTING``."""
    exp_dir = make_run(tmp_path_factory.mktemp("run") / "exp")
    summarymix.load(exp_dir, device="cpu", backend="onnx").streams(1, **SETTING)
    return exp_dir


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Export, out: Path) -> None:
        raise AssertionError(f"{out} is exported")

    monkeypatch.setattr(Export, "write", fail)


def load(exp_dir: Path, backend: str | None, method: str = "greedy_search") -> Recognizer:
    recognizer = summarymix.load(exp_dir, device="cpu", backend=backend)
    recognizer.set_search(SearchOptions(method))
    return recognizer


def streamed_together(recognizer: Recognizer) -> list[list[tuple]]:
    """Tokens, with frames, of streams of different lengths that are decoded together."""
    streams = recognizer.streams(len(SECONDS), **SETTING)
    live = [streams.open(endpointing=None) for _ in SECONDS]
    for stream, seconds in zip(live, SECONDS, strict=True):
        stream.push(make_audio(4.0, seed=3)[: round(16000 * seconds)])
        stream.end()
    while len(streams):
        streams.step()
    assert isinstance(streams.recognizer.search.model, OnnxStep) == (recognizer.backend is not None)
    hypotheses = [stream._stream.hypothesis for stream in live]
    return [list(zip(one.tokens, one.frames, one.log_probs, strict=True)) for one in hypotheses]


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_streams_get_the_text_and_times_of_pytorch(exp_dir: Path, method: str) -> None:
    found, expected = (streamed_together(load(exp_dir, backend, method)) for backend in ("onnx", None))
    assert len(expected[-1]) > 5
    for one, other in zip(found, expected, strict=True):
        assert [token[:2] for token in one] == [token[:2] for token in other]
        assert [token[2] for token in one] == pytest.approx([token[2] for token in other], abs=1e-4)


@pytest.mark.usefixtures("no_export")
def test_a_line_says_which(exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export is made once; a second one of the same model finds it."""
    audio = make_audio(1.5)
    texts = [load(exp_dir, backend).transcribe(audio, **SETTING).text for backend in (None, "torch")]
    assert capsys.readouterr().err == ""
    recognizer = load(exp_dir, "auto")
    texts += [recognizer.transcribe(audio, **SETTING).text for _ in range(2)]
    assert capsys.readouterr().err == f"streaming step: ONNX Runtime, exported in {exp_dir / CACHE}\n"
    single = summarymix.load(exp_dir / "epoch-1.pt", device="cpu", backend="auto")  # the selected weights
    texts.append(single.transcribe(audio, **SETTING).text)
    assert len(set(texts)) == 1
    assert len(texts[0]) > 3


@pytest.mark.parametrize("method", ["ctc_greedy_search", "ctc_prefix_beam_search"])
@pytest.mark.usefixtures("no_export")
def test_other_searches_use_pytorch(exp_dir: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    load(exp_dir, "auto", method).transcribe(np.zeros(0), **SETTING)
    assert "streaming step: PyTorch (" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs the method greedy_search or modified_beam_search"):
        load(exp_dir, "onnx", method).transcribe(np.zeros(0), **SETTING)


def test_where_an_export_is_impossible_pytorch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exp_dir, audio = make_run(tmp_path / "exp"), make_audio(1.5)
    expected = load(exp_dir, None).transcribe(audio, **SETTING)

    def check(reason: str, error: type[Exception]) -> None:
        recognizer = load(exp_dir, "auto")
        assert [recognizer.transcribe(audio, **SETTING) for _ in range(2)] == [expected] * 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("streaming step: PyTorch (")
        assert reason in line
        with pytest.raises(error, match=reason):
            load(exp_dir, "onnx").transcribe(audio, **SETTING)

    (exp_dir / CACHE).touch()  # as in a folder that is read-only
    check(str(exp_dir / CACHE), OSError)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check("pip install onnx onnxruntime onnxscript", ImportError)


def test_exports_are_named_by_the_model(
    exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other weights are exported anew, in place of the earlier ones; of two processes at once, the slower one takes the
    files of the faster one."""
    copy = tmp_path / "exp"
    shutil.copytree(exp_dir, copy)
    [name] = [path.name for path in (copy / CACHE).iterdir()]
    checkpoint = torch.load(copy / "epoch-1.pt", weights_only=True)
    checkpoint["model"]["joiner.out.bias"][0] += 0.1
    torch.save(checkpoint, copy / "epoch-1.pt")
    written = []

    def slower(self: Export, out: Path) -> None:
        shutil.copytree(copy / CACHE / name, out)
        written.append(out)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(out))

    monkeypatch.setattr(Export, "write", slower)
    recognizer = load(copy, "onnx")
    for _ in range(2):
        recognizer.streams(1, **SETTING)
    assert len(written) == 1
    assert [path.name for path in (copy / CACHE).iterdir()] == [written[0].name] != [name]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"streaming step: ONNX Runtime, exported to {written[0]} (once, ")
    assert second == f"streaming step: ONNX Runtime, exported in {copy / CACHE}"


def test_streams_do_not_need_the_files_of_an_export_any_more(exp_dir: Path, tmp_path: Path) -> None:
    """A recogniser with other weights replaces the export, before or between the chunks of this one."""
    copy, audio = tmp_path / "exp", make_audio(1.5)
    shutil.copytree(exp_dir, copy)
    recognizer = load(copy, "onnx")
    stream = recognizer.stream(**SETTING)
    shutil.rmtree(copy / CACHE)
    segments = [*stream.accept(audio), *stream.finish()]
    again = recognizer.stream(**SETTING)
    assert [*again.accept(audio), *again.finish()] == segments
    assert not (copy / CACHE).exists()


def test_a_damaged_export_is_named(exp_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, audio = tmp_path / "exp", make_audio(1.5)
    shutil.copytree(exp_dir, copy)
    [folder] = (copy / CACHE).iterdir()
    whole = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(whole[: len(whole) // 2])
    expected = load(copy, None).transcribe(audio, **SETTING)
    assert load(copy, "auto").transcribe(audio, **SETTING) == expected
    assert f"{folder} is damaged: delete it" in capsys.readouterr().err
    (folder / "encoder.onnx").unlink()
    with pytest.raises(ValueError, match=r"is damaged: delete it \(No .*encoder\.onnx"):
        load(copy, "onnx").transcribe(audio, **SETTING)


def test_a_failure_concerns_its_setting_only(exp_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = load(exp_dir, "auto")

    def fail(self: Export, out: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    monkeypatch.setattr(Export, "write", fail)
    for chunk_ms, is_onnx in ((320, True), (160, False), (320, True), (160, False)):
        streams = recognizer.streams(1, **SETTING | {"chunk_ms": chunk_ms})
        assert isinstance(streams.recognizer.search.model, OnnxStep) == is_onnx


def test_settings_share_decoder_and_joiner(exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "exp"
    shutil.copytree(exp_dir, copy)
    [folder] = (copy / CACHE).iterdir()
    monkeypatch.setattr(Export, "write", lambda self, out: shutil.copytree(folder, out))
    recognizer = load(copy, "onnx")
    one, other = (recognizer.backend._cache.get(ChunkConfig(size, 2, 2)).model for size in (8, 4))
    assert one.encoder is not other.encoder
    assert one.predictor is other.predictor
    assert one.joiner is other.joiner


def test_exported_models_need_onnx_runtime(exp_dir: Path) -> None:
    [folder] = (exp_dir / CACHE).iterdir()
    assert summarymix.load(folder, backend="auto").backend is None
    with pytest.raises(ValueError, match="is an exported model, which only ONNX Runtime computes"):
        summarymix.load(folder, backend="torch")
