"""Where a run stands, and the checkpoints that it writes, finds again and removes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from summarymix.runs import epoch_path, list_epochs, numbered, read_checkpoint, save_checkpoint


@dataclass
class Progress:
    """Where a run stands.

    Args:
        epoch: the one in progress, from 1.
        batch: its batches done, of all processes.
        step: optimiser steps taken in all.
        skipped: steps given up for a non-finite gradient; they count for no schedule.
        bad_in_a_row: how many of these came last.
        left_out: utterances left out for a non-finite loss.
        seconds: audio of the steps taken.
        wall_seconds: that training took, without validation.
        cpu_seconds: of the threads of the main process, in the same time.
        epoch_sums: sums over the epoch in progress, for its line in the log.
        log_lines: lines of log.jsonl.
        loss_watch: a :class:`summarymix.training.divergence.LossWatch`.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    left_out: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    log_lines: int = 0
    loss_watch: dict[str, float] = field(default_factory=dict)


def list_checkpoints(exp_dir: Path) -> list[Path]:
    """All checkpoints in ``exp_dir``, those after epochs first."""
    return [path for name in ("epoch", "checkpoint") for _, path in sorted(numbered(exp_dir, name).items())]


def newest_checkpoint(exp_dir: Path) -> Path | None:
    """The checkpoint that is furthest in training; None if there is none."""
    newest = [max(paths.items())[1] for name in ("epoch", "checkpoint") if (paths := numbered(exp_dir, name))]

    def position(path: Path) -> tuple[int, int]:
        progress = read_checkpoint(path, lazy=True)["progress"]
        return progress["epoch"], progress["batch"]

    return max(newest, key=position, default=None)


def remove_old(exp_dir: Path, mean_losses: dict[int, float], keep_last_k: int, keep_best_k: int) -> None:
    """Remove the checkpoints within epochs, and those of epochs that are neither last nor best.

    Args:
        exp_dir: folder.
        mean_losses: mean dev loss of each epoch so far; not a number counts as the worst.
        keep_last_k: last epochs to keep.
        keep_best_k: best epochs to keep.
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
    """Remove what runs have left that were killed while they wrote a checkpoint."""
    for path in exp_dir.glob(".*.pt.*.part"):
        path.unlink()


def replace_step_checkpoint(exp_dir: Path, step: int, checkpoint: dict[str, Any]) -> None:
    """Write ``checkpoint-STEP.pt``, then remove the ones before it."""
    path = exp_dir / f"checkpoint-{step}.pt"
    save_checkpoint(path, checkpoint)
    for other in numbered(exp_dir, "checkpoint").values():
        if other != path:
            other.unlink()
