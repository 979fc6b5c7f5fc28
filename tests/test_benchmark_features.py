import json
import runpy
import sys
from pathlib import Path

import soundfile
import torch

from summarymix.data.check_features import generated_audio

PROGRAM = Path(__file__).parents[1] / "tools" / "benchmark_features.py"


def test_the_table_and_the_file_have_every_backend_and_number_of_threads(monkeypatch, capsys, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", generated_audio(0.5, 8000).numpy(), 8000)
    options = f"--audio {tmp_path}/a.flac {tmp_path}/a.flac --sample-rate 8000 --num-mel-bins 40 --rounds 2"
    backends = ["lhotse", "kaldi-native-fbank"]
    command = [*options.split(), "--backends", *backends, "--threads", "1", "2", "--json", str(tmp_path / "b.json")]
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *command])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        torch.set_num_threads(threads)

    out = capsys.readouterr().out
    assert out.startswith("2 recordings, 1 s, 8000 Hz, 40 bins, 2 rounds")
    results = json.loads((tmp_path / "b.json").read_text())["results"]
    assert [(result["backend"], result["threads"]) for result in results] == [(b, t) for t in (1, 2) for b in backends]
    for result in results:
        assert len(result["seconds_per_hour"]) == 2
        assert result["difference_to_lhotse"] < 2e-3
        assert f"{result['backend']:20}{result['threads']:8}" in out
