"""The training loop.

Two rules make a run reproducible. Every random number is a function of the seed and of the number of the batch it is
drawn for, so a run that was killed continues exactly where its last checkpoint left it, and two processes draw what one
process would that accumulates two batches. And gradients are those of sums over utterances, divided at last by the
number of encoder frames of all batches and processes, so it does not matter how a step's audio is shared out.
"""

from summarymix.training.checkpoint import Progress
from summarymix.training.run import Run


def train(run: Run) -> Progress:
    """Train to the end of the last epoch, from wherever ``run`` stands.

    Returns:
        Where it ended.

    Raises:
        RuntimeError: ``config.max_bad_steps`` steps in a row had no finite gradient, or the loss has run away.
        OSError: a checkpoint cannot be written; those before it are intact.
    """
    while not run.is_finished:
        for group in run.groups():  # the batches of one optimiser step
            step = run.forward_backward(group)
            if step.has_bad_losses:  # NaN · 0 is NaN: one utterance spoils the gradients of all
                step = run.redo_without_bad(step)
            if not step.is_finite:
                run.skip(step)
                continue
            run.update(step)
            run.report(step)
            if run.is_due(run.config.valid_every_steps):
                run.validate()
            if run.is_due(run.config.save_every_steps):
                run.save_within_epoch()
        run.end_epoch()
    run.close()
    return run.progress
