"""tools/benchmark.py accuracy on the small corpus of the decoding command's tests."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from benchmark_runs import run_benchmark
from benchmarks import accuracy, streaming, streams
from noise_runs import decode, sparse, write_as_transcripts
from result_cases import make_result

from summarymix.runs import load_model
from summarymix.scoring.errors import read_recogs

pytestmark = pytest.mark.usefixtures("clean")


def test_error_rates_and_delays(exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the transcripts are what the model says in chunks, it says all of it there, and less offline."""
    run_dir = sparse(exp_dir, tmp_path / "exp")
    [result] = decode(run_dir, "--avg 0 --mode streaming --chunk-ms 320 --num-streams 3")
    write_as_transcripts(run_dir / result.recogs, exp_dir.parent, tmp_path)
    results = decode(run_dir, f"--avg 0 --mode offline simulated --chunk-ms 320 --manifest-dir {tmp_path}")
    for beam in (2, 3):
        options = f"--avg 0 --method modified_beam_search --beam-size {beam} --manifest-dir {tmp_path}"
        results = decode(run_dir, options)

    options = f"--manifest-dir {tmp_path} --chunk-ms 320 --avg 0 --device cpu --threads 1 --max-duration 4"
    run = run_benchmark(f"accuracy --exp-dir {run_dir} --splits test {options}", tmp_path, monkeypatch)
    rates, delays = run["results"]["wer"], run["results"]["delay"]
    assert [(r["mode"], r["wer"]) for r in rates] == [(r.mode, r.wer) for r in results]
    searches = [r["search"] for r in rates]
    assert searches[-2:] == [f"modified_beam_search beam-size-{beam}" for beam in (2, 3)]
    assert all(f"| {search} " in (tmp_path / "page" / "README.md").read_text() for search in searches)
    for rate in rates:
        assert rate["interval"][0] <= rate["wer"] <= rate["interval"][1]

    offline, chunked = delays
    by_mode = {r.mode: r for r in results if r.method == "greedy_search"}
    assert (offline["chunk_ms"], offline["wer"]) == (None, by_mode["offline"].wer)
    assert (chunked["chunk_ms"], chunked["wer"], chunked["latency_ms"]) == (320, 0.0, 357.5)
    assert offline["wer"] > 0
    assert chunked["correct"] == chunked["words"] > 10
    counts = run["results"]["alignment"]["test"]
    assert counts["skipped"] == 2
    assert counts["aligned"] > 5
    assert counts["aligned"] + counts["not_aligned"] == 10
    assert {delay["clock"] for delay in offline["delays"]} == {"frame"}
    by_kind = {(delay["what"], delay["clock"]): delay for delay in chunked["delays"]}
    for what, number in (("word", chunked["words"]), ("utterance", counts["aligned"])):
        for token in ("first token", "last token"):
            frame, available = (by_kind[f"{what}, {token}", clock] for clock in ("frame", "availability"))
            assert frame["count"] == available["count"] == number
            # Available within a chunk, and not before the end of the frame and what the front end looks ahead.
            assert 37.5 <= available["mean"] - frame["mean"] <= 320 - 40 + 37.5


def test_map_of_chunks_and_left_contexts() -> None:
    """Three values of both make a map, in the order of the numbers, with the unlimited context last."""
    results = [
        vars(make_result(chunk_ms=chunk, left_chunks=left, lookahead_ms=ahead, wer=chunk / 100 + left))
        | {"search": "greedy_search", "interval": [0.0, 100.0]}
        for chunk in (1280, 320, 640)
        for left in (-1, 16, 2)
        for ahead in (0, 160)
        if (chunk, left) != (640, 2) and (ahead, left) != (160, 16)
    ]
    made = accuracy.maps(results)
    assert list(made) == ["map-test-streaming-greedy_search"]  # two left contexts with look-ahead are too few
    [axes] = made["map-test-streaming-greedy_search"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["320", "640", "1280"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "16", "unlimited"]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[0, 0] == "5.2"
    assert texts[1, 0] == "nan"
    assert texts[2, 1] == "28.8"
    assert texts[0, 2] == "2.2"


def test_plots_keep_checkpoints_apart() -> None:
    results = [
        vars(make_result(chunk_ms=chunk, left_chunks=left, epoch=epoch, wer=10.0 * epoch))
        | {"search": "greedy_search", "interval": [0.0, 100.0]}
        for epoch in (1, 2)
        for chunk in (320, 640, 1280)
        for left in (2, 4, 8)
    ]
    made = accuracy.plots({"results": {"wer": results, "delay": [], "alignment": {}}})
    maps = [figure for name, figure in made.items() if name.startswith("map")]
    assert [{text.get_text() for text in figure.axes[0].texts} for figure in maps] == [{"10.0"}, {"20.0"}]
    [axes] = made["wer"].axes
    assert [set(container.lines[0].get_ydata()) for container in axes.containers] == [{10.0}] * 3 + [{20.0}] * 3


def test_streaming_takes_the_epoch_that_decode_would_take(exp_dir: Path) -> None:
    parser = argparse.ArgumentParser()
    streaming.add_options(parser)
    args = parser.parse_args(["--exp-dir", str(exp_dir), "--device", "cpu", "--backend", "torch", "onnx"])
    selected = exp_dir / "selected.json"
    for epoch, avg in ((2, 1), (1, 0)):  # without a selection, and with one
        [(name, model), (other, exported)] = streams.load_models(args).items()
        assert name == f"{exp_dir}, epoch {epoch}, avg {avg}"
        assert other == f"{name}, ONNX Runtime"
        assert (model.cache is None, exported.cache is None) == (True, False)
        weights = load_model(exp_dir, epoch, avg)[0].state_dict()
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.model.state_dict().items())
        selected.write_text(json.dumps({"epoch": 1, "avg": 0, "splits": ["dev"]}))


def test_recogs_files_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "recogs.txt"
    path.write_text("a:b:\tref=['it', \"is\"]\na:b:\thyp=[]\n")
    [utterance] = read_recogs(path)
    assert (utterance.cut_id, utterance.ref, utterance.hyp) == ("a:b", ["it", "is"], [])
    for text, message in (("a:\tref=nonsense(\n", "line 1 is not a line"), ("a:\tref=['x']\n", "a ref and a hyp")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_recogs(path)
