"""Reports of data that training leaves out: utterances without a finite loss, steps without a finite gradient, and
batches that cannot be read. Too many steps in a row end the run.
"""

import itertools
from dataclasses import asdict
from pathlib import Path

import torch

from summarymix.data.loading import Batch
from summarymix.distributed import World
from summarymix.files import atomic_write
from summarymix.training.checkpoint import Progress
from summarymix.training.config import TrainConfig
from summarymix.training.divergence import remedies
from summarymix.training.log import TrainingLog
from summarymix.training.step import Step

MAX_SAVED_BAD_BATCHES = 10  # so that a diverging run does not fill the disk


class BadSteps:
    """Reports of one process.

    Args:
        config: configuration of the run.
        progress: progress of the run.
        world: this process and the others.
        log: log of the run.
    """

    def __init__(self, config: TrainConfig, progress: Progress, world: World, log: TrainingLog) -> None:
        self.config, self.progress, self.world, self.log = config, progress, world, log

    def report_left_out(self, step: Step) -> None:
        """Report the utterances of all processes whose losses are not finite."""
        cut_ids = [
            cut_id
            for batch, finite in zip(step.group, step.finite, strict=True)
            for cut_id, is_finite in zip(batch.cut_ids, finite.tolist(), strict=False)
            if not is_finite
        ]
        number, cut_ids = self.progress.step, list(itertools.chain(*self.world.gather(cut_ids)))
        self.log.say_once(f"Left out at step {number} because their loss is not finite: {', '.join(cut_ids)}")
        self.log.record("left_out", number, cut_ids=cut_ids)

    def report_nothing_read(self) -> None:
        """Report a step of which no process could read an utterance; stop after too many steps in a row."""
        progress, config = self.progress, self.config
        self.log.say_once(f"No utterance of the batches after step {progress.step} could be read; they are skipped.")
        if progress.bad_in_a_row >= config.max_bad_steps:
            raise OSError(
                f"{progress.bad_in_a_row} steps in a row were skipped, the last because no utterance could be read: "
                f"restore the data, of which {config.exp_dir}/skipped-unreadable*.tsv lists the files; the same "
                "command continues"
            )

    def report_bad_step(self, group: list[Batch]) -> None:
        """Save and report the batches of a step without a finite gradient; stop after too many in a row."""
        progress, config, rank = self.progress, self.config, self.world.rank
        saved = "not saved, because enough already are"
        if len(list(config.exp_dir.glob(f"bad-batch-*-rank{rank}.pt"))) < MAX_SAVED_BAD_BATCHES:
            path: Path = config.exp_dir / f"bad-batch-{progress.step + progress.skipped}-rank{rank}.pt"
            with atomic_write(path, "wb") as file:
                torch.save([asdict(batch) for batch in group], file)
            saved = f"saved in {path}"
        cut_ids = [cut_id for batch in group for cut_id in batch.cut_ids]
        self.log.say(
            f"The gradient after step {progress.step} is not finite. This step is skipped; its batches are {saved}. "
            f"Cuts: {', '.join(cut_ids)}"
        )
        self.log.record("skipped", progress.step, cut_ids=list(itertools.chain(*self.world.gather(cut_ids))))
        if progress.bad_in_a_row >= config.max_bad_steps:
            raise FloatingPointError(
                f"{progress.bad_in_a_row} steps in a row had no finite gradient; the weights are from step "
                f"{progress.step}, before the first of them. If the cuts named above are good, training has diverged: "
                f"go back to an earlier checkpoint (delete the later ones in {config.exp_dir}), and change one or more "
                f"of: {', '.join(remedies(config))}"
            )


def unreadable_notice(progress: Progress, exp_dir: Path) -> str:
    """A text on data that could not be read in the epoch that ended last; empty if all could be."""
    counts = {"unreadable utterances": progress.unreadable, "unreadable pieces of noise": progress.unreadable_noise}
    numbers = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
    return numbers and f"{numbers} (listed in {exp_dir}/skipped-unreadable*.tsv)"
