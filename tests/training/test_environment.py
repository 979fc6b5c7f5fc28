"""What a run says about itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_toy import run, toy_config

from summarymix import optional_k2
from summarymix.distributed import World
from summarymix.training.environment import environment

K2 = (SimpleNamespace(__version__="1.24.4", with_cuda=False), "")


@pytest.mark.parametrize(
    ("asked", "fastemit", "found", "words"),
    [
        ("auto", 0.0, (None, "it is not installed"), "native, because k2 cannot be used: it is not installed"),
        ("auto", 0.0, K2, "k2 1.24.4"),
        ("auto", 0.01, K2, "native, because k2 has no FastEmit"),
        ("native", 0.01, K2, "native, as requested"),
    ],
)
def test_loss_backend_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, fastemit: float, found: Any, words: str
) -> None:
    monkeypatch.setattr(optional_k2, "load", lambda: found)
    config = toy_config(tmp_path)
    config.loss.backend, config.loss.fastemit = asked, fastemit
    assert environment(config, World(torch.device("cpu")))["loss"] == words


def test_run_says_what_it_computes_with_and_logs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    run(toy_config(tmp_path, num_epochs=1, accumulate=2, precision="bf16"))
    start = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert start["kind"] == "start"
    expected = {"torch": torch.__version__, "precision": "bf16", "world_size": 1, "threads": threads, "accumulate": 2}
    assert expected.items() <= start.items()
    first_line = capsys.readouterr().err.splitlines()[0]
    for name in (*expected, "device", "loss", "features", "optimizer"):
        assert f"{name}: {start[name]}" in first_line


def test_k2_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optional_k2, "load", lambda: (None, "it is not installed"))
    config = toy_config(tmp_path / "exp")
    config.loss.backend = "k2"
    with pytest.raises(ImportError, match="it is not installed"):
        run(config)
    assert not (tmp_path / "exp").exists()
