"""``train.py`` on audio files: the real data, model and command line together."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from summarymix.blocks.attention import RelativeAttention
from summarymix.data.skipped import SkippedItems
from summarymix.decoding.cli import main as decode
from summarymix.encoder.zipformer import Zipformer
from summarymix.runs import load_model, read_checkpoint
from summarymix.scoring.results import read_results
from summarymix.training.checkpoint import replace_step_checkpoint
from summarymix.training.cli import main
from summarymix.training.run import Run
from summarymix.training.step import Step


def test_command_trains_resumes_and_names_what_it_leaves_out(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--exp-dir", "exp", "--model.conformer.dim", "24", "--seed=3"])
    main("toy")
    said = capsys.readouterr().err
    assert "11 utterances" in said
    assert "1 empty transcript" in said
    assert "train-3" in Path("exp/skipped.tsv").read_text()
    assert "train-5" in Path("exp/skipped-unreadable.tsv").read_text()
    notice = "unreadable utterances: 1 (listed in exp/skipped-unreadable*.tsv)"
    assert said.count(notice) == 3
    assert f"0 utterances left out for their loss. Last epoch: {notice}. Checkpoints and logs" in said
    records = [json.loads(line) for line in Path("exp/log.jsonl").read_text().splitlines()]
    assert [line["unreadable"] for line in records if line["kind"] == "epoch"] == [1, 1]
    model, tokenizer, info = load_model("exp")
    assert model.config.conformer.dim == 24
    assert model.config.vocab_size == tokenizer.vocab_size
    assert (info["recipe"], info["epoch"], info["config"]["seed"]) == ("toy", 2, 3)
    assert yaml.safe_load(Path("exp/config.yaml").read_text())["model"]["conformer"]["dim"] == 24
    # Again: nothing is left to do. And from the configuration it wrote, in another folder: the same model.
    main("toy", ["--exp-dir", "exp", "--model.conformer.dim", "24", "--seed=3"])
    main("toy", ["--config", "exp/config.yaml", "--exp-dir", "exp2"])
    first, second = (read_checkpoint(Path(name, "epoch-2.pt"))["model"] for name in ("exp", "exp2"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    starts = [line for line in Path("exp/log.jsonl").read_text().splitlines() if json.loads(line)["kind"] == "start"]
    assert len(starts) == 2
    assert all(json.loads(line)["command"] for line in starts)


def test_unreadable_dev_utterances_are_said_when_their_number_changes(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe / "audio" / "dev-1.wav"
    content = path.read_bytes()
    path.write_bytes(content[:30])
    main("toy", ["--exp-dir", "exp"])
    said = capsys.readouterr().err
    assert said.count("Unreadable dev utterances: 1; the validation is without them (listed in exp/skipped-*.tsv)") == 1
    assert "dev-1" in Path("exp/skipped-dev.tsv").read_text()
    path.write_bytes(content)
    main("toy", ["--exp-dir", "exp", "--num-epochs", "3"])
    assert "Unreadable dev" not in capsys.readouterr().err


def test_sizes_of_the_model_that_its_data_decide(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(Path("data/lang/tokens.txt").read_text().splitlines())
    options = ["--exp-dir", "exp", "--num-epochs", "1", "--max-steps", "1"]
    with pytest.raises(
        SystemExit, match=rf"--model\.vocab_size 1000 differs from the {size} tokens of data/lang/tokens"
    ):
        main("toy", [*options, "--model.vocab-size", "1000"])
    with pytest.raises(SystemExit):
        main("toy", [*options, "--model.feature-dim", "40"])
    assert "--model.feature_dim 40 differs from --data.num_mel_bins 80" in capsys.readouterr().err
    assert not Path("exp/config.yaml").exists()
    main("toy", [*options, "--model.vocab-size", str(size), "--data.num-mel-bins", "40"])
    recorded = yaml.safe_load(Path("exp/config.yaml").read_text())
    assert (recorded["model"]["vocab_size"], recorded["model"]["feature_dim"]) == (size, 40)
    model, *_ = load_model("exp")
    assert (model.config.vocab_size, model.config.feature_dim) == (size, 40)


def test_lists_of_dev_data_of_another_number_of_processes_are_removed(recipe: Path) -> None:
    Path("exp").mkdir()
    for name in ("skipped-dev-rank3.tsv", "skipped-dev.tsv"):
        Path("exp", name).write_text("id\tfile\treason\tdetail\tremedy\n")
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1", "--max-steps", "1"])
    assert not list(Path("exp").glob("skipped-dev*"))


def test_another_corpus_is_trained_on_validated_and_decoded(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configured in an overlay; the other corpus is the same one, in another place."""
    other = recipe.parent / "other"
    (other / "data").mkdir(parents=True)
    shutil.copytree("data/fbank", other / "data" / "fbank")
    for path in (other / "data" / "fbank").iterdir():
        path.rename(path.with_name(path.name.replace("toy_", "other_")))
    overlay = {"data": {"corpora": [{"prefix": "other", "dir": str(other), "weight": 0.5}]}}
    Path("both.yaml").write_text(yaml.safe_dump(overlay))
    main("toy", ["--config", "conf/conformer.yaml", "--config", "both.yaml"])
    said = capsys.readouterr().err
    assert re.search(r"Hours of an epoch by split: train \d\.\d\d, train@other \d\.\d\d", said)
    assert re.search(r"dev offline \d.*, offline@toy \d.*, offline@other \d", said)
    decode("toy", ["--splits", "dev", "dev@other"])
    own, of_other = read_results(Path("exp", "results.jsonl"))
    assert (own.split, of_other.split) == ("dev", "dev@other")
    assert own.wer == of_other.wer
    assert Path("exp", of_other.recogs).is_file()
    with pytest.raises(SystemExit) as error:
        decode("toy", ["--splits", "dev@another"])
    assert "dev@another: the model's corpora are toy, other; another is none of them" in str(error.value)


def test_run_stopped_within_an_epoch_continues_with_the_batches_that_are_left(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main("toy", ["--exp-dir", "whole"])

    def save_and_stop(*arguments: Any) -> None:
        replace_step_checkpoint(*arguments)
        raise KeyboardInterrupt

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("summarymix.training.run.replace_step_checkpoint", save_and_stop)
            with pytest.raises(SystemExit, match="130"):
                main("toy", ["--exp-dir", "stopped", "--save-every-steps", "2"])
    main("toy", ["--exp-dir", "stopped", "--save-every-steps", "2"])
    whole, stopped = (read_checkpoint(Path(name, "epoch-2.pt")) for name in ("whole", "stopped"))
    assert whole["progress"]["step"] == stopped["progress"]["step"] > 6
    assert whole["history"] == stopped["history"]
    assert all(torch.equal(value, stopped["model"][name]) for name, value in whole["model"].items())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], None),
        (["--data.num-workers", "0", "--accumulate", "2", "--seed=42"], None),
        (["--data.max-duration", "8"], r"data\.max_duration was 4\.0 and is 8\.0"),
        (["--data.num-buckets", "2"], r"data\.num_buckets was 30 and is 2"),
        (["--data.max-seconds", "1.5"], r"training cuts was 11 \(checksum \w+\) and is \d+ \(checksum \w+\)"),
        (["--data.silence.probability", "1"], r"data\.silence\.probability was 0\.0 and is 1\.0"),
        (["--data.train", "[train, dev]"], r"training cuts was 11 .* and is 15"),
        (["--seed", "1"], "seed was 42 and is 1"),
    ],
)
def test_epoch_continues_with_other_batches_and_neither_loses_nor_repeats_a_cut(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    update = Run.update
    trained_on: list[str] = []

    def spy(self: Run, step: Step) -> None:
        trained_on.extend(cut_id for batch in step.group for cut_id in batch.cut_ids)
        update(self, step)

    monkeypatch.setattr(Run, "update", spy)
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1", "--max-steps", "2"])
    before = trained_on.copy()
    assert 0 < len(before) < 10
    capsys.readouterr()
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1", *options])
    said = capsys.readouterr().err
    if told is None:
        assert "new batches" not in said
    else:
        assert re.search(rf"Epoch 1 continues with the cuts that are left, in new batches: .*{told}", said)
    cuts = {f"train-{i}" for i in range(12)} | ({f"dev-{i}" for i in range(4)} if "[train, dev]" in options else set())
    for name in ("skipped.tsv", "skipped-unreadable.tsv"):
        cuts -= {item.id for item in SkippedItems.read(Path("exp", name)).items} - set(before)
    assert Counter(trained_on) == Counter(cuts)


def test_epoch_of_an_earlier_version_begins_anew(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1", "--max-steps", "2"])
    path = Path("exp/epoch-1.pt")
    checkpoint = read_checkpoint(path)
    del checkpoint["done"], checkpoint["num_done_before"]
    torch.save(checkpoint, path)
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1"])
    said = capsys.readouterr().err
    assert "Epoch 1 begins anew with the weights of step 2, because an earlier version wrote the checkpoint" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_all_processes_of_a_job_stops_after_a_checkpoint(recipe: Path, number: signal.Signals) -> None:
    """Batch systems and terminals signal the data workers too."""
    options = ["--exp-dir", "exp", "--num-epochs", "1000", "--log-every-steps", "1", "--data.num-workers", "2"]
    code = "from summarymix.training.cli import main; main('toy')"
    job = subprocess.Popen(
        [sys.executable, "-c", code, *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log, deadline = Path("exp/log.jsonl"), time.monotonic() + 60
    while not (log.exists() and '"train"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(job.pid, number)
    told = job.communicate()[1]
    assert job.returncode == 128 + number, told
    assert f"Stopped by {number.name}: epoch " in told.splitlines()[-1]
    assert "Traceback" not in told
    assert len(list(Path("exp").glob("checkpoint-*.pt"))) == 1
    assert not Path("exp/.lock").exists()


def test_neither_workers_nor_the_memory_scan_change_the_result(recipe: Path) -> None:
    for workers, scan in (("0", "false"), ("2", "true")):
        options = ["--num-epochs", "1", "--data.num-workers", workers, "--scan-memory", scan]
        main("toy", ["--exp-dir", f"exp{workers}", *options])
    first, second = (read_checkpoint(Path(f"exp{workers}", "epoch-1.pt"))["model"] for workers in ("0", "2"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_attention_is_chosen_by_an_option(recipe: Path) -> None:
    options = ["--num-epochs", "1", "--model.mixing.mode", "attention", "--model.conformer.num-heads", "2"]
    main("toy", ["--exp-dir", "exp", *options])
    model, _, _ = load_model("exp")
    mixers = [module for module in model.modules() if isinstance(module, RelativeAttention)]
    assert [mixer.values.num_heads for mixer in mixers] == [2]


def test_the_zipformer_is_chosen_by_an_option_and_trains_with_its_own_optimiser(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its schedules nearly done by the second epoch: all regularisers have had their turn."""
    sizes = {
        "downsampling": [1, 4, 2],
        "num_layers": [1, 1, 1],
        "dims": [12, 16, 12],
        "feedforward_dims": [16, 16, 16],
        "kernel_sizes": [5, 3, 5],
        "summary_dims": [8, 8, 8],
        "num_heads": [1, 1, 1],
        "frontend_channels": [2, 3, 4],
        "ref_duration": 0.001,
    }
    Path("zip.yaml").write_text(yaml.safe_dump({"model": {"encoder": "zipformer", "zipformer": sizes}}))
    options = ["--config", "conf/conformer.yaml", "--config", "zip.yaml"]
    # 7 frames are no multiple of 2: training and the scan of memory round them up.
    main("toy", ["--exp-dir", "exp", *options, "--chunk.min_chunk", "7", "--scan-memory", "true"])
    assert yaml.safe_load(Path("exp/config.yaml").read_text())["optim"]["name"] == "scaled_adam"
    model, _, _ = load_model("exp")
    assert isinstance(model.encoder, Zipformer)
    assert (model.encoder.chunk_multiple, model.encoder.dim) == (2, 16)
    for validation in read_checkpoint(Path("exp/epoch-2.pt"))["history"]:
        assert all(0 < losses["loss"] < 100 for losses in validation["valid"].values())
    with pytest.raises(SystemExit, match=r"a chunk of 360 ms is not a multiple of 80 ms.*; nearest: 320 ms or 400 ms"):
        main("toy", ["--exp-dir", "other", *options, "--validation", "[[360, -1]]"])
    with pytest.raises(SystemExit, match=r"--chunk.min_chunk 9 and --chunk.max_chunk 9 have no multiple of 2"):
        main("toy", ["--exp-dir", "other", *options, "--chunk.min_chunk", "9", "--chunk.max_chunk", "9"])
    with pytest.raises(SystemExit, match="2"):
        main("toy", ["--exp-dir", "other", *options, "--model.zipformer.num_layers", "[1, 1]"])
    assert "different lengths (downsampling 3, num_layers 2" in capsys.readouterr().err


def test_without_a_configuration_it_says_where_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"No conf/conformer\.yaml in .*--config"):
        main("toy", [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--validation", "[[100, -1]]"], "--validation 100 is not a multiple of the encoder's frame of 40 ms"),
        (["--accumulate", "0"], "--accumulate 0"),
        (["--data.lang_dir", "elsewhere"], "elsewhere"),
        (["--data.train", "[nowhere]"], "nowhere"),
    ],
)
def test_wrong_options_are_named(recipe: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str) -> None:
    with pytest.raises((SystemExit, ValueError, FileNotFoundError)) as caught:
        main("toy", ["--exp-dir", "exp", *line])
    assert words in f"{caught.value} {capsys.readouterr().err}"
