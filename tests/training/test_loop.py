"""The loop in one process: it learns, survives bad data, logs and keeps what it should."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_toy import EMPTY, ToyData, run, toy_config, toy_model

from summarymix.chunking import DynamicChunkConfig
from summarymix.data.loading import Batch
from summarymix.encoder.zipformer import ZipformerConfig
from summarymix.model import Transducer
from summarymix.runs import list_epochs, read_checkpoint, save_checkpoint
from summarymix.training import run as run_module
from summarymix.training import usage
from summarymix.training.checkpoint import list_checkpoints
from summarymix.training.initialize import feature_stats
from summarymix.training.run import Run
from summarymix.training.schedule import LossScales, OptimConfig
from summarymix.training.step import Step


def read_log(exp_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (exp_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


class SpoiltData(ToyData):
    """Toy data of which some batches are changed by ``spoil``."""

    def __init__(self, spoil: Any) -> None:
        self.change = spoil
        super().__init__()

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, skip_batches: int = 0, *rest: Any) -> Any:
        for number, batch in enumerate(super().epoch(epoch, rank, world_size, skip_batches, *rest), start=skip_batches):
            if epoch > 0:
                self.change(number, batch)
            yield batch


MUON = OptimConfig(lr=1e-2, warmup_steps=10)
ADAMW = replace(MUON, name="adamw")
SCALED_ADAM = OptimConfig(name="scaled_adam", ref_duration=3.0, warmup_batches=10, lr_batches=35, lr_epochs=4)


@pytest.mark.parametrize(
    ("mixing", "optim", "end"),
    [("merged", MUON, 0.03), ("merged", ADAMW, 0.03), ("merged", SCALED_ADAM, 0.3), ("attention", MUON, 0.03)],
    ids=["muon", "adamw", "scaled_adam", "attention"],
)
def test_loss_falls_on_a_few_batches(tmp_path: Path, mixing: Any, optim: OptimConfig, end: float) -> None:
    config = toy_config(
        tmp_path,
        num_epochs=16,
        optim=optim,
        chunk=DynamicChunkConfig(min_chunk=4),
        log_every_steps=8,
        save_every_steps=1000,
        validation=[(None, -1)],
    )
    config.model.dropout = 0.0
    config.model.mixing.mode = mixing
    run(config)
    valid = read_log(tmp_path, "valid")
    assert len(valid) == 16
    assert valid[-1]["pruned"] < 0.3 * valid[0]["pruned"]
    assert valid[-1]["ctc"] < 0.3 * valid[0]["ctc"]
    assert all(line["audio_per_second"] > 0 for line in read_log(tmp_path, "train"))
    # Learning rate: warm, then down.
    rates = [line["lr"] for line in read_log(tmp_path, "train")]
    assert max(rates) == pytest.approx(optim.peak_lr, rel=0.1)
    assert rates[-1] < end * optim.peak_lr


def test_validation_is_at_the_fixed_settings_and_repeatable(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=1, valid_every_steps=4))
    valid = read_log(tmp_path, "valid")
    # At step 8 once, for valid_every_steps and for the epoch's end.
    assert [(line["step"], line["setting"]) for line in valid] == [
        (step, setting) for step in (4, 8) for setting in ("offline", "640ms", "320ms-left2")
    ]
    # Again from another moment of the run: the same numbers.
    (tmp_path / "again").mkdir()
    run(toy_config(tmp_path / "again", num_epochs=1, valid_every_steps=8))
    assert read_log(tmp_path / "again", "valid") == valid[3:]
    scales = LossScales()
    for line in valid:
        expected = scales.simple * line["simple"] + scales.pruned * line["pruned"] + scales.ctc * line["ctc"]
        assert line["loss"] == pytest.approx(expected)


def test_consistency_is_weighted_and_logged_and_validation_is_without(tmp_path: Path) -> None:
    chunk = DynamicChunkConfig(full_context_prob=0.0, min_chunk=2, max_chunk=4)
    base = {"num_epochs": 1, "chunk": chunk, "optim": OptimConfig(lr=0.0)}
    weights = {"simple": 0.5, "pruned": 1.0, "ctc": 0.2, "consistency": 3.0}
    run(toy_config(tmp_path / "with", scales=LossScales(**weights, warmup_steps=0), **base))
    run(toy_config(tmp_path / "without", scales=LossScales(**weights | {"consistency": 0.0}, warmup_steps=0), **base))
    lines = read_log(tmp_path / "with", "train")[1:]  # the first has a step of the scales' warm-up
    assert len(lines) == 3
    for line in lines:
        assert line["consistency"] > 0
        assert line["loss"] == pytest.approx(sum(weight * line[name] for name, weight in weights.items()))
    assert {line["consistency"] for line in read_log(tmp_path / "without", "train")} == {0.0}
    # Nothing is learnt, so both models are the same.
    assert read_log(tmp_path / "with", "valid") == read_log(tmp_path / "without", "valid")


def test_non_finite_validation_loss_is_not_hidden(tmp_path: Path) -> None:
    data = ToyData()
    dev = data.dev()
    dev[1].features[0, 3] = math.nan
    data.dev = lambda: dev  # type: ignore[method-assign]
    run(toy_config(tmp_path, num_epochs=1), data)
    assert [math.isnan(line["loss"]) for line in read_log(tmp_path, "valid")] == [True] * 3


def test_utterance_with_non_finite_loss_is_left_out_and_the_others_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(number: int, batch: Batch) -> None:
        if number == 2:
            batch.features[1, 3] = math.nan
        if number == 5:
            batch.tokens[2] = batch.tokens[2] * 100  # CTC has no path

    class WithoutThem(ToyData):
        def batch(self, epoch: int, number: int) -> Batch:
            batch = super().batch(epoch, number)
            drop = {2: 1, 5: 2}.get(number) if epoch > 0 else None
            keep = [i for i in range(3) if i != drop]
            kept = {name: [getattr(batch, name)[i] for i in keep] for name in ("tokens", "texts", "cut_ids")}
            seconds = batch.seconds * len(keep) / 3
            return Batch(batch.features[keep], batch.feature_lengths[keep], seconds=seconds, **kept)

    progress, model = run(toy_config(tmp_path / "bad", num_epochs=1), SpoiltData(spoil))
    assert (progress.step, progress.skipped, progress.left_out) == (8, 0, 2)
    error = capsys.readouterr().err
    assert "cut-1-2-1" in error
    assert "cut-1-5-2" in error
    assert [line["cut_ids"] for line in read_log(tmp_path / "bad", "left_out")] == [["cut-1-2-1"], ["cut-1-5-2"]]
    assert [line["left_out"] for line in read_log(tmp_path / "bad", "epoch")] == [2]
    # As if these two had never been there.
    data = WithoutThem()
    data.total_seconds = ToyData().total_seconds
    _, expected = run(toy_config(tmp_path / "good", num_epochs=1), data)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())


def test_step_without_finite_gradient_is_skipped_saved_and_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward, calls = Transducer.forward, []

    def bad_gradient(self: Transducer, features: torch.Tensor, *others: Any) -> Any:
        losses = forward(self, features, *others)
        if self.training:
            calls.append(None)
            if len(calls) == 3:
                losses.pruned.register_hook(lambda gradient: gradient * math.nan)
        return losses

    monkeypatch.setattr(Transducer, "forward", bad_gradient)
    progress, model = run(toy_config(tmp_path, num_epochs=1))
    assert (progress.step, progress.skipped, progress.bad_in_a_row) == (7, 1, 0)
    run(toy_config(tmp_path, num_epochs=2))
    counts = [(line["left_out"], line["skipped"]) for line in read_log(tmp_path, "epoch")]
    assert counts == [(0, 1), (0, 0)]  # of each epoch
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert "bad-batch-3-rank0.pt" in capsys.readouterr().err
    (batch,) = torch.load(tmp_path / "bad-batch-3-rank0.pt", weights_only=True)
    assert batch["cut_ids"] == ["cut-1-2-0", "cut-1-2-1", "cut-1-2-2"]
    assert read_log(tmp_path, "skipped")[0]["cut_ids"] == batch["cut_ids"]
    assert read_checkpoint(tmp_path / "epoch-1.pt")["model_avg"]["samples"] == 3  # of 7 steps, every second


def test_lines_of_the_log_are_means_since_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the ends of epochs, and whether or not the run was interrupted in between."""
    losses: list[tuple[float, float]] = []  # sum and frames of each step
    update = Run.update

    def spy(self: Run, step: Step) -> None:
        losses.append((step.sums["loss"], step.sums["frames"]))
        update(self, step)

    monkeypatch.setattr(Run, "update", spy)
    for epochs in (1, 2):
        run(toy_config(tmp_path, num_epochs=epochs, log_every_steps=5))
    found = [(line["step"], line["loss"]) for line in read_log(tmp_path, "train")]
    assert [step for step, _ in found] == [5, 10, 15]
    for step, loss in found:
        total, frames = map(sum, zip(*losses[step - 5 : step], strict=True))
        assert loss == pytest.approx(total / frames, rel=1e-6)


def test_first_line_after_a_checkpoint_of_an_earlier_version(tmp_path: Path) -> None:
    """It had no sums since the last line, so its speed is that of the steps since then."""
    run(toy_config(tmp_path, num_epochs=1, log_every_steps=5))
    checkpoint = read_checkpoint(tmp_path / "epoch-1.pt")
    checkpoint["progress"]["wall_seconds"] += 36000
    for name in ("line_sums", "line_start"):
        del checkpoint["progress"][name]
    save_checkpoint(tmp_path / "epoch-1.pt", checkpoint)
    run(toy_config(tmp_path, num_epochs=2, log_every_steps=5))
    assert all(line["audio_per_second"] > 1 for line in read_log(tmp_path, "train"))


def test_too_many_bad_steps_in_a_row_stop_the_run(tmp_path: Path) -> None:
    def spoil(number: int, batch: Batch) -> None:
        if number >= 2:
            batch.features[:] = math.nan

    config = toy_config(tmp_path, num_epochs=1, max_bad_steps=4)
    with pytest.raises(FloatingPointError, match=r"4 steps in a row .* step 2.*--optim\.lr"):
        run(config, SpoiltData(spoil))
    assert len(list(tmp_path.glob("bad-batch-*.pt"))) == 4
    saved = torch.load(tmp_path / "bad-batch-3-rank0.pt", weights_only=True)
    assert len(saved[0]["cut_ids"]) == 3


def test_batch_of_which_nothing_could_be_read(tmp_path: Path) -> None:
    class WithHoles(ToyData):
        def batch(self, epoch: int, number: int) -> Batch:
            return EMPTY if epoch > 0 and number == 3 else super().batch(epoch, number)

    progress, _ = run(toy_config(tmp_path, num_epochs=1, accumulate=2), WithHoles())
    assert (progress.step, progress.skipped, progress.left_out) == (4, 0, 0)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_data_that_vanish_are_not_taken_for_divergence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scale: float | None
) -> None:
    """Nor, in fp16, for overflows of a loss that is scaled."""
    if scale is not None:

        class Scaler(torch.amp.GradScaler):
            """On the CPU, with a scale that stays."""

            def __init__(self, device: str, **_: object) -> None:
                super().__init__(device, init_scale=scale, enabled=True)

            def update(self, new_scale: float | None = None) -> None:
                super().update(scale)

        monkeypatch.setattr(torch.amp, "GradScaler", Scaler)

    class Vanished(ToyData):
        def batch(self, epoch: int, number: int) -> Batch:
            return EMPTY if epoch > 0 and number >= 2 else super().batch(epoch, number)

    with pytest.raises(OSError, match=r"4 steps in a row were skipped, .* no utterance could be read: restore .*unre"):
        run(toy_config(tmp_path, num_epochs=1, max_bad_steps=4), Vanished())
    assert "No utterance of the batches after step 2 could be read" in capsys.readouterr().err
    assert not list(tmp_path.glob("bad-batch-*.pt"))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_equal_one_large_batch(tmp_path: Path, accumulate: int) -> None:
    """Eight batches, by two or by three; then the last step of the epoch has two."""

    class Joined(ToyData):
        """Several batches as one."""

        def __init__(self) -> None:
            super().__init__(num_batches=math.ceil(8 / accumulate))

        def batch(self, epoch: int, number: int) -> Batch:
            if epoch < 0:
                return super().batch(epoch, number)
            first = number * accumulate
            batches = [super(Joined, self).batch(epoch, i) for i in range(first, min(first + accumulate, 8))]
            lists = {
                name: [item for batch in batches for item in getattr(batch, name)]
                for name in ("tokens", "texts", "cut_ids")
            }
            return Batch(
                torch.nn.utils.rnn.pad_sequence([row for b in batches for row in b.features], batch_first=True),
                torch.cat([batch.feature_lengths for batch in batches]),
                seconds=sum(batch.seconds for batch in batches),
                **lists,
            )

    def config(name: str, accumulate: int) -> Any:
        # Nothing random: dropout, masks and chunk sizes depend on how the utterances are batched.
        made = toy_config(
            tmp_path / name,
            num_epochs=1,
            accumulate=accumulate,
            chunk=DynamicChunkConfig(full_context_prob=1.0),
        )
        made.model.dropout = 0.0
        return made

    progress, accumulated = run(config("accumulated", accumulate))
    assert progress.step == math.ceil(8 / accumulate)
    _, joined = run(config("joined", 1), Joined())
    for name, value in accumulated.state_dict().items():
        torch.testing.assert_close(value, joined.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_last_and_best_epochs_are_kept(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=6, keep_last_k=2, keep_best_k=1, optim=OptimConfig(lr=3e-3, warmup_steps=4)))
    history = read_checkpoint(tmp_path / "epoch-6.pt")["history"]
    means = {h["epoch"]: sum(v["loss"] for v in h["valid"].values()) / 3 for h in history}
    assert set(list_epochs(tmp_path)) == {5, 6, min(means, key=means.__getitem__)}
    assert not list(tmp_path.glob("checkpoint-*.pt"))


def test_max_steps_ends_the_run_and_its_epoch_with_a_complete_schedule(tmp_path: Path) -> None:
    config = toy_config(tmp_path, num_epochs=100, max_steps=11, log_every_steps=1)
    progress, _ = run(config)
    assert (progress.epoch, progress.batch, progress.step) == (2, 3, 11)
    assert list_checkpoints(tmp_path) == [tmp_path / "epoch-1.pt", tmp_path / "epoch-2.pt"]
    assert [ended["step"] for ended in read_checkpoint(tmp_path / "epoch-2.pt")["history"]] == [8, 11]
    assert read_log(tmp_path, "train")[-1]["lr"] < 0.1 * config.optim.lr
    assert [line["step"] for line in read_log(tmp_path, "valid")] == [8] * 3 + [11] * 3
    # The same command again has nothing to do.
    before = (tmp_path / "epoch-2.pt").read_bytes()
    assert run(config)[0].step == 11
    assert (tmp_path / "epoch-2.pt").read_bytes() == before
    # Nor has one after a kill while the epoch was being ended, but to end it.
    (tmp_path / "epoch-2.pt").rename(tmp_path / "checkpoint-11.pt")
    checkpoint = read_checkpoint(tmp_path / "checkpoint-11.pt")
    save_checkpoint(tmp_path / "checkpoint-11.pt", checkpoint | {"history": checkpoint["history"][:1]})
    assert run(config)[0].step == 11
    assert list_checkpoints(tmp_path) == [tmp_path / "epoch-1.pt", tmp_path / "epoch-2.pt"]


def test_epoch_of_a_run_that_max_steps_ended_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With another schedule, as a message tells: the cosine ends at the last step."""
    update, trained_on = Run.update, []

    def spy(self: Run, step: Step) -> None:
        trained_on.extend(cut_id for batch in step.group for cut_id in batch.cut_ids)
        update(self, step)

    monkeypatch.setattr(Run, "update", spy)
    for max_steps, changed in ((3, False), (3, False), (5, True), (None, True)):
        run(toy_config(tmp_path, num_epochs=1, max_steps=max_steps))
        told = "--max_steps ends the learning rate's schedule, which has changed"
        assert (told in capsys.readouterr().err) == changed
        history = read_checkpoint(tmp_path / "epoch-1.pt")["history"]
        assert [(ended["epoch"], ended["step"]) for ended in history] == [(1, max_steps or 8)]
    assert trained_on == [cut_id for batch in ToyData().epoch(1) for cut_id in batch.cut_ids]
    assert list_epochs(tmp_path) == [1]


def test_max_steps_at_the_end_of_an_epoch_ends_it(tmp_path: Path) -> None:
    run(toy_config(tmp_path, max_steps=8))
    assert [path.name for path in tmp_path.glob("*.pt")] == ["epoch-1.pt"]


def test_costs_are_those_of_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, everything else more."""
    clock = SimpleNamespace(seconds=0.0)

    def lasting(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            clock.seconds += seconds
            return function(*arguments)

        return call

    monkeypatch.setattr(usage.Stopwatch, "_now", staticmethod(lambda: (clock.seconds, 2 * clock.seconds)))
    monkeypatch.setattr(Run, "update", lasting(1, Run.update))
    for name in ("validate", "replace_step_checkpoint", "save_checkpoint"):
        monkeypatch.setattr(run_module, name, lasting(100, getattr(run_module, name)))
    progress, _ = run(toy_config(tmp_path, valid_every_steps=3, save_every_steps=2))
    assert (progress.step, progress.wall_seconds, progress.cpu_seconds) == (16, 16, 32)
    lines = read_log(tmp_path, "train")
    seconds = sum(batch.seconds for epoch in (1, 2) for batch in ToyData().epoch(epoch))
    assert sum(2 * line["audio_per_second"] for line in lines) == pytest.approx(seconds)


def test_options_without_effect_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for max_steps in (1, 2):  # Eden does not depend on the end
        scales = LossScales(consistency_after=9)
        config = toy_config(tmp_path, max_steps=max_steps, optim=replace(SCALED_ADAM, lr=0.3), scales=scales)
        run(replace(config, model=replace(config.model, zipformer=ZipformerConfig(ref_duration=60.0))))
        told = capsys.readouterr().err
        ignored = "--model.zipformer.ref_duration 60.0, --optim.lr 0.3, --scales.consistency_after 9"
        assert f"are ignored: {ignored}\n" in told
        assert "schedule, which has changed" not in told


def test_the_beginning_of_the_delay_penalty_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = toy_config(tmp_path, max_steps=1)
    run(replace(config, loss=replace(config.loss, delay_penalty=0.01)))
    assert "--loss.delay_penalty begins at step 12\n" in capsys.readouterr().err


def test_feature_statistics_are_those_of_valid_frames(tmp_path: Path) -> None:
    data = ToyData()
    mean, std = feature_stats(data.epoch(0))
    frames = torch.cat([batch.features[i, :n] for batch in data.epoch(0) for i, n in enumerate(batch.feature_lengths)])
    torch.testing.assert_close(mean, frames.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, frames.std(0, unbiased=False), rtol=1e-4, atol=1e-5)
    with_tails = (
        replace(
            batch,
            features=torch.cat([batch.features, torch.full((len(batch), 5, batch.features.size(2)), -99.0)], dim=1),
            feature_lengths=batch.feature_lengths + 5,
            tail_frames=5,
        )
        for batch in data.epoch(0)
    )
    torch.testing.assert_close(feature_stats(with_tails), (mean, std))
    config = toy_config(tmp_path, num_epochs=1)
    fresh = toy_model(config).state_dict()
    _, model = run(config)
    changed = {name for name, _ in model.named_buffers() if not torch.equal(model.state_dict()[name], fresh[name])}
    assert len(changed) == 2  # mean and scale of the features


def test_bfloat16_trains_and_fp16_needs_a_gpu(tmp_path: Path) -> None:
    run(toy_config(tmp_path / "bf16", num_epochs=1, precision="bf16"))
    checkpoint = read_checkpoint(tmp_path / "bf16" / "epoch-1.pt")
    assert {value.dtype for value in checkpoint["model"].values() if value.is_floating_point()} == {torch.float32}
    if not torch.cuda.is_available():
        for precision in ("tf32", "fp16"):
            with pytest.raises(ValueError, match=f"--precision {precision} needs a GPU"):
                run(toy_config(tmp_path / precision, precision=precision))
        assert not (tmp_path / "fp16").exists()


def test_loss_scaling_backs_off_without_blaming_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logic of fp16, here on the CPU: a scale that is too large is lowered, and these steps are no bad ones."""
    for module in ("run", "validation"):
        monkeypatch.setattr(
            f"summarymix.training.{module}.autocast", lambda device, _: torch.autocast(device.type, torch.float16)
        )
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: scaler(*a, **(k | {"init_scale": 2.0**24})))
    progress, _ = run(toy_config(tmp_path, num_epochs=4, precision="fp16", max_bad_steps=2))
    assert progress.skipped > 2
    assert progress.step + progress.skipped == 32
    assert progress.step > 8
    assert not list(tmp_path.glob("bad-batch-*"))
    checkpoint = read_checkpoint(tmp_path / "epoch-4.pt")
    assert checkpoint["scaler"]["scale"] < 2.0**24
    assert all(value.isfinite().all() for value in checkpoint["model"].values())


def test_tensorboard_gets_the_numbers_of_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(toy_config(tmp_path, num_epochs=1, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in read_log(tmp_path, "train")]
    assert [event.value for event in events.Scalars("epoch/skipped")] == [0]
    for line in read_log(tmp_path, "valid"):  # each setting has curves of its own
        for name in ("loss", "wer"):
            (event,) = events.Scalars(f"valid/{line['setting']}/{name}")
            assert (event.step, event.value) == (line["step"], pytest.approx(line[name]))


def test_each_view_of_a_batch_has_a_chunk_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, seen = Transducer.forward, []

    def spy(self: Transducer, views: Any, *rest: Any) -> Any:
        seen.append(views)
        return forward(self, views, *rest)

    monkeypatch.setattr(Transducer, "forward", spy)
    run(toy_config(tmp_path, num_epochs=1, scales=LossScales(consistency=0.2, consistency_after=3)))
    assert [len(views) for views in seen] == [1] * 3 + [2] * 5
    assert any(first.chunk != second.chunk for first, second in seen[3:])
    assert all(torch.equal(first.features, second.features) for first, second in seen[3:])
