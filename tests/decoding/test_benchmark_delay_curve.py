"""tools/benchmark.py delay on the small corpus of the decoding command's tests."""

import argparse
from pathlib import Path

import pytest
import torch
from benchmark_runs import run_benchmark
from benchmarks import delay_curve
from benchmarks.delay import describe
from noise_runs import WORDS, decode, sparse, write_as_transcripts

from summarymix.data.tokens import Tokenizer

OPTIONS = "--splits test --chunk-ms 320 --avg 0 --device cpu --threads 1 --max-duration 4"


def changed(run_dir: Path, folder: Path, **loss: float) -> Path:
    """Copy a run with other options of the loss, and a CTC head that aligns at random."""
    checkpoint = torch.load(run_dir / "epoch-2.pt", weights_only=False)
    checkpoint["config"]["loss"].update(loss)
    torch.nn.init.normal_(checkpoint["model"]["ctc_head.weight"], std=5.0)
    folder.mkdir()
    torch.save(checkpoint, folder / "epoch-2.pt")
    return folder


@pytest.mark.usefixtures("clean")
def test_experiments_are_compared_with_one_alignment(
    exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = sparse(exp_dir, tmp_path / "base")
    [result] = decode(base, "--avg 0 --mode streaming --chunk-ms 320 --num-streams 3")
    write_as_transcripts(base / result.recogs, exp_dir.parent, tmp_path)
    penalty = changed(base, tmp_path / "penalty", delay_penalty=0.01)
    command = f"delay --exp-dir {base} {penalty} --manifest-dir {tmp_path} {OPTIONS}"
    run = run_benchmark(command, tmp_path, monkeypatch)
    results = run["results"]["delay"]
    assert [(r["experiment"], r["delay_penalty"], r["fastemit"], r["chunk_ms"]) for r in results] == [
        ("base", 0.0, 0.0, None),
        ("base", 0.0, 0.0, 320),
        ("penalty", 0.01, 0.0, None),
        ("penalty", 0.01, 0.0, 320),
    ]
    for of_base, of_penalty in (results[::2], results[1::2]):
        assert of_base["delays"]
        assert of_penalty["delays"] == of_base["delays"]
        assert of_penalty["interval"] == of_base["interval"]
    alone = run_benchmark(f"delay --exp-dir {penalty} --manifest-dir {tmp_path} {OPTIONS}", tmp_path, monkeypatch)
    assert alone["results"]["delay"][1]["delays"] != results[1]["delays"]  # by its own alignment


def test_experiments_with_other_tokens_are_refused(exp_dir: Path, tmp_path: Path) -> None:
    other = changed(exp_dir, tmp_path / "other")
    checkpoint = torch.load(other / "epoch-2.pt", weights_only=False)
    checkpoint["tokens"] = Tokenizer.train([" ".join(WORDS).upper()], 40, "char").state()
    torch.save(checkpoint, other / "epoch-2.pt")
    parser = argparse.ArgumentParser()
    delay_curve.add_options(parser)
    args = parser.parse_args(["--exp-dir", str(exp_dir), str(other), *OPTIONS.split()])
    with pytest.raises(ValueError, match=r"other has other tokens than .*/exp-merged, whose alignment"):
        delay_curve.measure(args)


def result(experiment: str, chunk_ms: int | None, mean: float, wer: float, **loss: float) -> dict:
    delays = [{"what": delay_curve.WHAT, "clock": "frame"} | describe([mean])]
    if chunk_ms is not None:
        delays.append({"what": delay_curve.WHAT, "clock": "availability"} | describe([mean + 200]))
    key = {"split": "test", "chunk_ms": chunk_ms, "left_chunks": -1, "latency_ms": 0, "experiment": experiment}
    return (
        key
        | {"delay_penalty": 0.0, "fastemit": 0.0, "wer": wer, "interval": [wer / 2, 2 * wer], "delays": delays}
        | loss
    )


def test_lines_join_experiments_of_a_method_in_the_order_of_its_values() -> None:
    results = [
        one
        for chunk in (None, 640)
        for one in (
            result("base", chunk, -70, 1.0),
            result("late", chunk, -90, 2.0, delay_penalty=0.03),
            result("early", chunk, -80, 1.5, delay_penalty=0.01),
            result("fast", chunk, -75, 1.2, fastemit=0.02),
            result("both", chunk, -99, 9.0, delay_penalty=0.01, fastemit=0.02),
        )
    ]
    plots = delay_curve.plots({"results": {"delay": results}})
    assert list(plots) == ["test-frame", "test-availability"]
    assert [axes.get_title() for axes in plots["test-frame"].axes] == ["offline", "640 ms, left context unlimited"]
    [axes] = plots["test-availability"].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines["delay penalty"] == [[130, 1.0], [120, 1.5], [110, 2.0]]
    assert lines["FastEmit"] == [[130, 1.0], [125, 1.2]]
    labels = {text.get_text(): text.xy for text in axes.texts}
    assert labels == {
        "base": (130, 1.0),
        "late": (110, 2.0),
        "early": (120, 1.5),
        "fast": (125, 1.2),
        "both": (101, 9.0),
    }

    [table] = delay_curve.tables({"results": {"delay": results}})
    assert table.rows[0][:6] == ["test", "offline", "–", "base", "0", "0"]
    assert [row[3] for row in table.rows if row[8] == "availability"] == ["base", "late", "early", "fast", "both"]
