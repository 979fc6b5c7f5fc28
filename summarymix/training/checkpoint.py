"""Progress of a run, and writing, finding and removing its checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from summarymix.runs import epoch_path, list_epochs, numbered, read_checkpoint, save_checkpoint


@dataclass
class Progress:
    """Progress of a run.

    Args:
        epoch: the current epoch, from 1.
        batch: batches of this epoch done by all processes, since its cuts were last divided into batches.
        step: optimiser steps taken in all.
        skipped: steps skipped for a non-finite gradient, or because no utterance could be read; schedules do not count
            them.
        bad_in_a_row: skipped steps since the last step taken, without overflows of fp16's loss scale.
        left_out: utterances left out for a non-finite loss.
        unreadable: cuts that could not be read in the epoch that ended last.
        unreadable_noise: pieces of noise that could not be read in the epoch that ended last.
        seconds: seconds of audio in the steps taken.
        wall_seconds: wall-clock time of training, without validations and the writing of checkpoints.
        cpu_seconds: CPU time of the main process's threads over the same period.
        epoch_sums: sums over the current epoch, for its line in the log.
        line_sums: sums since the last line of a training step in the log.
        line_start: ``wall_seconds`` at that line.
        log_lines: lines in log.jsonl.
        loss_watch: fields of a :class:`summarymix.training.divergence.LossWatch`.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    left_out: int = 0
    unreadable: int = 0
    unreadable_noise: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    line_sums: dict[str, float] = field(default_factory=dict)
    line_start: float = 0.0
    log_lines: int = 0
    loss_watch: dict[str, float] = field(default_factory=dict)


def list_checkpoints(exp_dir: Path) -> list[Path]:
    """All checkpoints in ``exp_dir``, epoch checkpoints first."""
    return [path for name in ("epoch", "checkpoint") for _, path in sorted(numbered(exp_dir, name).items())]


def newest_checkpoint(exp_dir: Path) -> Path | None:
    """The checkpoint furthest in training; None without checkpoints."""
    newest = [max(paths.items())[1] for name in ("epoch", "checkpoint") if (paths := numbered(exp_dir, name))]

    def position(path: Path) -> tuple[int, int]:
        progress = read_checkpoint(path, lazy=True)["progress"]
        return progress["epoch"], progress["step"] + progress["skipped"]

    return max(newest, key=position, default=None)


def remove_old(exp_dir: Path, mean_losses: dict[int, float], keep_last_k: int, keep_best_k: int) -> None:
    """Remove step checkpoints, and epoch checkpoints that are neither among the last nor among the best.

    Args:
        exp_dir: folder of the run.
        mean_losses: mean dev loss of each epoch so far; non-finite losses rank last.
        keep_last_k: number of last epochs to keep.
        keep_best_k: number of best epochs to keep.
    """
    epochs = list_epochs(exp_dir)
    ranked = sorted(mean_losses, key=lambda epoch: (not mean_losses[epoch] < float("inf"), mean_losses[epoch]))
    keep = set(epochs[-keep_last_k:]) | set(ranked[:keep_best_k])
    for epoch in epochs:
        if epoch not in keep:
            epoch_path(exp_dir, epoch).unlink()
    for path in numbered(exp_dir, "checkpoint").values():
        path.unlink()


def remove_partial(exp_dir: Path) -> None:
    """Remove partial files of runs that were killed while writing a checkpoint."""
    for path in exp_dir.glob(".*.pt.*.part"):
        path.unlink()


def replace_step_checkpoint(exp_dir: Path, step: int, checkpoint: dict[str, Any]) -> None:
    """Write ``checkpoint-STEP.pt``, then remove the other step checkpoints."""
    path = exp_dir / f"checkpoint-{step}.pt"
    save_checkpoint(path, checkpoint)
    for other in numbered(exp_dir, "checkpoint").values():
        if other != path:
            other.unlink()
