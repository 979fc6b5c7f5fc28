"""The library in a place of its own, as ``pip install`` puts it, without the repository around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from noise_runs import make_corpus, make_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, a model in ``exp`` and a recording in ``audio.wav``."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(ROOT / "summarymix", folder / "site" / "summarymix")
    (folder / "corpus").mkdir()
    make_corpus(folder / "corpus")
    make_run(folder / "corpus", "merged").rename(folder / "exp")
    soundfile.write(folder / "audio.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    return folder


def run(place: Path, code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run Python code in ``place``, where the library is that of ``place``/site."""
    environment = os.environ | {"PYTHONPATH": str(place / "site")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, **options)


COMMAND = "import sys; sys.argv[0] = 'summarymix'; from summarymix.command import main; main()"


def test_a_model_transcribes_from_another_folder(place: Path) -> None:
    code = "import summarymix; print(summarymix.__file__); print(summarymix.load('exp').transcribe('audio.wav').text)"
    done = run(place, code)
    assert done.returncode == 0, done.stderr
    path, text, *_ = done.stdout.splitlines()
    assert path.startswith(str(place))
    assert text
    commanded = run(place, COMMAND, "transcribe", "exp", "audio.wav")
    assert commanded.returncode == 0, commanded.stderr
    assert text in commanded.stdout


def test_export_and_usage(place: Path) -> None:
    done = run(place, COMMAND, "export", "--exp-dir", "exp", "--format", "torchscript", "--out", "exported")
    assert done.returncode == 0, done.stderr
    assert (place / "exported" / "tokens.txt").is_file()
    assert "summarymix stream MODEL" in run(place, COMMAND, "--help").stdout
    wrong = run(place, COMMAND, "translate")
    assert wrong.returncode == 2
    assert "usage: summarymix transcribe" in wrong.stderr
