"""decode.py from the outside: a small corpus on disk, checkpoints of a random model, files and exit statuses."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from noise_runs import decode
from programs import run_in_parallel

from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.skipped import SkippedItems
from summarymix.decoding import job
from summarymix.decoding.cli import main
from summarymix.decoding.evaluate import Decoded, DecodeSetting, decoding_differences
from summarymix.decoding.greedy import Hypothesis
from summarymix.decoding.methods import SearchOptions, _hash_of
from summarymix.runs import choose_epoch, epoch_path, read_checkpoint, save_checkpoint
from summarymix.scoring.results import Result, read_results

pytestmark = pytest.mark.usefixtures("clean")
OF_RANK_1 = 2  # recording of the second of two processes
CALL = "from summarymix.decoding.cli import main; main('mini')"


def assert_same_files(exp_dir: Path, one: Result, other: Result) -> None:
    """Two results' files are the same but for the rounding of confidences, and say something."""

    def read(result: Result) -> tuple[str, list[dict], list[list[str]], list[float]]:
        hyps = [json.loads(line) for line in (exp_dir / result.hyps).read_text().splitlines()]
        confidences = [part.pop("confidence") for hyp in hyps for part in hyp["tokens"] + hyp["words"]]
        *ctm, last = zip(*(line.split() for line in (exp_dir / result.ctm).read_text().splitlines()), strict=True)
        return (exp_dir / result.recogs).read_text(), hyps, ctm, confidences + list(map(float, last))

    *texts, confidences = read(one)
    *other_texts, other_confidences = read(other)
    assert texts == other_texts
    assert confidences == pytest.approx(other_confidences, abs=1e-3)
    recogs, hyps, _ = texts
    assert all(f"{hyp['id']}:\thyp={hyp['text'].split()}\n" in recogs for hyp in hyps)
    assert sum(hyp["text"] != "" for hyp in hyps) > 5


@pytest.mark.parametrize("exp_dir", ["merged", "attention"], indirect=True)
def test_all_modes_in_one_call(exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = decode(
        exp_dir,
        "--mode offline simulated streaming --chunk-ms 640 320 --left-chunks 2 --splits dev test --compare "
        "--num-streams 3 --max-duration 4",
    )
    modes = [(r.mode, r.chunk_ms, r.left_chunks) for r in results if r.split == "test"]
    chunks = [(640, 2), (320, 2)]
    expected = [("offline", None, -1), *(("simulated", *c) for c in chunks), *(("streaming", *c) for c in chunks)]
    assert modes == expected
    assert len(results) == 2 * len(expected)
    for result in results:
        assert (result.utterances, result.skipped) == (10, 2)
        assert result.words == 9 * 4
        assert (result.epoch, result.avg) == (2, 1)
        assert result.rtf > 0
        assert "%WER" in (exp_dir / result.errs).read_text()
        assert len((exp_dir / result.recogs).read_text().splitlines()) == 2 * result.utterances
        errors = result.insertions + result.deletions + result.substitutions
        assert result.wer == pytest.approx(100 * errors / result.words)
        assert result.interval[0] <= result.wer <= result.interval[1]
        assert (result.final_ms is None) == (result.mode != "streaming")
        assert (result.above_offline is None) == (result.mode == "offline")
    by_mode = {(r.mode, r.chunk_ms): r for r in results if r.split == "test"}
    offline = by_mode["offline", None]
    for ms in (640, 320):
        simulated, streaming = by_mode["simulated", ms], by_mode["streaming", ms]
        assert_same_files(exp_dir, simulated, streaming)
        assert streaming.latency_ms == ms + 37.5
        assert streaming.above_offline == simulated.above_offline
        assert streaming.above_offline[0] == pytest.approx(streaming.wer - offline.wer)
        assert streaming.first_partial_ms[0] > streaming.latency_ms
        assert streaming.first_partial_ms[0] <= streaming.first_stable_ms[0]
        assert 0 <= streaming.changed_words <= 100
        assert streaming.state_bytes == simulated.state_bytes
        assert streaming.state_bytes is not None
    # The model has to say something, and something else offline, or all this proves little.
    texts = [(exp_dir / by_mode[key].recogs).read_text() for key in (("offline", None), ("simulated", 320))]
    assert texts[0] != texts[1]
    assert "hyp=['" in texts[0]

    out = capsys.readouterr()
    assert "simulated and streaming are identical in 10 of 10 utterances" in out.out
    assert "skipped 2: " in out.err
    listed = (exp_dir / "greedy_search" / "skipped-test.tsv").read_text()
    assert "cut-3" in listed
    assert "cut-7" in listed


@pytest.mark.parametrize(
    ("options", "search"),
    [
        ("greedy_search --max-sym-per-frame 3 --blank-penalty 0.5", "max-sym-per-frame-3-blank-penalty-0.5"),
        ("modified_beam_search --nbest 3", "beam-size-4"),
        ("modified_beam_search --beam-size 2 --temperature 1.5", "beam-size-2-temperature-1.5"),
        ("ctc_greedy_search", ""),
        ("ctc_prefix_beam_search --nbest 3", "beam-size-4"),
    ],
)
def test_every_method(exp_dir: Path, options: str, search: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = decode(
        exp_dir, f"--decoding-method {options} --mode offline simulated streaming --compare --num-streams 3"
    )
    method = options.split()[0]
    assert [(r.method, r.search_options, r.mode) for r in results] == [
        (method, search, mode) for mode in ("offline", "simulated", "streaming")
    ]
    out = capsys.readouterr().out
    assert "simulated and streaming are identical in 10 of 10 utterances" in out
    assert f"{method} {search}".rstrip() in out
    assert_same_files(exp_dir, *results[1:])
    if "--nbest" in options:
        path = exp_dir / results[0].recogs.replace("recogs", "nbest")
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        assert all(1 <= int(rank) <= 3 and float(score) < 0 for _, rank, score, _ in lines)
        best = {cut_id: text.split() for cut_id, rank, _, text in lines if rank == "1"}
        recogs = (exp_dir / results[0].recogs).read_text()
        assert len(best) == 10
        assert all(f"{cut_id}:\thyp={words}\n" in recogs for cut_id, words in best.items())
        assert len(lines) > 20


def test_methods_do_not_overwrite_each_other(exp_dir: Path) -> None:
    for size in (1, 2, 2):
        results = decode(exp_dir, f"--method modified_beam_search --beam-size {size}")
    assert [r.search_options for r in results] == ["beam-size-1", "beam-size-2"]
    assert len({r.recogs for r in results}) == 2


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("", "greedy_search"),
        ("", "results.jsonl"),
        ("--select", ""),
        ("--method modified_beam_search --beam-size 3", ""),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    exp_dir: Path, monkeypatch: pytest.MonkeyPatch, options: str, name: str
) -> None:
    """If the folder of a method is not there yet, it is the experiment's that has to be written."""
    shutil.rmtree(exp_dir / "modified_beam_search", ignore_errors=True)
    decode(exp_dir, "")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != exp_dir / name)
    for module in ("cli", "selection"):
        monkeypatch.setattr(f"summarymix.decoding.{module}.decode_together", None)
    with pytest.raises(SystemExit, match=rf"{exp_dir / name} cannot be written by this user: give --exp-dir a copy"):
        decode(exp_dir, options)


def test_hot_words(exp_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "words.txt"
    path.write_text("stop :2\none\n")
    options = f"--method modified_beam_search --hotwords-file {path} --mode simulated streaming --compare"
    results = decode(exp_dir, options) and decode(exp_dir, options + " --hotwords-score 0.01")
    label = SearchOptions("modified_beam_search", hotwords_file=path).label
    assert re.fullmatch("beam-size-4-hotwords-file-words-[0-9a-f]{6}", label)
    assert [r.search_options for r in results] == [label, label, *2 * [label + "-hotwords-score-0.01"]]
    assert capsys.readouterr().out.count("simulated and streaming are identical in 10 of 10 utterances") == 2
    for mistake, message in (("missing", "No such file"), ("empty", "has no phrases")):
        (tmp_path / "empty").touch()
        with pytest.raises(SystemExit, match=message):
            decode(exp_dir, f"--method modified_beam_search --hotwords-file {tmp_path / mistake}")


def test_offline_results_of_other_weights_or_files_are_no_baseline(exp_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    options = f"--method modified_beam_search --hotwords-file {path}"
    path.write_text("stop\n")
    decode(exp_dir, f"{options} --mode offline")
    assert decode(exp_dir, f"{options} --mode simulated")[-1].above_offline is not None
    path.write_text("one\n")
    _hash_of.cache_clear()  # of another call of the program
    assert decode(exp_dir, f"{options} --mode simulated")[-1].above_offline is None
    path.rename(tmp_path / "same.txt")
    path.write_text("stop\n")
    _hash_of.cache_clear()
    assert decode(exp_dir, f"{options} --mode simulated")[-1].above_offline is not None

    trained = epoch_path(exp_dir, 2).read_bytes()
    try:
        checkpoint = read_checkpoint(epoch_path(exp_dir, 2))
        checkpoint["model_avg"]["mean"]["joiner.out.bias"] += 1
        save_checkpoint(epoch_path(exp_dir, 2), checkpoint)
        assert decode(exp_dir, f"{options} --mode simulated")[-1].above_offline is None
    finally:
        epoch_path(exp_dir, 2).write_bytes(trained)


def test_a_list_of_unreadable_utterances_goes_with_them(exp_dir: Path, corpus: Path) -> None:
    listing = exp_dir / "greedy_search" / "skipped-test.tsv"
    decode(exp_dir, "")
    listed = {item.id for item in SkippedItems.read(listing).items}
    assert listed
    whole = cuts_path(corpus, "mini", "test").read_bytes()
    try:
        cuts = [cut for cut in read_cuts(cuts_path(corpus, "mini", "test")) if cut.id not in listed]
        write_manifest(cuts, cuts_path(corpus, "mini", "test"))
        decode(exp_dir, "")
    finally:
        cuts_path(corpus, "mini", "test").write_bytes(whole)
    assert not listing.exists()


def test_nothing_is_decoded_twice(exp_dir: Path) -> None:
    decode(exp_dir, "--mode simulated simulated --chunk-ms 640 320 640 --left-chunks 2 2")
    assert len((exp_dir / "results.jsonl").read_text().splitlines()) == 2
    main("mini", ["--exp-dir", str(exp_dir), "--select", "--epochs", "2", "2", "--avgs", "0", "0"])
    assert len(json.loads((exp_dir / "selected.json").read_text())["tried"]) == 1


def test_language_models(exp_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One for, and one against: all t, and none."""
    for name, letter in (("t", "t"), ("h", "h")):
        (tmp_path / f"{name}.arpa").write_text(f"\\1-grams:\n-2 <unk>\n0 {letter}\n\\end\\\n")
    options = f"--method modified_beam_search --ngram-lm {tmp_path}/t.arpa {tmp_path}/h.arpa --ngram-lm-scale"
    shares = []
    for scales in ("0.5 -0.5", "-0.5 0.5"):
        result = decode(exp_dir, f"{options} {scales} --mode simulated streaming --compare")[-1]
        hypotheses = "".join(re.findall("hyp=(.*)", (exp_dir / result.recogs).read_text()))
        shares.append(hypotheses.count("t") / (hypotheses.count("h") + 1))
    assert re.fullmatch(
        "beam-size-4-ngram-lm-t-[0-9a-f]{6}-h-[0-9a-f]{6}-ngram-lm-scale--0.5-0.5", result.search_options
    )
    assert shares[0] > shares[1]
    assert capsys.readouterr().out.count("simulated and streaming are identical in 10 of 10 utterances") == 2


def test_selection_is_used_until_told_otherwise(exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main("mini", ["--exp_dir", str(exp_dir), "--select", "--epochs", "1", "2", "--avgs", "0", "1", "2"])
    selected = json.loads((exp_dir / "selected.json").read_text())
    tried = {(c["epoch"], c["avg"]): c["mean_wer"] for c in selected["tried"]}
    assert tried.keys() == {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    assert tried[selected["epoch"], selected["avg"]] == min(tried.values())
    assert selected["splits"] == ["dev"]
    assert "Selected epoch" in capsys.readouterr().out

    main("mini", ["--exp-dir", str(exp_dir), "--select", "--avgs", "0", "1", "--metric", "cer"])
    by_characters = json.loads((exp_dir / "selected.json").read_text())
    assert (selected["metric"], by_characters["metric"]) == ("wer", "cer")
    best = min(one["mean_cer"] for one in by_characters["tried"])
    assert f"mean CER {best:.2f}%" in capsys.readouterr().out

    # A candidate that cannot be averaged is skipped, and the others are tried.
    epoch_path(exp_dir, 3).write_bytes(epoch_path(exp_dir, 2).read_bytes())
    main("mini", ["--exp-dir", str(exp_dir), "--select", "--epochs", "3", "--avgs", "0", "1", "2"])
    epoch_path(exp_dir, 3).unlink()
    assert "epoch 3, avg 1: skipped, there is no sample" in capsys.readouterr().err
    assert [c["avg"] for c in json.loads((exp_dir / "selected.json").read_text())["tried"]] == [0, 2]

    selected |= {"epoch": 1, "avg": 1}
    (exp_dir / "selected.json").write_text(json.dumps(selected))
    assert [(r.epoch, r.avg) for r in decode(exp_dir, "")] == [(1, 1)]
    assert [(r.epoch, r.avg) for r in decode(exp_dir, "--epoch 2 --avg 2")] == [(1, 1), (2, 2)]
    assert choose_epoch(exp_dir, None, 0)[:2] == (1, 0)
    assert choose_epoch(exp_dir, 2, None)[:2] == (2, 1)
    (exp_dir / "selected.json").write_text(json.dumps(selected | {"epoch": 2, "avg": 2}))
    assert choose_epoch(exp_dir, 2, None) == (2, 2, f"{exp_dir}/selected.json: avg 2 selected on dev")
    assert choose_epoch(exp_dir, 1, None) == (1, 1, "")
    assert choose_epoch(exp_dir, 2, 1) == (2, 1, "")
    with pytest.raises(SystemExit) as caught:
        decode(exp_dir, "--onnx exported --device cuda")
    assert "--device cuda: exported models run on the CPU" in str(caught.value.code) + capsys.readouterr().err


def test_metrics_and_recordings_without_speech(exp_dir: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [by_words] = decode(exp_dir, "")
    [result] = decode(exp_dir, "--metric cer")
    assert (by_words.metric, by_words.units, by_words.words) == ("wer", 9 * 4, 9 * 4)
    assert (result.metric, result.words) == ("cer", 9 * 4)
    assert result.units is not None
    assert result.units > 9 * (4 * 3 + 3)  # words of at least three letters, and spaces
    assert result.cer == pytest.approx(
        100 * (result.insertions + result.deletions + result.substitutions) / result.units
    )
    assert (result.wer, result.cer, result.mer) == (by_words.wer, by_words.cer, by_words.wer)
    assert result.no_speech == 1
    [cut] = [cut for cut in read_cuts(cuts_path(corpus, "mini", "test")) if not cut.supervisions[0].text]
    assert result.no_speech_seconds == cut.duration
    report = (exp_dir / result.errs).read_text()
    assert report.startswith(f"%CER = {result.cer:.2f}\n")
    assert f"WER {result.wer:.2f}%, CER {result.cer:.2f}%, MER {result.wer:.2f}%" in report
    per_hour = 3600 * result.no_speech_insertions / result.no_speech_seconds
    line = f"1 recordings without speech, {result.no_speech_seconds / 3600:.2f} h: {per_hour:.1f} insertions an hour"
    said = capsys.readouterr()
    assert line in report
    assert line in said.err
    assert f" {per_hour:.1f} " in said.out


@pytest.mark.parametrize(("text", "metric", "units"), [("你好 世界", "cer", 4), ("你好 world", "mer", 3)])
def test_the_script_chooses_the_metric(
    text: str, metric: str, units: int, exp_dir: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = list(read_cuts(cuts_path(corpus, "mini", "test")))
    for cut in cuts:
        cut.supervisions[0].text = text
    for split in ("dev", "test"):
        write_manifest(cuts, cuts_path(tmp_path, "mini", split))
    [result] = decode(exp_dir, f"--manifest-dir {tmp_path}")
    assert (result.metric, result.units, result.words) == (metric, 10 * units, 10 * 2)
    assert f"%{metric.upper()} " in (exp_dir / result.errs).read_text()
    main("mini", ["--exp-dir", str(exp_dir), "--manifest-dir", str(tmp_path), "--select", "--avgs", "0"])
    assert f": mean {metric.upper()} " in capsys.readouterr().out
    assert json.loads((exp_dir / "selected.json").read_text())["metric"] == metric


def test_table(exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decode(exp_dir, "--mode offline simulated")
    capsys.readouterr()
    main("mini", ["--exp-dir", str(exp_dir), "--table"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["split", "method", "mode"]
    assert [line.split()[2] for line in lines[2:4]] == ["offline", "simulated"]
    assert lines[4] == ""
    [place] = lines[5:]
    folder, _, names = place.partition(": ")
    patterns = [name.strip(",") for name in names.split() if "*" in name]
    assert len(patterns) == 4
    assert all(len(list(Path(folder).glob(pattern))) >= 2 for pattern in patterns)
    main("mini", ["--exp-dir", str(exp_dir), "--table", "markdown"])
    assert capsys.readouterr().out.startswith("| split")
    # Into a pipe whose reader has left.
    command = [sys.executable, "-c", CALL, "--exp-dir", str(exp_dir), "--table"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--mode streaming --chunk-ms 650", "--chunk-ms 650 is not a multiple .* nearest: 640 or 680"),
        ("--mode streaming --left-chunks -2", "left context is -1"),
        ("--mode sideways", "invalid choice: 'sideways'"),
        ("--mode offline --compare", "--compare needs both modes"),
        ("--splits nowhere", r"No manifest .*mini_cuts_nowhere"),
        ("--epoch 0", "--epoch 0 must be at least 1"),
        ("--epoch 7", r"No checkpoint .*epoch-7.pt; epochs in .*: 1, 2"),
        ("--epoch 1 --avg 3", "--avg 3 must be from 0"),
        ("--select --epochs 2 9", r"No .*epoch-9\.pt; there are epochs \[1, 2\]"),
        ("--select --avgs 3", r"No checkpoints in(.|\n)*epoch 2, avg 3: skipped, no checkpoint of epoch -1"),
        ("--select --epoch 2", "--select tries several: give --epochs and --avgs"),
        ("--epochs 1 --avgs 0", "--epochs and --avgs are for --select: give --epoch and --avg"),
        ("--chunk-ms 640", "--chunk-ms is for chunks: add --mode simulated or streaming"),
        ("--mode offline --left-chunks 4", "--left-chunks is for chunks: add --mode simulated or streaming"),
        ("--manifest-dir /nowhere", "No manifest /nowhere"),
        (
            "--beam-size 4",
            "--beam-size applies to --method modified_beam_search, ctc_prefix_",
        ),
        (
            "--method ctc_greedy_search --max-sym-per-frame 2",
            "--max-sym-per-frame applies to --method gre",
        ),
        ("--method modified_beam_search --beam-size 0", "beam_size must be 1 or more, not 0"),
        ("--method modified_beam_search --hotwords-score 2", "--hotwords-score needs --hotwords-file"),
        ("--hotwords-file x", "--hotwords-file applies to --method modified_beam_search"),
        ("--method fast_beam_search --max-states 0", "--max-states must be 1 or more"),
        (
            "--method fast_beam_search --nbest 2",
            "--nbest applies to --method modified_beam_search, fast_beam_search_n",
        ),
        ("--method fast_beam_search --lg-scale 2", "--lg-scale needs --lg"),
        ("--method modified_beam_search --nbest -1", "--nbest must be 0 or more"),
        ("--method modified_beam_search --rnn-lm-scale 2", "--rnn-lm-scale needs --rnn-lm"),
        ("--method modified_beam_search --rnn-lm /nowhere", "No language model /nowhere: train it with"),
        (
            "--method modified_beam_search --ngram-lm a b --ngram-lm-scale 1",
            "--ngram-lm has 2 values, --ngram-lm-scale has 1",
        ),
        ("--method modified_beam_search --ngram-lm /nowhere", "No such file .*nowhere"),
        ("--method modified_beam_search --ngram-lm /nowhere --select --avgs 0", "No such file .*nowhere"),
        ("--num-streams 0", "argument --num-streams: '0' is not a whole number above 0"),
        ("--max-duration -5", "argument --max-duration: '-5' is not a number above 0"),
        ("--blank-penalty nan", "--blank-penalty must be a finite number"),
        ("--temperature inf", "--temperature must be a finite number"),
        (
            "--method modified_beam_search --ngram-lm a b --ngram-lm-scale 1 nan",
            "--ngram-lm-scale must be a finite number",
        ),
        ("--device gpu", "--device gpu is unknown: use cpu, cuda"),
        ("--device cuda:99", r"--device cuda:99: PyTorch .* sees \d+ GPUs"),
        ("--temperature 0", "temperature must be above 0"),
        ("--method beam", "invalid choice: 'beam'"),
        ("--chunk-size=16 --speed", r"unrecognized arguments: --chunk-size=16 --speed; .*--chunk-ms"),
        ("--left_context_frames 64", "given in chunks: --left-chunks"),
        ("--iter 1000", "only epochs can be averaged and decoded: --epoch"),
    ],
)
def test_mistakes_are_explained(exp_dir: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        decode(exp_dir, options)
    assert caught.value.code not in (None, 0)
    said = f"{caught.value.code}\n{capsys.readouterr().err}"
    assert re.search(message, said), said


def test_a_model_of_one_token_per_frame_is_not_asked_for_more(
    exp_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = read_checkpoint(epoch_path(exp_dir, 2))
    checkpoint["config"]["loss"]["rnnt_type"] = "modified"
    save_checkpoint(epoch_path(tmp_path, 2), checkpoint)
    with pytest.raises(SystemExit) as caught:
        decode(tmp_path, "--max-sym-per-frame 3 --avg 0")
    assert "trained with --loss.rnnt-type modified" in f"{caught.value.code}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("exp_dir", ["attention"], indirect=True)
def test_attention_streams_with_limited_left_context_only(exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ("--mode offline streaming", "--select --mode streaming"):
        with pytest.raises(SystemExit) as caught:
            decode(exp_dir, options)
        said = f"{caught.value.code}\n{capsys.readouterr().err}"
        assert "self-attention cannot stream with chunk 640 ms, left context unlimited" in said
        assert "--left-chunks N" in said
    assert not (exp_dir / "results.jsonl").exists()
    assert [r.state_bytes for r in decode(exp_dir, "--mode simulated")] == [None]


def test_other_recipes_and_empty_folders_are_named(exp_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is a run of the recipe mini, this is librispeech"):
        main("librispeech", ["--exp-dir", str(exp_dir)])
    with pytest.raises(SystemExit, match=r"No epoch-\*.pt in .*: train first"):
        main("mini", ["--exp-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no .*results.jsonl: decode first"):
        main("mini", ["--exp-dir", str(tmp_path), "--table"])


def test_a_damaged_checkpoint_is_named(exp_dir: Path, tmp_path: Path) -> None:
    epoch_path(tmp_path, 1).write_bytes(epoch_path(exp_dir, 1).read_bytes()[:1000])
    with pytest.raises(SystemExit, match=r"epoch-1.pt is damaged"):
        main("mini", ["--exp-dir", str(tmp_path)])


def test_a_difference_that_is_no_tie_fails(exp_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = job.decode_split

    def broken(*args: object, **kwargs: object) -> Decoded:
        decoded = real(*args, **kwargs)  # type: ignore[arg-type]
        setting = args[1]
        assert isinstance(setting, DecodeSetting)
        if setting.mode == "streaming":
            longest = max(decoded.hypotheses.values(), key=lambda hypothesis: len(hypothesis.tokens))
            longest.tokens[0] = 2 if longest.tokens[0] != 2 else 3
        return decoded

    monkeypatch.setattr(job, "decode_split", broken)
    with pytest.raises(SystemExit) as caught:
        decode(exp_dir, "--compare")
    assert caught.value.code == 1


@pytest.mark.parametrize(
    "options",
    ["--mode simulated streaming --compare", "--method modified_beam_search --nbest 3", "--splits dev test --select"],
)
def test_two_processes_write_what_one_writes(
    exp_dir: Path, options: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two cuts cannot be read, one by each process."""

    def files() -> dict[str, str]:
        paths = [*exp_dir.glob("*_search/*"), exp_dir / "selected.json"]
        return {path.name: path.read_text() for path in paths if path.is_file()}

    shutil.rmtree(exp_dir / "greedy_search", ignore_errors=True)
    arguments = ["--exp-dir", str(exp_dir), "--device", "cpu", "--max-duration", "3", *options.split()]
    unreadable = exp_dir.parent / f"{OF_RANK_1}.wav"
    content = unreadable.read_bytes()
    request.addfinalizer(lambda: unreadable.write_bytes(content))
    unreadable.write_bytes(content[:100])
    main("mini", arguments)
    alone, results = files(), [] if "--select" in options else read_results(exp_dir / "results.jsonl")
    program = tmp_path / "decode.py"
    program.write_text(CALL)
    went_well, said = run_in_parallel(*[[program, *arguments]] * 2)
    assert went_well, said
    together = files()
    assert together.keys() == alone.keys()
    for name, text in alone.items():
        assert without_rounding(together[name]) == without_rounding(text), name
    if "--select" in options:
        assert said.count("Selected epoch") == 1
        return
    for one, two in zip(results, read_results(exp_dir / "results.jsonl"), strict=True):
        times = {"rtf": 0.0, "command": "", "first_partial_ms": None, "first_stable_ms": None, "final_ms": None}
        assert replace(one, **times) == replace(two, **times, seconds=pytest.approx(one.seconds))
        assert (two.final_ms is None) == (one.final_ms is None)
        assert two.skipped == 3
        assert two.rtf > 0


def test_two_processes_that_can_read_nothing_say_so(exp_dir: Path, tmp_path: Path) -> None:
    cuts = list(read_cuts(cuts_path(exp_dir.parent, "mini", "test")))
    for cut in cuts:
        cut.recording.sources[0].source = f"/nowhere/{cut.id}.wav"
    write_manifest(cuts, cuts_path(tmp_path, "mini", "test"))
    (tmp_path / "decode.py").write_text(CALL)
    arguments = ["--exp-dir", exp_dir, "--manifest-dir", tmp_path, "--device", "cpu", "--max-duration", "3"]
    went_well, said = run_in_parallel(*[[tmp_path / "decode.py", *arguments]] * 2)
    assert not went_well
    assert re.search(r"decode\.py: test: no utterance could be read, for example cut-\d+: ", said), said


def without_rounding(text: str) -> str:
    """The text with its decimal fractions to two places."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}", text)


def test_differences_are_located_and_judged() -> None:
    def hypothesis(tokens: list[int], frames: list[int], margins: list[float]) -> Hypothesis:
        return Hypothesis(tokens, frames, [0.0] * len(tokens), len(margins), margins)

    base = hypothesis([4, 5], [0, 2], [1.0, 1.0, 1.0, 1.0])
    others = {
        "same": base,
        "late": hypothesis([4, 5], [0, 3], [1.0, 1.0, 5e-5, 1.0]),  # blank instead of 5 at frame 2: a tie
        "other": hypothesis([4, 6], [0, 2], [1.0, 5e-5, 1.0, 1.0]),  # the tie was elsewhere
        "short": hypothesis([4, 5], [0, 2], [1.0, 1.0, 1.0]),
        "missing": hypothesis([4], [0], [1.0, 1.0, 0.5, 1.0]),
    }
    found = decoding_differences(dict.fromkeys(others, base), others)
    assert [(d.cut_id, d.frame, d.is_tie) for d in found] == [
        ("late", 2, True),
        ("missing", 2, False),
        ("other", 2, False),
        ("short", 3, False),
    ]
    with pytest.raises(ValueError, match="different utterances"):
        decoding_differences({"a": base}, {"b": base})
