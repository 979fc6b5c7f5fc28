"""A training run: its state, and the operations of the training loop."""

import hashlib
import itertools
import json
import math
import random
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from summarymix.blocks.fusion import check_fusion, set_fusion
from summarymix.blocks.scheduled import find_scheduled, set_progress
from summarymix.chunking import ChunkConfig, to_device
from summarymix.configs import config_differences, plain, with_defaults
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import NO_CUTS, Masks
from summarymix.distributed import World
from summarymix.files import atomic_write
from summarymix.model import Transducer, View
from summarymix.runs import check_same_model, epoch_path, read_checkpoint, save_checkpoint
from summarymix.seeding import reseed
from summarymix.training.averaging import RunningMean
from summarymix.training.bad_steps import BadSteps, unreadable_notice
from summarymix.training.checkpoint import (
    Progress,
    newest_checkpoint,
    remove_old,
    remove_partial,
    replace_step_checkpoint,
)
from summarymix.training.config import TrainConfig
from summarymix.training.divergence import stop_if_diverged
from summarymix.training.environment import environment
from summarymix.training.initialize import feature_stats, initialize_from
from summarymix.training.interfaces import DevData, EpochData
from summarymix.training.log import TrainingLog
from summarymix.training.memory_scan import explain_out_of_memory, scan_memory
from summarymix.training.optim import clip_factor, make_optimizer, restore_optimizer
from summarymix.training.precision import autocast, set_tf32
from summarymix.training.schedule import learning_rate, loss_options, loss_scales
from summarymix.training.step import SKIPPED_SUMS, SUMS, Step, per_frame, placeholder, select
from summarymix.training.stopping import StopRequest
from summarymix.training.usage import Stopwatch, peak_memory
from summarymix.training.validation import metric_of, plateau_notice, validate


class Run:
    """A training run, driven by :func:`summarymix.training.loop.train`.

    It resumes from the newest checkpoint in ``config.exp_dir``, if there is one.

    Args:
        config: configuration of the run.
        model: initialised model, which training changes.
        tokenizer: tokenizer of the model, for validation and checkpoints.
        train_data: batches to train on.
        dev_data: this process's share of each dev split, by name.
        world: this process and the others.
        recipe: name of the corpus, for the checkpoints.

    Raises:
        MemoryError: the largest batches do not fit into memory.
        ValueError: the checkpoint in ``exp_dir`` has another configuration, or this machine cannot run ``config``.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Transducer,
        tokenizer: Tokenizer,
        train_data: EpochData,
        dev_data: Mapping[str, DevData],
        world: World,
        recipe: str = "",
    ) -> None:
        _check(config, model, world.device)
        set_tf32(config.precision)
        set_fusion(config.compile)
        self.config, self.model, self.tokenizer, self.recipe = config, model.to(world.device).train(), tokenizer, recipe
        self.train_data, self.dev_data, self.world = train_data, dev_data, world
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.scheduled = find_scheduled(model)
        self.optimizer = make_optimizer(model, config.optim)
        # Gradients of sums over utterances fit the range of half precision unscaled, so the scale starts at 1.
        self.scaler = torch.amp.GradScaler(world.device.type, init_scale=1.0, enabled=config.precision == "fp16")
        self.average = RunningMean(model) if world.is_main else None  # the main process writes the checkpoints
        self.batching = {**train_data.batching(), "processes": world.size}
        world.check_same(self._options_number(), "their options: start all of them with the same ones")
        self.progress = Progress()
        self.done_before = NO_CUTS  # cuts of this epoch done before it was last divided into batches
        self.history: list[dict[str, Any]] = []
        self.planned_seconds = config.num_epochs * train_data.total_seconds
        self.max_steps = config.max_steps or math.inf
        self.stopwatch = Stopwatch()
        self.stop_request = StopRequest()
        self.is_stopping = False  # as all processes have agreed
        self.epoch_is_over = False
        self.dev_unreadable = 0  # dev cuts that could not be read in the last validation, of all processes
        self.validated: tuple[int, dict[str, dict[str, float]]] = -1, {}  # last step with a validation, and the result

        surroundings = environment(config, world)
        messages = [", ".join(f"{name}: {value}" for name, value in surroundings.items())]
        if unused := config.model.without_effect() + config.optim.without_effect() + config.scales.without_effect():
            messages.append(f"Options of parts that are not chosen are ignored: {', '.join(unused)}")
        if config.loss.delay_penalty:
            messages.append(f"--loss.delay_penalty begins at step {2 * config.scales.warmup_steps}")
        is_new, is_other = self._restore_or_initialize(messages)
        self._open_log(messages)
        if is_new and config.init_from is None:
            self._measure_features()
        if config.scan_memory or (config.scan_memory is None and world.device.type == "cuda" and is_other):
            scan_memory(model, train_data, config, self.log, has_state=not is_new)
        self.log.record(
            "start", self.progress.step, epoch=self.progress.epoch, command=shlex.join(sys.argv), **surroundings
        )
        self.ddp = _distributed(model) if world.size > 1 else None

    def _restore_or_initialize(self, messages: list[str]) -> tuple[bool, bool]:
        """Restore the newest checkpoint, or else load ``init_from``.

        Returns:
            True if there is no checkpoint; and True unless its batches and options were the same.
        """
        config, exp_dir = self.config, self.config.exp_dir
        path = newest_checkpoint(exp_dir)
        is_other = True
        if path is not None:
            checkpoint = read_checkpoint(path)
            check_same_model(path, checkpoint, plain(self.model.config), self.tokenizer.state())
            self.model.load_state_dict(checkpoint["model"])
            restore_optimizer(self.optimizer, path, checkpoint, config.optim)
            if self.scaler.is_enabled() and checkpoint["scaler"]:  # empty in other precisions than fp16
                self.scaler.load_state_dict(checkpoint["scaler"])
            if self.average is not None:
                self.average.load_state_dict(checkpoint["model_avg"])
            progress = checkpoint["progress"]
            self.progress = Progress(**{"line_start": progress["wall_seconds"], **progress})  # older ones have no start
            self.history = checkpoint["history"]
            self.validated = checkpoint.get("validated", self.validated)
            messages.append(f"Resuming from {path}: epoch {self.progress.epoch}, step {self.progress.step}")
            if config.init_from is not None:
                messages.append(
                    f"--init_from {config.init_from} only applies to the start of a run: it is not read again"
                )
            # Options newer than the checkpoint had their defaults, and the folder of a run may move.
            former = with_defaults(checkpoint["config"], plain(TrainConfig())) | {"exp_dir": str(exp_dir)}
            if changed := config_differences(former, plain(config)):
                if self.is_finished:
                    raise ValueError(
                        f"The run in {exp_dir} has ended, so that other options have no effect: {', '.join(changed)}. "
                        "Give its own options, more epochs, or another --exp_dir"
                    )
                messages.append(f"Options changed since that checkpoint: {', '.join(changed)}")
            if not config.optim.is_eden and checkpoint["config"].get("max_steps") != config.max_steps:
                messages.append(
                    "--max_steps ends the learning rate's schedule, which has changed with it: the final numbers "
                    "differ from those of an uninterrupted run"
                )
            is_other = bool(changed) or checkpoint.get("batching") != self.batching
            self._restore_epoch(checkpoint, messages)
        elif config.init_from is not None:
            messages.append(initialize_from(config.init_from, self.model, self.tokenizer, config.reinit_vocab))
        place = f"the step to resume from: {exp_dir} must be one folder that all processes share"
        self.world.check_same(self.progress.step, place)
        return path is None, is_other

    def _restore_epoch(self, checkpoint: dict[str, Any], messages: list[str]) -> None:
        """Continue within an epoch; if its batches have changed, with new batches of the cuts that are left."""
        former, done = checkpoint.get("batching", {}), checkpoint.get("done")
        if done is not None and former == self.batching:
            self.done_before = done[: checkpoint["num_done_before"]]
        elif done is not None and len(done):
            self.done_before, self.progress.batch = done, 0
            messages.append(
                f"Epoch {self.progress.epoch} continues with the cuts that are left, in new batches: "
                f"{', '.join(config_differences(former, self.batching))}"
            )
        elif self.progress.batch > 0:
            self.progress.batch, self.progress.epoch_sums = 0, {}
            messages.append(
                f"Epoch {self.progress.epoch} begins anew with the weights of step {self.progress.step}, because an "
                "earlier version wrote the checkpoint"
            )

    def _options_number(self) -> int:
        """A number that differs for other options. Places of data, and workers, may differ between machines."""
        options = plain(self.config)
        options["data"] = {name: options["data"][name] for name in ("spec_augment", "noise", "silence")}
        for place in ("manifest", "dir"):
            del options["data"]["noise"][place]
        for place in ("exp_dir", "init_from"):
            del options[place]
        content = json.dumps([options, self.batching], sort_keys=True).encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big")

    def _open_log(self, messages: list[str]) -> None:
        config, progress = self.config, self.progress
        self.log = TrainingLog(config.exp_dir, self.world.rank, config.tensorboard, progress.step, progress.log_lines)
        self.bad_steps = BadSteps(config, progress, self.world, self.log)
        if self.world.is_main:
            remove_partial(config.exp_dir)
            if not self.is_finished:  # otherwise the file has the options of the model
                with atomic_write(config.exp_dir / "config.yaml") as file:
                    yaml.safe_dump(plain(config), file, sort_keys=False)
        for message in messages:
            self.log.say_once(message)

    def _measure_features(self) -> None:
        """Set the feature normalisation from the training data."""
        stats = torch.zeros(2, self.config.data.num_mel_bins, device=self.world.device)
        # The main process reads the data, the others add zeros. Training starts at epoch 1, in another order.
        if self.world.is_main:
            stats[:] = torch.stack(feature_stats(self.train_data.epoch(0)))
        mean, std = self.world.sum(stats)
        self.model.set_feature_stats(mean, std)

    @property
    def is_finished(self) -> bool:
        """True if the last epoch is done, whole or until ``max_steps``, or a process was told to stop."""
        progress = self.progress
        is_saved = bool(self.history) and self.history[-1]["step"] == progress.step
        enough_steps = progress.step >= self.max_steps and is_saved
        return self.is_stopping or progress.epoch > self.config.num_epochs or enough_steps

    def groups(self) -> Iterator[list[Batch]]:
        """Yield this process's batches of each remaining step of the epoch, or until the run ends within it."""
        progress, world = self.progress, self.world
        batches = self.train_data.epoch(
            progress.epoch,
            world.rank,
            world.size,
            progress.batch // world.size,
            self.done_before,
            self._masks(progress.step + progress.skipped),
        )
        self.stopwatch = Stopwatch()
        title = f"epoch {progress.epoch}/{self.config.num_epochs}"
        self.bar = self.log.bar(title, self.train_data.total_seconds, progress.epoch_sums.get("seconds", 0.0))
        self.epoch_is_over = False
        while not self.is_stopping:
            group = list(itertools.islice(batches, self.config.accumulate))
            self.epoch_is_over = not group
            if self.epoch_is_over or progress.step >= self.max_steps:
                break
            yield group
        self.bar.close()

    def _masks(self, first_step: int) -> Iterator[Masks]:
        """SpecAugment of the batches from a step on; skipped steps count, because batches are loaded ahead."""
        for step in itertools.count(first_step):
            yield from itertools.repeat(Masks(step, self.config.scales.num_views(step)), self.config.accumulate)

    def forward_backward(self, group: list[Batch]) -> Step:
        """Compute the gradient of a step's summed losses in the parameters, averaged over processes."""
        config, progress, world = self.config, self.progress, self.world
        set_progress(self.scheduled, progress.seconds / config.model.zipformer.ref_duration)
        # Skipped steps count, so that the next step draws other random numbers.
        first_number = (progress.step + progress.skipped) * config.accumulate * world.size
        # The first entry is the number of processes that were told to stop, so that all stop after the same step.
        sums = torch.zeros(1 + len(SUMS), dtype=torch.float64, device=world.device)
        sums[0] = bool(self.stop_request)
        finite_masks = []
        for i, batch in enumerate(group):
            rng = reseed(config.seed, first_number + i * world.size + world.rank)
            # Processes synchronise only in the backward pass of the step's last batch.
            is_last = i == len(group) - 1
            with nullcontext() if is_last or self.ddp is None else self.ddp.no_sync():
                of_batch, finite = self._backward(batch, rng)
            sums[1:] += of_batch
            finite_masks.append(finite)
        world.sum(sums)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # Read back once per step, because reading waits for the device.
        scaled_norm, stopping, *values = torch.cat([norm[None].double(), sums]).tolist()
        self.is_stopping = stopping > 0
        totals = dict(zip(SUMS, values, strict=True))
        norm_per_frame = scaled_norm / self.scaler.get_scale() * self._per_frame_factor(totals)
        return Step(group, totals, norm_per_frame, finite_masks)

    def _backward(self, batch: Batch, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Add the gradient of a batch's summed losses. Return its values of SUMS, and a mask of finite losses (N,)."""
        config, device, step = self.config, self.world.device, self.progress.step
        # No cut could be read. The other processes wait for this one's gradients, so it contributes zeros.
        is_empty = len(batch) == 0
        given = placeholder(config.data.num_mel_bins, len(batch.views)) if is_empty else batch
        multiple = self.model.encoder.chunk_multiple
        views = [
            View(features.to(device, non_blocking=True), config.chunk.sample(rng, multiple)) for features in given.views
        ]
        options = loss_options(step, config.loss, config.scales)
        with explain_out_of_memory(given, config):
            with autocast(device, config.precision):
                losses = (self.ddp or self.model)(views, given.feature_lengths, given.tokens, options)
            terms = torch.stack([losses.simple, losses.pruned, losses.ctc, losses.consistency])  # (4, N)
            scales = to_device(torch.tensor(loss_scales(step, config.scales), dtype=terms.dtype), device)
            loss = scales @ terms  # (N,)
            total = 0.0 * loss.sum() if is_empty else loss.sum()
            self.scaler.scale(total).backward()
        finite = loss.detach().isfinite()
        rows = [~finite, loss.detach(), *terms.detach()]
        of_losses = torch.stack([row.sum(dtype=torch.float64) for row in rows])
        if is_empty:
            of_losses.zero_()
        frames = 0 if is_empty else int(losses.num_frames.sum())  # on the CPU
        of_data = [frames, batch.seconds, batch.num_unreadable, batch.num_unreadable_noise]
        counts = to_device(torch.tensor(of_data, dtype=torch.float64), device)
        return torch.cat([counts[:1], of_losses, counts[1:]]), finite  # in the order of SUMS

    def redo_without_bad(self, step: Step) -> Step:
        """Repeat a step without the utterances whose losses are not finite, and name them."""
        self.progress.left_out += int(step.sums["left_out"])
        self.bad_steps.report_left_out(step)
        self.optimizer.zero_grad(set_to_none=True)
        sound = [select(batch, mask) for batch, mask in zip(step.group, step.finite, strict=True)]
        again = self.forward_backward(sound)
        return replace(again, group=step.group, sums=again.sums | {"left_out": step.sums["left_out"]})

    def update(self, step: Step) -> None:
        """Take an optimiser step."""
        config, progress = self.config, self.progress
        self.scaler.unscale_(self.optimizer)
        done = progress.seconds / self.planned_seconds
        if config.max_steps is not None:
            done = max(done, progress.step / config.max_steps)
        epochs = progress.seconds / self.train_data.total_seconds
        self.lr = learning_rate(progress.step, progress.seconds, epochs, done, config.optim)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = self.lr
        factor = self._per_frame_factor(step.sums) * clip_factor(step.norm, config.optim)
        torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], factor)
        self.scaler.step(self.optimizer)
        progress.step += 1
        progress.seconds += step.sums["seconds"]
        progress.bad_in_a_row = 0
        stop_if_diverged(progress, per_frame(step.sums), step.norm, self.lr, self.model, config)
        if self.average is not None and progress.step % config.average_period == 0:
            self.average.update(self.model)
        self._finish(step, step.sums)

    def skip(self, step: Step) -> None:
        """Skip a step whose gradient is not finite, or of which no utterance could be read.

        Raises:
            FloatingPointError, OSError: it is the ``max_bad_steps``-th in a row.
        """
        self.scaler.unscale_(self.optimizer)
        self.progress.skipped += 1
        # Above a scale of 1, fp16 overflows are part of the search for the scale, not the fault of the batch.
        is_search = step.sums["frames"] > 0 and self.scaler.is_enabled() and self.scaler.get_scale() > 1.0
        if not is_search:
            self.progress.bad_in_a_row += 1
            if step.sums["frames"] == step.sums["left_out"] == 0:
                self.bad_steps.report_nothing_read()
            else:
                self.bad_steps.report_bad_step(step.group)
        self._finish(step, {"skipped": 1.0, **{name: step.sums[name] for name in SKIPPED_SUMS}})

    def _finish(self, step: Step, sums: dict[str, float]) -> None:
        """Count a step that was taken or skipped."""
        progress = self.progress
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        progress.batch += len(step.group) * self.world.size
        for totals in (progress.line_sums, progress.epoch_sums):
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value
        wall_seconds, cpu_seconds = self.stopwatch.lap()
        progress.wall_seconds += wall_seconds
        progress.cpu_seconds += cpu_seconds
        self.bar.update(sums["seconds"])

    def report(self, step: Step) -> None:
        """Show a step in the progress bar, and every ``log_every_steps`` log the means since the last line."""
        progress = self.progress
        losses = per_frame(progress.line_sums)
        self.bar.set_postfix(loss=f"{losses['loss']:.3f}", lr=f"{self.lr:.1e}", refresh=False)
        if not self.is_due(self.config.log_every_steps):
            return
        self.log.record(
            "train",
            progress.step,
            epoch=progress.epoch,
            **losses,
            lr=self.lr,
            grad_norm=step.norm,
            audio_per_second=progress.line_sums["seconds"] / (progress.wall_seconds - progress.line_start),
        )
        progress.line_sums, progress.line_start = {}, progress.wall_seconds

    def is_due(self, period: int | None) -> bool:
        """True if ``period`` divides the number of steps so far, and there was one."""
        return period is not None and self.progress.step > 0 and self.progress.step % period == 0

    def validate(self) -> dict[str, dict[str, float]]:
        """Validate once a step, and log the result and the cost of training so far.

        Empty if a process was told to stop.
        """
        progress, peak = self.progress, peak_memory(self.world.device)
        if self.validated[0] == progress.step:
            return self.validated[1]
        with self.stopwatch.paused():
            valid = validate(self.model, self.tokenizer, self.dev_data, self.config, self.world, self.stop_request)
        if not valid:
            self.is_stopping = True
            return {}
        self.log.record(
            "cost",
            progress.step,
            epoch=progress.epoch,
            seconds=progress.seconds,
            wall_seconds=progress.wall_seconds,
            cpu_seconds=progress.cpu_seconds,
            peak_memory=peak,
        )
        for name, losses in valid.items():
            self.log.record("valid", progress.step, epoch=progress.epoch, setting=name, **losses)
        train_loss = f"train {per_frame(progress.epoch_sums)['loss']:.4f}, " if progress.epoch_sums else ""
        dev = ", ".join(
            f"{name} {losses['loss']:.4f} ({(metric := metric_of(losses)).upper()} {losses[metric]:.1f} %)"
            for name, losses in valid.items()
        )
        self.log.say_once(f"epoch {progress.epoch}, step {progress.step}: loss per frame {train_loss}dev {dev}")
        unreadable = torch.tensor(sum(data.num_unreadable for data in self.dev_data.values()), device=self.world.device)
        if (count := int(self.world.sum(unreadable))) != self.dev_unreadable:
            self.dev_unreadable = count
            self.log.say_once(
                f"Unreadable dev utterances: {count}; the validation is without them (listed in "
                f"{self.config.exp_dir}/skipped-*.tsv)"
            )
        if notice := plateau_notice(progress.step, next(iter(valid.values()))["alike"], self.config):
            self.log.say_once(notice)
        self.validated = progress.step, valid
        return valid

    def save_within_epoch(self) -> None:
        """Write the checkpoint of this step and remove the previous one."""
        if self.world.is_main:
            with self.stopwatch.paused():
                replace_step_checkpoint(self.config.exp_dir, self.progress.step, self.snapshot())

    def end_epoch(self) -> None:
        """Validate, write the epoch's checkpoint, and remove old ones.

        If ``max_steps`` ended the epoch, a run with more steps continues it, and replaces its checkpoint.
        """
        config, progress, epoch = self.config, self.progress, self.progress.epoch
        sums = progress.epoch_sums
        means = per_frame(sums) if sums else {}
        valid = self.validate()
        if not valid:
            self.save_within_epoch()
            return
        names = ("left_out", "skipped", "unreadable", "unreadable_noise")
        counts = {name: int(sums.get(name, 0)) for name in names}
        progress.unreadable, progress.unreadable_noise = counts["unreadable"], counts["unreadable_noise"]
        self.log.record("epoch", progress.step, epoch=epoch, **means, **counts)
        if notice := unreadable_notice(progress, config.exp_dir):
            self.log.say_once(f"epoch {epoch}: {notice}")
        self.history = [ended for ended in self.history if ended["epoch"] < epoch]
        self.history.append({"epoch": epoch, "step": progress.step, "train": means, "valid": valid})
        if self.epoch_is_over:
            progress.epoch, progress.batch, progress.epoch_sums = epoch + 1, 0, {}
            self.done_before = NO_CUTS
        if self.world.is_main:
            save_checkpoint(epoch_path(config.exp_dir, epoch), self.snapshot())
            dev_losses = {h["epoch"]: _mean_loss(h["valid"]) for h in self.history}
            remove_old(config.exp_dir, dev_losses, config.keep_last_k, config.keep_best_k)

    def close(self) -> None:
        """Wait until the checkpoint is written, and close the log.

        Raises:
            SystemExit: a process was told to stop.
        """
        self.world.wait()
        self.log.close()
        if self.is_stopping:
            self.log.say_once(
                f"Stopped by {(self.stop_request.signal or signal.SIGTERM).name}: epoch {self.progress.epoch}, step "
                f"{self.progress.step} is saved in {self.config.exp_dir}; the same command continues"
            )
            raise SystemExit(self.stop_request.exit_status)

    def snapshot(self) -> dict[str, Any]:
        """The content of a checkpoint, on the main process."""
        assert self.average is not None
        progress, before = self.progress, self.done_before
        return {
            "model": self.model.state_dict(),
            "model_avg": self.average.state_dict(),
            "model_config": plain(self.model.config),
            "tokens": self.tokenizer.state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(progress) | {"log_lines": self.log.lines},
            "history": self.history,
            "validated": self.validated,
            "config": plain(self.config),
            "batching": self.batching,
            "done": self.train_data.done(progress.epoch, self.world.size, progress.batch, before),
            "num_done_before": len(before),
            "recipe": self.recipe,
        }

    def _per_frame_factor(self, sums: dict[str, float]) -> float:
        """Factor from the gradient of summed losses to the gradient of the mean loss per frame."""
        # DistributedDataParallel averages over processes.
        return self.world.size / max(sums["frames"], 1.0)


def _check(config: TrainConfig, model: Transducer, device: torch.device) -> None:
    """Check that this machine and this model can do what is configured.

    Raises:
        ValueError: they cannot.
    """
    autocast(device, config.precision)
    if config.compile:
        check_fusion(device)
    config.chunk.check(model.encoder.chunk_multiple)
    for setting in config.validation:
        model.encoder.check_chunk(ChunkConfig.from_ms(*setting))


def _distributed(model: Transducer) -> DistributedDataParallel:
    """The model of several processes, whose gradients it averages."""
    # A convolution of one channel has the same bytes in both layouts that this warning tells apart.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Without device_ids, which would move the lengths to the GPU. Buffers are constant.
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def _mean_loss(valid: dict[str, dict[str, float]]) -> float:
    whole = [losses["loss"] for name, losses in valid.items() if "@" not in name]  # of all corpora together
    return sum(whole) / len(whole)
