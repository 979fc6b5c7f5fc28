"""The training loop.

Two rules make a run reproducible. First, every random number is a function of the seed and the batch number, so a
killed run continues exactly from its last checkpoint (on a CPU; on a GPU some kernels, such as that of CTC's gradient,
add in any order), and two processes draw the same numbers as one process that accumulates two batches. Second, losses
are summed over utterances, and the gradient is divided at the end by the number of encoder frames of all batches and
processes, so the division of a step's audio into batches does not matter.
"""

from summarymix.training.checkpoint import Progress
from summarymix.training.run import Run


def train(run: Run) -> Progress:
    """Train to the end of the last epoch, from the current progress of ``run``.

    Returns:
        The final progress.

    Raises:
        FloatingPointError: ``config.max_bad_steps`` steps in a row had no finite gradient, or training has diverged.
        OSError: a checkpoint cannot be written, earlier ones are intact; or data cannot be read.
        SystemExit: a process received SIGTERM or SIGINT; the last step is saved.
    """
    with run.stop_request:
        if run.is_due(run.config.valid_every_steps):  # not done yet if it was interrupted
            run.validate()
        while not run.is_finished:
            for group in run.groups():  # the batches of one optimiser step
                step = run.forward_backward(group)
                if step.has_bad_losses:  # 0 · NaN is NaN: one utterance spoils the whole gradient
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
            if run.is_stopping:
                run.save_within_epoch()
            else:
                run.end_epoch()
        run.close()
    return run.progress
