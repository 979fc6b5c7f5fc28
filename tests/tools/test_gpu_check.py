"""The check and measurements for a GPU, here on the CPU with tiny sizes."""

import math
import subprocess
import sys
from pathlib import Path

import check_gpu
import pytest

from summarymix.encoder.base import Encoder

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = TOOLS.parent / "egs" / "mini" / "ASR" / "conf" / "conformer.yaml"


def test_the_script_writes_a_page_of_all_measurements(fast_python, tmp_path):
    command = [TOOLS / "gpu_check.sh", "--tiny", "--device", "cpu", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=fast_python)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    page = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "training-short: encoder",
        "training-long: encoder",
        "loss: loss",
        "depthwise: depthwise",
        "streaming: streaming",
    ):
        assert f"## {part}" in page
    assert "conformer + attention" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--cuda"], "unknown option --cuda"), (["--tiny", "--out"], "option --out needs a value; see --help")],
)
def test_wrong_options_are_refused(options: list[str], message: str):
    done = subprocess.run([TOOLS / "gpu_check.sh", *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("difference", [1.1e-4, math.inf, math.nan])
def test_a_large_difference_fails(difference, capsys):
    checks = check_gpu.Checks()
    checks.compare("frames", 0.9e-4, 1e-4)
    assert checks.failed == 0
    checks.compare("frames", difference, 1e-4)
    assert checks.failed == 1
    assert "FAIL frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    "spoil", [lambda frames, state, new: (frames, state), lambda frames, state, new: (frames * math.nan, new)]
)
def test_wrong_streams_are_found(spoil, monkeypatch):
    """Streams whose state is lost, or that are not numbers, differ from the whole utterance."""
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", "--config", str(CONFIG), "--seconds", "2", "--device", "cpu"])
    monkeypatch.setattr(check_gpu, "check_losses", lambda device, checks: None)
    step = Encoder.step

    def spoilt(self, features, state, lengths=None):
        frames, new = step(self, features, state, lengths)
        return spoil(frames, state, new)

    monkeypatch.setattr(Encoder, "step", spoilt)
    with pytest.raises(SystemExit, match="1 comparisons failed"):
        check_gpu.main()
