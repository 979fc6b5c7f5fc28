"""tools/benchmark.py long on the small corpus of the decoding command's tests."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmark_runs import run_benchmark
from benchmarks import long
from lhotse import MonoCut, SupervisionSegment
from noise_runs import decode, sparse, write_as_transcripts

from summarymix.data.manifests import cuts_path, read_cuts
from summarymix.data.tokens import Tokenizer

pytestmark = pytest.mark.usefixtures("clean")


def test_rates_by_elapsed_time(exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the transcripts are what the model says of each utterance in chunks, it says that of each one alone."""
    run_dir = sparse(exp_dir, tmp_path / "exp")
    [result] = decode(run_dir, "--avg 0 --mode streaming --chunk-ms 320")
    write_as_transcripts(run_dir / result.recogs, exp_dir.parent, tmp_path)
    monkeypatch.setattr(long, "EDGES", (0, 0.1, 0.2))

    settings = "--minutes 0.3 --recordings 1 --gap-seconds 0 0.5 --gap-db -60 --chunk-ms 320 --left-chunks -1"
    options = f"--manifest-dir {tmp_path} --avg 0 --device cpu --threads 1 --reset-after-silence 0.5"
    command = f"long --exp-dir {run_dir} --split test {settings} {options}"
    results = run_benchmark(command, tmp_path, monkeypatch)["results"]
    streams = [(320, -1, None), (320, -1, 0.5)]
    found = [(r["gap_seconds"], r["chunk_ms"], r["left_chunks"], r["reset_after_silence"]) for r in results["rates"]]
    assert found == [(gap, *one) for gap in (0, 0.5) for one in [(None, -1, None), *streams]]
    assert [r["gap_seconds"] for r in results["recordings"]] == [0, 0.5]
    assert all(0.3 <= r["minutes"] < 0.36 for r in results["recordings"])
    for rate in results["rates"]:
        assert rate["skipped"] == 1
        bins = {one["bin"]: one for one in rate["bins"]}
        assert list(bins) == ["alone", "0–0.1 min", "0.1–0.2 min", "from 0.2 min", "all"]
        parts = list(bins.values())[1:-1]
        for name in ("utterances", "words", "errors"):
            assert sum(part[name] for part in parts) == bins["all"][name]
        assert bins["alone"]["words"] == bins["all"]["words"] > 20
        for one in bins.values():
            assert one["interval"][0] <= one["wer"] <= one["interval"][1]
            assert one["wer"] == pytest.approx(100 * one["errors"] / one["words"])
        if rate["chunk_ms"] and rate["reset_after_silence"] is None:
            assert bins["alone"]["errors"] == 0
        if rate["chunk_ms"] is None:
            assert bins["alone"]["errors"] > 0


def test_utterances_stand_in_a_recording_as_they_are(corpus: Path) -> None:
    cuts = list(read_cuts(cuts_path(corpus, "mini", "test")))
    options = {"minutes": 0.1, "recordings": None, "gap_db": -40.0, "seed": 3, "split": "test"}

    def recordings(**changes) -> tuple[list[long.Recording], list[str]]:
        skipped: list[str] = []
        return list(long.join(cuts, 0.25, 16000, argparse.Namespace(**options | changes), skipped)), skipped

    made, skipped = recordings()
    assert skipped == ["cut-7"]
    assert 1 < len(made) < 4
    by_audio = {tuple(cut.load_audio()[0][:50]): cut for cut in cuts if cut.id != "cut-7"}
    seen = []
    for samples, utterances in made:
        assert utterances[0].begin == 0
        for one, following in zip(utterances, [*utterances[1:], None], strict=True):
            cut = by_audio[tuple(samples[one.begin : one.begin + 50].tolist())]
            assert one.cut.id == cut.id
            seen.append(cut.id)
            assert torch.equal(samples[one.begin : one.end], torch.from_numpy(cut.load_audio()[0]))
            end = len(samples) if following is None else following.begin
            assert end - one.end == 4000
            assert samples[one.end : end].std() == pytest.approx(0.01, rel=0.1)
    # Without repetition.
    assert len(set(seen)) == len(seen)
    assert [r.utterances for r in recordings()[0]] == [r.utterances for r in made]
    assert recordings(seed=4)[0][0].utterances != made[0].utterances

    # As often as needed.
    [one], _ = recordings(minutes=1, gap_db=None)
    assert 60 <= len(one.samples) / 16000 < 64
    assert (one.samples[one.utterances[0].end : one.utterances[1].begin] == 0).all()
    assert len(recordings(recordings=7)[0]) == 7
    cuts[:] = [cut for cut in cuts if cut.id == "cut-7"]
    with pytest.raises(ValueError, match="no audio of the split test can be read, for example cut-7"):
        recordings()


def test_transcripts_have_the_form_of_the_tokens() -> None:
    tokenizer = Tokenizer.train(["ONE TWO"], 20, "char", text_case="upper")
    cut = MonoCut("a", 0, 1, 0, [SupervisionSegment("a", "r", 0, 1, text=" one  two ")])
    recording = long.Recording(torch.zeros(160), [long.LongUtterance(cut, 0, 160)])
    recognizer = SimpleNamespace(tokenizer=tokenizer, transcribe=lambda samples, rate: SimpleNamespace(text="ONE TOO"))
    assert long.count_errors(recognizer, recording, 16000, {}) == [(0, 1, 2)]


def test_errors_belong_to_utterances() -> None:
    refs = [["a", "b"], [], ["c"], ["d", "e"]]
    assert long.errors_of(refs, ["a", "b", "c", "d", "e"]) == [0, 0, 0, 0]
    assert long.errors_of(refs, ["a", "x", "c", "e"]) == [1, 0, 0, 1]
    # Insertions belong to the word before, those before all to the first one.
    assert long.errors_of(refs, ["x", "a", "b", "y", "z", "c", "d", "e", "e"]) == [3, 0, 0, 1]
    assert long.errors_of(refs, []) == [2, 0, 1, 2]
    assert long.errors_of([[], []], ["x"]) == [1, 0]
