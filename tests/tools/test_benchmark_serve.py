"""The subcommand serve with a tiny model."""

from pathlib import Path

import pytest
import soundfile
from benchmark_runs import run_benchmark
from recognizer_cases import make_audio

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")


def test_serve(exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", make_audio(0.5, i), 16000)
    command = f"serve --model {exp_dir} --audio {tmp_path}/0.wav {tmp_path}/1.wav --clients 3 --minutes 0.01"
    results = run_benchmark(command + " --chunk-ms 320", tmp_path, monkeypatch)["results"]
    assert results["different"] == 0
    assert len(results["latencies"]) >= 3
    assert results["audio_seconds"] == pytest.approx(0.5 * len(results["latencies"]))
    assert min(megabytes for _, megabytes in results["memory_mb"]) > 0
