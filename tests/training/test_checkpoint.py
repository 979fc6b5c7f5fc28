"""Checkpoints: whole or not at all, found, averaged, refused."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toy import TOKENIZER, ToyData, run, toy_config

from summarymix.chunking import ChunkConfig
from summarymix.runs import (
    choose_epoch,
    epoch_path,
    list_epochs,
    load_model,
    load_run_or_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from summarymix.training.checkpoint import newest_checkpoint, remove_old


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs of eight steps, sampled at every second step."""
    exp_dir = tmp_path_factory.mktemp("exp")
    run(toy_config(exp_dir, num_epochs=4))
    return exp_dir


def checkpoint_at(epoch: int, step: int) -> dict[str, Any]:
    return {"model_config": {}, "model": {}, "progress": {"epoch": epoch, "step": step, "skipped": 0}}


def test_model_comes_back_with_its_configuration_and_tokens(exp_dir: Path) -> None:
    model, tokenizer, info = load_model(exp_dir, epoch=4, avg=0)
    assert not model.training
    assert tokenizer.tokens == TOKENIZER.tokens
    assert (info["epoch"], info["avg"], info["step"], info["recipe"]) == (4, 0, 32, "toy")
    assert info["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert [entry["epoch"] for entry in info["history"]] == [1, 2, 3, 4]
    assert info["config"]["optim"]["lr"] == 3e-3
    saved = read_checkpoint(exp_dir / "epoch-4.pt")["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    # And the loaded model runs.
    batch = ToyData().batch(1, 0)
    out, _ = model.encoder(batch.features, batch.feature_lengths, ChunkConfig())
    assert out.isfinite().all()


def test_checkpoint_says_nothing_about_the_machine(exp_dir: Path) -> None:
    names = "model model_avg model_config tokens optimizer scaler progress validated history config batching recipe"
    names += " done num_done_before"
    assert set(read_checkpoint(exp_dir / "epoch-4.pt")) == {*names.split(), "summarymix_version"}


def test_default_is_the_last_epoch(exp_dir: Path) -> None:
    assert load_model(exp_dir)[2]["epoch"] == 4


def test_average_is_the_mean_of_the_weights_at_the_sampled_steps(tmp_path: Path, monkeypatch: Any) -> None:
    from summarymix.training.averaging import RunningMean

    samples: list[dict[str, torch.Tensor]] = []
    update = RunningMean.update

    def spy(self: RunningMean, model: torch.nn.Module) -> None:
        update(self, model)
        samples.append({name: value.detach().double() for name, value in model.state_dict().items()})

    monkeypatch.setattr(RunningMean, "update", spy)
    run(toy_config(tmp_path, num_epochs=3))
    assert len(samples) == 12  # four in each epoch
    for epoch, avg in [(1, 1), (2, 1), (3, 2), (3, 3)]:
        model = load_model(tmp_path, epoch, avg)[0]
        for name, value in model.state_dict().items():
            expected = torch.stack([sample[name] for sample in samples[4 * (epoch - avg) : 4 * epoch]]).mean(0)
            torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=1e-7)


def test_mean_is_saved_in_float64_and_training_goes_on_in_it(exp_dir: Path) -> None:
    for epoch in list_epochs(exp_dir):
        mean = read_checkpoint(epoch_path(exp_dir, epoch))["model_avg"]["mean"]
        assert {value.dtype for value in mean.values()} == {torch.float64}
        # float32 values cast to float64 would have nothing in their lower bits.
        assert any(not torch.equal(value, value.float().double()) for value in mean.values())


@pytest.mark.parametrize(
    ("epoch", "avg", "error", "words"),
    [
        (9, 1, FileNotFoundError, r"epoch-9\.pt; epochs in .*: 1, 2, 3, 4"),
        (3, 4, ValueError, r"--avg 4 .* epoch, which is 3"),
        (3, -1, ValueError, r"--avg -1"),
    ],
)
def test_wrong_epochs_are_explained(exp_dir: Path, epoch: int, avg: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_model(exp_dir, epoch, avg)


def test_missing_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No epoch-\*\.pt in .*train first"):
        load_model(tmp_path)
    run(toy_config(tmp_path / "short", max_steps=2))
    within = tmp_path / "short" / "checkpoint-2.pt"
    (tmp_path / "short" / "epoch-1.pt").rename(within)
    with pytest.raises(FileNotFoundError, match=r"first epoch is unfinished.* transcribe\.py .*checkpoint-2\.pt"):
        load_model(tmp_path / "short")
    info = load_run_or_checkpoint(within)[2]
    assert (info["epoch"], info["avg"], info["step"]) == (1, 0, 2)
    run(toy_config(tmp_path, num_epochs=3, average_period=20))
    assert load_run_or_checkpoint(tmp_path / "epoch-3.pt")[2]["epoch"] == 3
    # The only sample is that of step 20, in epoch 3.
    with pytest.raises(ValueError, match=r"epochs 2 to 2 .*--average_period.*--avg 0"):
        load_model(tmp_path, 2, 1)
    (tmp_path / "epoch-1.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"epoch-1\.pt.* 2, 3; .*--keep_last_k"):
        load_model(tmp_path, 3, 2)


def test_strict_loading_names_what_does_not_fit(exp_dir: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(exp_dir / "epoch-4.pt")
    weight = checkpoint["model"].pop("ctc_head.weight")
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    with pytest.raises(ValueError, match=r"epoch-1\.pt .* does not fit the model(.|\n)*Missing key.*ctc_head\.weight"):
        load_model(tmp_path, 1, 0)
    checkpoint["model"] |= {"ctc_head.weight": weight, "extra": weight}
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    with pytest.raises(ValueError, match=r"Unexpected key.*extra"):
        load_model(tmp_path, 1, 0)
    del checkpoint["model"]["extra"]
    checkpoint["model_config"]["number_of_heads"] = 8
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    with pytest.raises(ValueError, match="number_of_heads"):
        load_model(tmp_path, 1, 0)


def test_checkpoint_from_before_an_option_has_its_default(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=2))
    checkpoint = read_checkpoint(tmp_path / "epoch-1.pt")
    del checkpoint["model_config"]["mixing"], checkpoint["model_config"]["conformer"]["num_heads"]
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    load_model(tmp_path, 2, 1)  # averaged from this one on
    (tmp_path / "epoch-2.pt").unlink()
    progress, model = run(toy_config(tmp_path, num_epochs=2))
    assert (progress.step, model.config.mixing.mode, model.config.conformer.num_heads) == (16, "merged", 4)


def test_resuming_another_configuration_is_refused(exp_dir: Path, tmp_path: Path) -> None:
    before = (exp_dir / "epoch-4.pt").read_bytes()
    config = toy_config(exp_dir, num_epochs=5)
    config.model.conformer.num_layers, config.model.conformer.kernel_size = 3, 7
    with pytest.raises(
        ValueError,
        match=r"epoch-4\.pt .*\.kernel_size was 5 and is 7, model\.conformer\.num_layers was 2 and is 3.*--exp_dir",
    ):
        run(config)
    assert (exp_dir / "epoch-4.pt").read_bytes() == before
    checkpoint = read_checkpoint(exp_dir / "epoch-4.pt")
    checkpoint["tokens"]["tokens"][2] = "x"
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    with pytest.raises(ValueError, match=r"another token table than the one in --data\.lang_dir"):
        run(toy_config(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"hello world", None])
def test_damaged_file_is_named(exp_dir: Path, tmp_path: Path, content: bytes | None) -> None:
    whole = (exp_dir / "epoch-4.pt").read_bytes()
    (tmp_path / "epoch-4.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    reason = r"\((it was not written by torch\.save|PytorchStreamReader .*)\)"
    with pytest.raises(ValueError, match=rf"epoch-4\.pt is damaged or .* {reason}\. .* resumes from the previous"):
        load_model(tmp_path, 4, 0)


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, {"model_config": {}}])
def test_file_of_something_else_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "epoch-1.pt")
    with pytest.raises(ValueError, match=r"epoch-1\.pt is not a checkpoint of this library"):
        load_model(tmp_path, 1, 0)


def test_options_of_a_later_version_are_named(exp_dir: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(exp_dir / "epoch-4.pt")
    checkpoint["model_config"]["new_option"] = 1
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    with pytest.raises(ValueError, match=r"epoch-1\.pt was written by summarymix .*, [\d.]+.*: .*'new_option'"):
        run(toy_config(tmp_path))


def test_a_damaged_selection_is_named(tmp_path: Path) -> None:
    (tmp_path / "selected.json").write_text("")
    with pytest.raises(ValueError, match=r"selected\.json is damaged .*: run decode\.py --select again"):
        choose_epoch(tmp_path, None, None)


def test_file_with_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    for value in (tmp_path, print):
        torch.save({"model": value, "model_config": {}}, tmp_path / "epoch-1.pt")
        with pytest.raises(ValueError, match=r"epoch-1\.pt .*it holds [\w.]+, .* objects can run code") as refusal:
            load_model(tmp_path, 1, 0)
        assert not re.search("weights_only|safe_globals", str(refusal.value))


def test_full_disk_names_the_file_and_leaves_the_previous_one(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, {"model_config": {}, "weights": torch.zeros(1000)})
    before = path.read_bytes()
    real_open = open

    class FullDisk:
        def __init__(self, file: Any) -> None:
            self.file, self.left = file, 2000

        def write(self, data: bytes) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "FullDisk":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

    monkeypatch.setattr("summarymix.files.open", lambda *a, **k: FullDisk(real_open(*a, **k)), raising=False)
    with pytest.raises(OSError, match=r"epoch-1\.pt.*free some room") as caught:
        save_checkpoint(path, {"model_config": {}, "weights": torch.ones(100000)})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["epoch-1.pt"]


def test_newest_is_the_furthest_in_training(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path / "epoch-2.pt", checkpoint_at(3, 20))
    save_checkpoint(tmp_path / "epoch-10.pt", checkpoint_at(11, 100))
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch-10.pt"
    save_checkpoint(tmp_path / "checkpoint-90.pt", checkpoint_at(10, 90))
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch-10.pt"
    save_checkpoint(tmp_path / "checkpoint-120.pt", checkpoint_at(11, 120))
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-120.pt"


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 9):
        save_checkpoint(epoch_path(tmp_path, epoch), checkpoint_at(epoch + 1, 0))
    save_checkpoint(tmp_path / "checkpoint-7.pt", checkpoint_at(8, 3))
    losses = {1: 5.0, 2: float("nan"), 3: 1.0, 4: 4.0, 5: 2.0, 6: float("inf"), 7: 9.0, 8: 8.0}
    remove_old(tmp_path, losses, keep_last_k=2, keep_best_k=3)
    assert list_epochs(tmp_path) == [3, 4, 5, 7, 8]
    assert not (tmp_path / "checkpoint-7.pt").exists()
