"""The training loop.

Two rules make a run reproducible. Every random number is a function of the seed and of the number of the batch it is
drawn for, so a run that was killed continues exactly where its last checkpoint left it, and two processes draw what one
process would that accumulates two batches. And gradients are those of sums over utterances, divided at last by the
number of encoder frames of all batches and processes, so it does not matter how a step's audio is shared out.
"""

import itertools
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from summarymix.blocks.scheduled import find_scheduled, set_progress
from summarymix.chunking import ChunkConfig
from summarymix.data.augment import spec_augment
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.files import atomic_write
from summarymix.model import Transducer, View
from summarymix.training.averaging import RunningMean
from summarymix.training.checkpoint import (
    Progress,
    check_same_model,
    epoch_path,
    newest_checkpoint,
    read_checkpoint,
    remove_old,
    remove_partial,
    replace_step_checkpoint,
    save_checkpoint,
)
from summarymix.training.config import TrainConfig, differences, plain
from summarymix.training.distributed import World
from summarymix.training.divergence import remedies, stop_if_diverged
from summarymix.training.environment import environment
from summarymix.training.initialise import feature_stats, initialise_from
from summarymix.training.log import TrainingLog
from summarymix.training.memory_scan import explain_out_of_memory, scan_memory
from summarymix.training.optim import clip_factor, make_optimizer, restore_optimizer
from summarymix.training.precision import autocast
from summarymix.training.schedule import learning_rate, loss_scales
from summarymix.training.seeding import reseed
from summarymix.training.usage import Stopwatch, peak_memory
from summarymix.training.validation import plateau_notice, validate

MAX_SAVED_BAD_BATCHES = 10  # so that a diverging run does not fill the disk

# What is summed over a step's utterances.
SUMS = ("frames", "left_out", "loss", "simple", "pruned", "ctc", "consistency", "seconds")


class EpochData(Protocol):
    """What the loop asks of training data; :class:`summarymix.data.training_data.TrainData` is the real one."""

    total_seconds: float

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, skip_batches: int = 0) -> Iterator[Batch]:
        """The batches of an epoch for one process, the same number for each."""

    def worst_batches(self) -> Iterable[tuple[str, Batch]]:
        """The batches that take most memory, each with the reason."""


def train(
    config: TrainConfig,
    model: Transducer,
    tokenizer: Tokenizer,
    train_data: EpochData,
    dev_data: Sequence[Iterable[Batch]],
    world: World,
    recipe: str = "",
) -> Progress:
    """Train ``model``, from the newest checkpoint in ``config.exp_dir`` if there is one.

    Args:
        config: the run.
        model: as initialised; its weights are changed.
        tokenizer: goes into the checkpoints.
        train_data: batches to train on.
        dev_data: the dev splits.
        world: this process and the others.
        recipe: name of the corpus, for the checkpoints.

    Returns:
        Where the run ended.

    Raises:
        RuntimeError: ``config.max_bad_steps`` steps in a row had no finite gradient, or the loss has run away.
        ValueError: the checkpoint in ``exp_dir`` is of another configuration.
        OSError: a checkpoint cannot be written; those before it are intact.
    """
    exp_dir, device = config.exp_dir, world.device
    # These refuse what this machine cannot do, before anything is written.
    autocast(device, config.precision)
    surroundings = environment(config, world)
    config.chunk.check(model.encoder.chunk_multiple)
    for setting in config.validation:
        model.encoder.check_chunk(ChunkConfig.from_ms(*setting))
    model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scheduled = find_scheduled(model)
    optimizer = make_optimizer(model, config.optim)
    # A gradient of sums over utterances is in half precision's range as it is; grow from there.
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=config.precision == "fp16")
    average = RunningMean(model)
    progress = Progress()
    history: list[dict[str, Any]] = []
    messages = [", ".join(f"{name}: {value}" for name, value in surroundings.items())]
    if unused := config.optim.without_effect():
        messages.append(f"Without effect, as options of another optimiser or schedule: {', '.join(unused)}")

    resumed_from = newest_checkpoint(exp_dir)
    if resumed_from is not None:
        checkpoint = read_checkpoint(resumed_from)
        check_same_model(resumed_from, checkpoint, plain(model.config), tokenizer.state())
        model.load_state_dict(checkpoint["model"])
        restore_optimizer(optimizer, resumed_from, checkpoint, config.optim)
        scaler.load_state_dict(checkpoint["scaler"])
        average.load_state_dict(checkpoint["model_avg"])
        progress = Progress(**checkpoint["progress"])
        history = checkpoint["history"]
        messages.append(f"Resuming from {resumed_from}: epoch {progress.epoch}, step {progress.step}")
        if config.init_from is not None:
            messages.append(f"--init_from {config.init_from} was for the beginning of this run and is not read again")
        if changed := differences(checkpoint["config"], plain(config)):
            messages.append(f"Options that are not those of that checkpoint: {', '.join(changed)}")
        del checkpoint
    elif config.init_from is not None:
        messages.append(initialise_from(config.init_from, model, tokenizer, config.reinit_vocab))
    world.check_same(progress.step, f"the step at which to resume; {exp_dir} must be one folder, seen by all processes")

    log = TrainingLog(exp_dir, world.rank, config.tensorboard, progress.step, progress.log_lines)
    if world.is_main:
        remove_partial(exp_dir)
        with atomic_write(exp_dir / "config.yaml") as file:
            yaml.safe_dump(plain(config), file, sort_keys=False)
    for message in messages:
        log.say_once(message)
    if resumed_from is None and config.init_from is None:
        # One process reads the data, the others add zeros. No epoch of training has the order of epoch 0.
        stats = torch.zeros(2, config.data.num_mel_bins, device=device)
        if world.is_main:
            stats[:] = torch.stack(feature_stats(train_data.epoch(0)))
        mean, std = world.sum(stats)
        model.set_feature_stats(mean, std)
    if config.scan_memory if config.scan_memory is not None else device.type == "cuda":
        scan_memory(model, train_data.worst_batches(), config, log, has_state=resumed_from is not None)
    log.record("start", progress.step, epoch=progress.epoch, command=shlex.join(sys.argv), **surroundings)

    ddp: DistributedDataParallel | None = None
    if world.size > 1:
        ddp = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # they are constant
            gradient_as_bucket_view=True,
        )
    augment = spec_augment(config.data.spec_augment)

    def gradients(group: list[Batch]) -> tuple[dict[str, float], list[Tensor]]:
        """Forward and backward of a step's batches.

        Leaves in the parameters the gradient of the summed losses, its mean over processes. Returns SUMS, summed over
        processes, with the gradient's "norm", and for each batch which of its losses are finite, (N,).
        """
        scales = loss_scales(progress.step, config.scales)
        set_progress(scheduled, progress.seconds / config.model.zipformer.ref_duration)
        # A step that is given up is followed by other random numbers.
        first_number = (progress.step + progress.skipped) * config.accumulate * world.size
        sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)
        finite_masks = []
        for i, batch in enumerate(group):
            rng = reseed(config.seed, first_number + i * world.size + world.rank)
            # None of its cuts could be read. The others wait for this process's gradients: it gives zeros.
            is_empty = len(batch) == 0
            if is_empty:
                batch = _placeholder(config.data.num_mel_bins)
            # Masked anew for each view, (N, T, F) each.
            views = [
                features.to(device)
                for features in augment(batch.features, batch.feature_lengths, progress.step, config.scales.num_views)
            ]
            num_utterances = len(batch.feature_lengths)
            finite = torch.ones(num_utterances, dtype=torch.bool, device=device)
            # Utterances are dealt in turn, so that parts are alike. Processes may have different numbers of parts: they
            # wait for each other in the backward of the step's last one only.
            num_parts = min(config.chunk.draws, num_utterances)
            for first in range(num_parts):
                part = slice(first, None, num_parts)
                lengths = batch.feature_lengths[part]
                part_views = [
                    View(features[part, : lengths.max()], config.chunk.sample(rng, model.encoder.chunk_multiple))
                    for features in views
                ]
                is_last = i == len(group) - 1 and first == num_parts - 1
                synchronised = nullcontext() if is_last or ddp is None else ddp.no_sync()
                with explain_out_of_memory(batch, config), synchronised:
                    with autocast(device, config.precision):
                        losses = (ddp or model)(part_views, lengths.to(device), batch.tokens[part], config.loss)
                    terms = torch.stack([losses.simple, losses.pruned, losses.ctc, losses.consistency])  # (4, N)
                    loss = terms.new_tensor(scales) @ terms  # (N,)
                    scaler.scale(loss.sum() * (not is_empty)).backward()
                finite[part] = loss.detach().isfinite()
                if not is_empty:
                    rows = [losses.num_frames, ~finite[part], loss.detach(), *terms.detach()]
                    sums[:-1] += torch.stack([row.sum(dtype=torch.float64) for row in rows])
            finite_masks.append(finite)
            sums[-1] += batch.seconds
        world.sum(sums)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # Read back once a step: this waits for the device.
        *values, scaled_norm = torch.cat([sums, norm[None].double()]).tolist()
        return dict(zip(SUMS, values, strict=True)) | {"norm": scaled_norm / scaler.get_scale()}, finite_masks

    def snapshot() -> dict[str, Any]:
        progress.log_lines = log.lines
        return {
            "model": model.state_dict(),
            "model_avg": average.state_dict(),
            "model_config": plain(model.config),
            "tokens": tokenizer.state(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "progress": asdict(progress),
            "history": history,
            "config": plain(config),
            "recipe": recipe,
        }

    planned_seconds = config.num_epochs * train_data.total_seconds
    max_steps = config.max_steps or math.inf
    while progress.epoch <= config.num_epochs and progress.step < max_steps:
        batches = train_data.epoch(progress.epoch, world.rank, world.size, progress.batch // world.size)
        window = dict.fromkeys(SUMS, 0.0)
        window_start = monotonic()
        stopwatch = Stopwatch()
        bar = log.bar(
            f"epoch {progress.epoch}/{config.num_epochs}",
            train_data.total_seconds,
            progress.epoch_sums.get("seconds", 0.0),
        )
        while progress.step < max_steps and (group := list(itertools.islice(batches, config.accumulate))):
            step_sums, finite_masks = gradients(group)
            if step_sums["left_out"]:
                # 0 · NaN is NaN: they have spoilt the gradients of all others. Once more, without them.
                progress.left_out += int(step_sums["left_out"])
                _report_left_out(log, progress.step, group, finite_masks)
                optimizer.zero_grad(set_to_none=True)
                sound = [_select(*batch_and_mask) for batch_and_mask in zip(group, finite_masks, strict=True)]
                step_sums, _ = gradients(sound)
            scaler.unscale_(optimizer)
            # DistributedDataParallel hands out the mean over processes; here it becomes the mean over frames.
            per_frame = world.size / max(step_sums["frames"], 1.0)
            grad_norm = step_sums["norm"] * per_frame
            is_good = math.isfinite(grad_norm) and step_sums["frames"] > 0

            if is_good:
                done = progress.seconds / planned_seconds
                if config.max_steps:
                    done = max(done, progress.step / config.max_steps)
                epochs = progress.seconds / train_data.total_seconds
                lr = learning_rate(progress.step, progress.seconds, epochs, done, config.optim)
                for parameter_group in optimizer.param_groups:
                    parameter_group["lr"] = lr
                factor = per_frame * clip_factor(grad_norm, config.optim)
                torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
                scaler.step(optimizer)
                progress.step += 1
                progress.seconds += step_sums["seconds"]
                progress.bad_in_a_row = 0
                stop_if_diverged(progress, _per_frame(step_sums), grad_norm, lr, model, config)
                if world.is_main and progress.step % config.average_period == 0:
                    average.update(model)
            else:
                progress.skipped += 1
                # While fp16's scale is above 1 an overflow is how its limit is found, no fault of the batch.
                if not (scaler.is_enabled() and scaler.get_scale() > 1.0):
                    progress.bad_in_a_row += 1
                    _report_bad_step(log, config, progress, group, world.rank)
                step_sums = {"seconds": step_sums["seconds"]}
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            progress.batch += len(group) * world.size
            for name in SUMS:
                window[name] += step_sums.get(name, 0.0)
                progress.epoch_sums[name] = progress.epoch_sums.get(name, 0.0) + step_sums.get(name, 0.0)
            wall_seconds, cpu_seconds = stopwatch.lap()
            progress.wall_seconds += wall_seconds
            progress.cpu_seconds += cpu_seconds
            if is_good:
                bar.set_postfix(loss=f"{_per_frame(window)['loss']:.3f}", lr=f"{lr:.1e}", refresh=False)
            bar.update(step_sums["seconds"])
            if is_good and progress.step % config.log_every_steps == 0:
                elapsed, window_start = monotonic() - window_start, monotonic()
                log.record(
                    "train",
                    progress.step,
                    epoch=progress.epoch,
                    **_per_frame(window),
                    lr=lr,
                    grad_norm=grad_norm,
                    audio_per_second=window["seconds"] / elapsed,
                )
                window = dict.fromkeys(SUMS, 0.0)
            if is_good and config.valid_every_steps and progress.step % config.valid_every_steps == 0:
                _validate(model, tokenizer, dev_data, config, world, log, progress)
            if is_good and progress.step % config.save_every_steps == 0 and world.is_main:
                replace_step_checkpoint(exp_dir, progress.step, snapshot())
        bar.close()

        # The epoch's end.
        epoch = progress.epoch
        means = _per_frame(progress.epoch_sums) if progress.epoch_sums else {}
        log.record("epoch", progress.step, epoch=epoch, **means, left_out=progress.left_out, skipped=progress.skipped)
        valid = _validate(model, tokenizer, dev_data, config, world, log, progress)
        history.append({"epoch": epoch, "step": progress.step, "train": means, "valid": valid})
        progress.epoch, progress.batch, progress.epoch_sums = epoch + 1, 0, {}
        if world.is_main:
            save_checkpoint(epoch_path(exp_dir, epoch), snapshot())
            remove_old(
                exp_dir, {h["epoch"]: _mean_loss(h["valid"]) for h in history}, config.keep_last_k, config.keep_best_k
            )
    world.wait()
    log.close()
    return progress


def _placeholder(num_mel_bins: int) -> Batch:
    """A batch of one second of nothing, for a process that has none."""
    return Batch(torch.zeros(1, 100, num_mel_bins), torch.tensor([100]), [[]], [""], [""], 0.0)


def _select(batch: Batch, mask: Tensor) -> Batch:
    """The utterances of a batch for which ``mask`` (N,) is true."""
    keep = [i for i, chosen in enumerate(mask[: len(batch)].tolist()) if chosen]
    return Batch(
        features=batch.features[keep],
        feature_lengths=batch.feature_lengths[keep],
        tokens=[batch.tokens[i] for i in keep],
        texts=[batch.texts[i] for i in keep],
        cut_ids=[batch.cut_ids[i] for i in keep],
        seconds=batch.seconds * len(keep) / max(len(batch), 1),
    )


def _per_frame(sums: dict[str, float]) -> dict[str, float]:
    """Mean losses per encoder frame."""
    frames = max(sums["frames"], 1.0)
    return {name: sums[name] / frames for name in ("loss", "simple", "pruned", "ctc", "consistency")}


def _mean_loss(valid: dict[str, dict[str, float]]) -> float:
    return sum(losses["loss"] for losses in valid.values()) / len(valid)


def _validate(
    model: Transducer,
    tokenizer: Tokenizer,
    dev_data: Sequence[Iterable[Batch]],
    config: TrainConfig,
    world: World,
    log: TrainingLog,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Validate, log it and what training has cost so far, say it."""
    log.record(
        "cost",
        progress.step,
        epoch=progress.epoch,
        seconds=progress.seconds,
        wall_seconds=progress.wall_seconds,
        cpu_seconds=progress.cpu_seconds,
        peak_memory=peak_memory(world.device),
    )
    valid = validate(model, tokenizer, dev_data, config, world)
    for name, losses in valid.items():
        log.record("valid", progress.step, epoch=progress.epoch, setting=name, **losses)
    train_loss = f"train {_per_frame(progress.epoch_sums)['loss']:.4f}, " if progress.epoch_sums else ""
    dev = ", ".join(f"{name} {losses['loss']:.4f} (WER {losses['wer']:.1f} %)" for name, losses in valid.items())
    log.say_once(f"epoch {progress.epoch}, step {progress.step}: loss per frame {train_loss}dev {dev}")
    if notice := plateau_notice(progress.step, next(iter(valid.values()))["alike"], config):
        log.say_once(notice)
    return valid


def _report_left_out(log: TrainingLog, step: int, group: list[Batch], finite_masks: list[Tensor]) -> None:
    """Name the utterances of this process whose loss is not finite."""
    cut_ids = [
        cut_id
        for batch, finite in zip(group, finite_masks, strict=True)
        for cut_id, is_finite in zip(batch.cut_ids, finite.tolist(), strict=False)
        if not is_finite
    ]
    if cut_ids:
        log.say(f"Left out at step {step}, their loss is not finite: {', '.join(cut_ids)}")
        log.record("left_out", step, cut_ids=cut_ids)


def _report_bad_step(log: TrainingLog, config: TrainConfig, progress: Progress, group: list[Batch], rank: int) -> None:
    """Save the batches of a step without a finite gradient and say so; stop if it is one too many."""
    saved = "not saved, there are enough of them"
    if len(list(config.exp_dir.glob(f"bad-batch-*-rank{rank}.pt"))) < MAX_SAVED_BAD_BATCHES:
        path: Path = config.exp_dir / f"bad-batch-{progress.step + progress.skipped}-rank{rank}.pt"
        with atomic_write(path, "wb") as file:
            torch.save([asdict(batch) for batch in group], file)
        saved = f"saved in {path}"
    cut_ids = [cut_id for batch in group for cut_id in batch.cut_ids]
    log.say(
        f"The gradient after step {progress.step} is not finite; this step is skipped, its batches are {saved}. "
        f"Cuts: {', '.join(cut_ids)}"
    )
    log.record("skipped", progress.step, cut_ids=cut_ids)
    if progress.bad_in_a_row >= config.max_bad_steps:
        raise RuntimeError(
            f"{progress.bad_in_a_row} steps in a row had no finite gradient; the weights are those of step "
            f"{progress.step}, before the first of them. If the cuts named above are sound, training has diverged: "
            f"go back to an earlier checkpoint (delete the later ones in {config.exp_dir}), and change something, "
            f"one or more of: {', '.join(remedies(config))}"
        )
