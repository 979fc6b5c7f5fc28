"""export.py from the outside: checkpoints of a random model, folders and exit statuses."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from export_cases import FBANK, make_model, save_run

from summarymix.data.config import DataConfig
from summarymix.export.cli import main
from summarymix.export.onnx import read_metadata
from summarymix.runs import load_model

RECIPE = Path(__file__).parents[2] / "egs" / "mini" / "ASR"


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, of which the first has been selected."""
    folder = tmp_path_factory.mktemp("exp")
    model = make_model("conformer", num_layers=1, decay_seconds=0.4)
    save_run(model, DataConfig(num_mel_bins=FBANK.num_mel_bins), folder)
    return folder


def test_the_recipe_exports_what_was_selected(exp_dir: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Or what is asked for."""
    for options, run, chunk in (
        ("", "epoch 1, avg 0", "chunk 640 ms, left context 4 chunks"),
        ("--epoch 2 --avg 1 --chunk_ms 160 --left-chunks -1", "epoch 2, avg 1", "chunk 160 ms, left context unlimited"),
    ):
        out = tmp_path / "a" / run
        command = ["export.py", "--exp_dir", str(exp_dir), "--format", "torchscript", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", command + options.split())
        runpy.run_path(str(RECIPE / "export.py"), run_name="__main__")
        said = capsys.readouterr()
        assert ("epoch 1, avg 0 selected on dev" in said.err) == (options == "")
        assert f"mini, {run}, torchscript, {chunk}; checked against the model" in said.out
        text = (out / "README.md").read_text()
        assert f"# mini, {run}\n" in text
        assert ("left context of 4 chunks" in text) == ("4 chunks" in chunk)
        assert f"| fp32 | {chunk.split()[1]} ms | 0 ms |" in text
        assert ("create a stream for each utterance" in text) == ("unlimited" in chunk)
        logits = torch.jit.load(out / "joiner.pt")(torch.zeros(1, 12), torch.zeros(1, 12))
        model, *_ = load_model(exp_dir, *map(int, re.findall(r"\d+", run)))
        torch.testing.assert_close(logits[0], model.joiner.out.bias)


def test_a_single_checkpoint_is_exported(exp_dir: Path, tmp_path: Path, capsys) -> None:
    """As transcribe.py takes one."""
    options = ["--exp-dir", str(exp_dir / "epoch-2.pt"), "--format", "torchscript", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="is a single checkpoint: to use --epoch and --avg, give its folder"):
        main("mini", [*options, "--avg", "1"])
    with pytest.raises(SystemExit, match="is a run of the recipe mini, this is librispeech"):
        main("librispeech", options)
    main("mini", options)
    said = capsys.readouterr()
    assert "mini, epoch 2, avg 0, torchscript" in said.out
    assert said.err == ""


def test_offline_with_a_mean_that_decays(exp_dir: Path, tmp_path: Path) -> None:
    """The duration of its only chunk is not known when the graph is made."""
    main("mini", ["--exp-dir", str(exp_dir), "--format", "onnx", "--int8", "--out", str(tmp_path / "out")])
    for name in ("encoder.onnx", "encoder.int8.onnx"):
        metadata = read_metadata(tmp_path / "out" / name)
        assert metadata["model_type"] == "conformer"
        assert metadata["comment"] == "SummaryMixing transducer, mini, epoch 1, avg 0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format onnx --chunk-ms 640", "--format onnx has full context"),
        ("--format torchscript --chunk-ms 50", "--chunk-ms 50 is not a multiple of the encoder's frame of 40 ms"),
        ("--format torchscript --chunk-ms 0", "--chunk-ms 0 is not a multiple"),
        ("--format torchscript --left-chunks -2", "left context is -1"),
        ("--format torchscript --int8", "--int8 only applies to ONNX"),
        ("--format onnx-streaming --fp16 --left-chunks -1", "--fp16 needs a limited left context"),
        ("--format torchscript --chunk-ms 320 320", "--chunk-ms or --lookahead-ms has a value twice"),
        ("--format torchscript --epoch 7", "epoch-7.pt; epochs in .*: 1, 2"),
        ("--format coreml", "invalid choice: 'coreml'"),
        ("--format torchscript --out exp", "exp is there already"),
    ],
)
def test_wrong_options_are_named(
    exp_dir: Path, tmp_path: Path, monkeypatch, capsys, options: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "epoch-1.pt").touch()
    with pytest.raises(SystemExit) as caught:
        main("mini", ["--exp-dir", str(exp_dir), "--out", str(tmp_path / "out"), *options.split()])
    assert caught.value.code
    said = f"{caught.value.code}\n{capsys.readouterr().err}"
    assert re.search(message, said), said
    assert [path.name for path in tmp_path.iterdir()] == ["exp"]


def test_other_recipes_and_missing_packages_are_named(exp_dir: Path, tmp_path: Path, monkeypatch) -> None:
    options = ["--exp-dir", str(exp_dir), "--out", str(tmp_path / "out"), "--format", "onnx"]
    with pytest.raises(SystemExit, match="is a run of the recipe mini, this is librispeech"):
        main("librispeech", options)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit, match="pip install onnx onnxruntime onnxscript"):
        main("mini", options)
    assert not list(tmp_path.iterdir())
