"""Each subcommand from the outside, on tiny sizes, and the page made of what it writes."""

import argparse
import sys
from pathlib import Path

import benchmark
import pytest
import report
import soundfile
import torch
import yaml
from benchmark_runs import run_benchmark
from benchmarks import encoder, loss, parts, streams
from benchmarks.streaming import turns

from summarymix import optional_k2
from summarymix.chunking import ChunkConfig
from summarymix.data.check_features import generated_audio

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def configs(tmp_path: Path) -> str:
    """--config for a tiny model and its self-attention baseline."""
    sizes = {"num_layers": 1, "dim": 16, "feedforward_dim": 16, "summary_dim": 16, "kernel_size": 5, "num_heads": 2}
    sizes |= {"frontend_channels": [2, 2]}
    model = {"conformer": sizes, "predictor_dim": 8, "joiner_dim": 8, "vocab_size": 20}
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(yaml.safe_dump({"model": model}))
    return f"--config {tiny} --config {tiny} {ROOT}/egs/librispeech/ASR/conf/attention.yaml"


TWINS = ["tiny", "tiny + attention"]


def test_encoder(configs: str, tmp_path: Path, monkeypatch, capsys) -> None:
    sizes = "--seconds 2 --parts encoder model --modes chunked --chunk-ms 320 --rounds 2 --device cpu --threads 1"
    run = run_benchmark(f"encoder {configs} {sizes}", tmp_path, monkeypatch)
    measured = [(r["part"], r["pass"], r["audio_seconds"], r["config"]) for r in run["results"]["figures"]]
    kinds = [("encoder", "forward"), ("encoder", "training"), ("model", "training")]
    assert measured == [(*kind, 2, name) for kind in kinds for name in TWINS]
    assert all(len(r["seconds"]) == 2 and r["peak_mb"] > r["increment_mb"] for r in run["results"]["figures"])
    out = capsys.readouterr().out
    assert "model, training, chunks of 320 ms, left context unlimited, batch 1, 2 rounds" in out
    assert out.count("Products of matrices, at best: ") == 1


def test_what_is_too_long_is_left_out_with_all_that_is_longer(configs: str, tmp_path: Path, monkeypatch) -> None:
    sizes = "--seconds 64 8 128 --parts mixer --passes forward --modes offline --rounds 1 --device cpu --threads 1"
    run = run_benchmark(f"encoder {configs} {sizes} --max-gb 0.04", tmp_path, monkeypatch)
    left_out = [(r["audio_seconds"], r["config"]) for r in run["results"]["figures"] if "left_out" in r]
    assert left_out == [(64, TWINS[1])]  # scores of 2 heads and 1600² frames alone are 20 MB, several times
    assert [(r["audio_seconds"], r["config"]) for r in run["results"]["figures"]][-1] == (128, TWINS[0])
    [table] = encoder.tables(run)
    assert table.notes == ["tiny + attention, 64 s and longer: left out, more than --max-gb 0.04"]


def test_ratios_are_of_the_same_rounds_and_of_a_quarter_of_the_length() -> None:
    def result(name: str, seconds: float, times: list[float], step: float) -> dict:
        key = {"config": name, "part": "mixer", "pass": "forward", "mode": "offline", "audio_seconds": seconds}
        return key | {"seconds": times, "peak_mb": 100 + step, "increment_mb": step}

    results = [
        result("a", 10, [1.0, 2.0, 1.0], 5),
        result("b", 10, [2.0, 4.0, 3.0], 10),
        result("a", 40, [4.0, 4.0, 5.0], 20),
        result("b", 40, [40.0, 44.0, 36.0], 160),
    ]
    settings = {"batch": 2, "rounds": 3, "chunk_ms": 640, "left_chunks": -1}
    results[1]["host_seconds"] = [1.0, 3.0, 3.0]
    results[2]["gflop"] = 20.0
    [table] = encoder.tables({"results": {"product_gflops": 10.0, "figures": results}, "settings": settings})
    assert table.rows == [
        ["a", "10", "1.0000", "1.0000", "0.05000", "1.00", "–", "–", "105", "5.0", "1.00", "–"],
        ["b", "10", "3.0000", "2.0000", "0.15000", "2.00", "–", "75 %", "110", "10.0", "2.00", "–"],
        ["a", "40", "4.0000", "4.0000", "0.05000", "1.00", "4.00", "–", "120", "20.0", "1.00", "4.00"],
        ["b", "40", "40.0000", "36.0000", "0.50000", "10.00", "13.33", "–", "260", "160.0", "8.00", "16.00"],
    ]
    assert table.notes == ["Products of matrices, at best: 10.0 GFLOP/s. Encoders: a 40 s 5.0 GFLOP/s (50 %)."]


def test_configurations_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "a.yaml" for folder in ("x", "y")]
    for size, path in enumerate(paths, 4):
        path.parent.mkdir()
        path.write_text(yaml.safe_dump({"model": {"conformer": {"dim": size}}}))
    configs = parts.read_configs([[path] for path in paths])
    assert {name: config.model.conformer.dim for name, config in configs.items()} == {"a": 4, str(paths[1]): 5}
    with pytest.raises(ValueError, match="is given twice"):
        parts.read_configs([[path] for path in paths * 2])


def test_loss(tmp_path: Path, monkeypatch) -> None:
    sizes = "--batch 2 --frames 20 --symbols 5 --vocab 11 --joiner-dim 8 --rounds 2 --device cpu --threads 1"
    run = run_benchmark(f"loss {sizes}", tmp_path, monkeypatch)
    results = run["results"]
    assert list(results) == list(loss.IMPLEMENTATIONS)
    assert ("left_out" in results["k2"]) == (optional_k2.load()[0] is None)
    for name in ("native", "torchaudio"):
        assert len(results[name]["seconds"]) == 2
        here = loss.make_step(name, argparse.Namespace(**run["settings"]))()
        assert results[name]["value"] == pytest.approx(here, rel=1e-5)


def test_streaming(configs: str, tmp_path: Path, monkeypatch) -> None:
    sizes = "--chunk-ms 160 --left-chunks -1 2 --seconds 3 --paced-seconds 0.3 --max-streams 3 --device cpu --threads 1"
    run = run_benchmark(f"streaming {configs} {sizes}", tmp_path, monkeypatch)
    results = run["results"]
    settings = [(TWINS[0], -1), (TWINS[0], 2), (TWINS[1], 2)]
    for kind in ("state", "chunks", "streams"):
        assert [(r["config"], r["left_chunks"]) for r in results[kind]] == settings
    assert [len(r["seconds"]) for r in results["chunks"]] == [3000 // 160] * 3
    unlimited, ring, attention = (r["bytes"] for r in results["state"])
    # A sum of 16 numbers, a count, the last 2 inputs of the convolution; the predictor's output of 8 and last token.
    assert unlimited == {"summaries": 64 + 4, "convolutions": 128, "predictor": 40}
    assert ring == unlimited | {"summaries": 128 + 8}
    # Key, value and validity of 2 chunks of 4 frames.
    assert attention == {"convolutions": 128, "attention": 2 * 4 * (16 + 16 + 1) * 4, "predictor": 40}
    assert "self-attention cannot stream" in results["left_out"][0]["left_out"]
    for result in results["streams"]:
        assert all(0 < one["p50"] <= one["p95"] <= one["p99"] for one in result["tried"])


def test_streaming_of_an_exported_model(exported, tmp_path: Path, monkeypatch) -> None:
    chunk = ChunkConfig(8, 2)
    folder = exported("conformer", "onnx-streaming", chunk)
    sizes = f"--int8 --parts chunks --seconds 2 --chunk-ms {chunk.chunk_ms} --left-chunks 2 --threads 1 --device cpu"
    results = run_benchmark(f"streaming --exp-dir {folder} {sizes}", tmp_path, monkeypatch)["results"]
    precise, small = results["chunks"]
    assert [precise["config"], small["config"]] == [str(folder), f"{folder}, int8"]
    assert len(precise["seconds"]) == len(small["seconds"]) == 2000 // chunk.chunk_ms


def test_settings_take_turns_by_the_time_of_the_audio() -> None:
    assert list(turns([1.0, 2.0], 4.5)) == [0, 0, 1, 0, 0, 1]


def test_audio_without_end_makes_a_chunk_with_each_block(configs: str, tmp_path: Path) -> None:
    options = argparse.Namespace(config=[[tmp_path / "tiny.yaml"]], exp_dir=[], device="cpu", int8=False)
    [model] = streams.load_models(options).values()
    for chunk_size in (1, 4, 16):
        chunk = ChunkConfig(chunk_size)
        recognizer = streams.make_recognizer(model, chunk, 1)
        stream, audio = recognizer.open(), streams.Audio(model, chunk, offset=59.0)
        for _ in range(60):
            stream.accept_samples(audio.block())
            assert recognizer.step() == 1
            assert recognizer.step() == 0


def test_features(tmp_path: Path, monkeypatch, capsys) -> None:
    soundfile.write(tmp_path / "a.flac", generated_audio(0.5, 8000).numpy(), 8000)
    options = f"--audio {tmp_path}/a.flac {tmp_path}/a.flac --sample-rate 8000 --num-mel-bins 40 --rounds 2"
    backends = ["lhotse", "kaldi-native-fbank"]
    command = f"features {options} --backends {' '.join(backends)} --threads 1 2"
    results = run_benchmark(command, tmp_path, monkeypatch)["results"]
    assert "2 recordings, 1 s, 8000 Hz, 40 bins, 2 rounds" in capsys.readouterr().out
    figures = results["figures"]
    assert [(result["backend"], result["threads"]) for result in figures] == [(b, t) for t in (1, 2) for b in backends]
    for result in figures:
        assert len(result["seconds_per_hour"]) == 2
        assert result["difference_to_lhotse"] < 2e-3


def test_data(tmp_path: Path, monkeypatch, capsys) -> None:
    results = run_benchmark("data --cuts 300 200 --ranks 1 3 --max-duration 60", tmp_path, monkeypatch)["results"]
    assert "Training data, batches of 60 s" in capsys.readouterr().out
    assert [result["cuts"] for result in results["figures"]] == [300, 200]
    for result in results["figures"]:
        assert result["start_seconds"] < result["index_seconds"]
        assert list(result["step_seconds"]) == ["1", "3"]
        assert result["shared_bytes_per_cut"] <= 100


def test_shar(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_benchmark("shar --cuts 20 --batch 15 --seconds 1 --latency-ms 10 --rounds 2", tmp_path, monkeypatch)
    assert "Shar, latency 10 ms, cuts of 1 s" in capsys.readouterr().out
    one, together, _ = run["results"]["figures"].values()
    assert len(one) == len(together) == 2
    assert max(one) < min(100, together[1])  # of the second batch, whose connections are open


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("streaming", "no model: give --exp-dir DIR or --config FILE"),
        ("accuracy --exp-dir /nowhere", "no /nowhere/results.jsonl, and no --splits"),
        ("streaming --exp-dir /nowhere --int8", "--int8 needs a folder of export.py: give one as --exp-dir"),
        ("streaming --exp-dir /nowhere", "No /nowhere: give the folder of a training run"),
        (
            f"streaming --config {ROOT}/egs/mini/ASR/conf/conformer.yaml --seconds 0.5 --device cpu",
            "--seconds 0.5 is shorter than a chunk of 640 ms",
        ),
    ],
)
def test_mistakes_are_explained(command: str, message: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *command.split()])
    with pytest.raises(SystemExit, match=message):
        benchmark.main()


def test_files_of_one_name_make_no_page(tmp_path: Path, monkeypatch, capsys) -> None:
    paths = [tmp_path / name / "x.json" for name in ("a", "b")]
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, paths), "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        report.main()
    assert f"{paths[0]} and {paths[1]} would have plots of one name" in capsys.readouterr().err


def test_other_files_make_no_page(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "other.json"
    for text, message in (("[]", "is not a file of"), ('{"benchmark": "x", "results": []}', "unknown benchmark 'x'")):
        path.write_text(text)
        monkeypatch.setattr(sys, "argv", ["report.py", str(path), "--out", str(tmp_path)])
        with pytest.raises(SystemExit, match=message):
            report.main()
