"""Detection and explanation of diverged training.

A non-finite gradient is noticed at once. Too high a learning rate, or half precision, more often leaves the loss finite
and far above its best for the rest of a costly run.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from summarymix.runs import read_checkpoint
from summarymix.training.checkpoint import Progress, list_checkpoints
from summarymix.training.config import TrainConfig

MEAN_STEPS = 100  # over which the loss is smoothed
# A loss is far above its best at three times the best and a tenth of the way back to the initial loss. In healthy runs
# the smoothed loss reached 1.1 times its best; in a run that forgets all but the token frequencies it rises much more.
MIN_RATIO = 3.0
MIN_SHARE_LOST = 0.1
NUM_NAMED = 3  # weights named in the explanation


@dataclass
class LossWatch:
    """Tracks the smoothed loss of a run. Its fields are its whole state and go into checkpoints.

    Args:
        count: number of steps.
        start: loss of the first step, at the initial weights.
        mean: exponential moving average of the loss.
        best: lowest mean so far.
        best_step: step of the lowest mean.
        best_norm: gradient norm at that step.
        high_steps: number of last steps in a row with the mean far above ``best``.
    """

    count: int = 0
    start: float = 0.0
    mean: float = 0.0
    best: float = math.inf
    best_step: int = 0
    best_norm: float = 0.0
    high_steps: int = 0

    @property
    def limit(self) -> float:
        """Threshold above which the mean is far above ``best``. With a delay penalty losses may be negative."""
        return self.best + max((MIN_RATIO - 1) * self.best, MIN_SHARE_LOST * (self.start - self.best))

    def update(self, step: int, loss: float, grad_norm: float) -> None:
        """Record the loss of a step, which must be finite."""
        self.count += 1
        if self.count == 1:
            self.start = loss
        # Limits the effect of a single freak batch.
        loss = min(loss, self.start + 4 * abs(self.start))
        self.mean += (loss - self.mean) / min(self.count, MEAN_STEPS)
        if self.mean < self.best:
            self.best, self.best_step, self.best_norm = self.mean, step, grad_norm
        self.high_steps = self.high_steps + 1 if self.mean > self.limit else 0


def stop_if_diverged(
    progress: Progress, losses: dict[str, float], grad_norm: float, lr: float, model: nn.Module, config: TrainConfig
) -> None:
    """Record the losses of a step in ``progress``, and stop if training has diverged.

    Args:
        progress: progress of the run, this step included.
        losses: losses of this step per frame: simple, pruned and ctc. They are summed with the weights after warm-up,
            so that sums compare over the run.
        grad_norm: gradient norm of this step, before clipping.
        lr: learning rate of this step.
        model: the model, whose most changed weights the message names.
        config: configuration of the run.

    Raises:
        FloatingPointError: the loss has been far above its best for ``config.divergence_patience`` steps.
    """
    watch = LossWatch(**progress.loss_watch)  # type: ignore[arg-type]
    scales = config.scales
    loss = scales.simple * losses["simple"] + scales.pruned * losses["pruned"] + scales.ctc * losses["ctc"]
    watch.update(progress.step, loss, grad_norm)
    progress.loss_watch = asdict(watch)
    if config.divergence_patience is not None and watch.high_steps >= config.divergence_patience:
        raise FloatingPointError(_explanation(watch, progress.step, grad_norm, lr, model, config))


def remedies(config: TrainConfig) -> list[str]:
    """Changes of options that make divergence less likely, with their current values."""
    optim = config.optim
    if optim.name == "scaled_adam":
        changes = [f"--optim.base_lr below {optim.base_lr:g}", f"--optim.clipping_scale below {optim.clipping_scale:g}"]
    else:
        changes = [f"--optim.lr below {optim.lr:g}", f"--optim.clip_norm below {optim.clip_norm:g}"]
    if optim.is_eden:
        changes.insert(1, f"--optim.warmup_batches above {optim.warmup_batches:g}")
    else:
        changes.insert(1, f"--optim.warmup_steps above {optim.warmup_steps}")
    if config.precision == "fp16":
        changes.append("--precision bf16")
    return changes


def _explanation(
    watch: LossWatch, step: int, grad_norm: float, lr: float, model: nn.Module, config: TrainConfig
) -> str:
    """The error message: losses, gradient norms, changed weights and the remedy."""
    # The smoothed loss lags behind the loss by the length of its window.
    began = step - watch.high_steps - MEAN_STEPS
    steps = {path: read_checkpoint(path, lazy=True)["progress"]["step"] for path in list_checkpoints(config.exp_dir)}
    sound = max((path for path in steps if steps[path] <= began), key=steps.__getitem__, default=None)
    later = [str(path) for path in steps if steps[path] > began]

    if sound is None:
        back = f"No checkpoint is from before that: start again, with another --exp_dir than {config.exp_dir}"
    else:
        remove = f" by removing {', '.join(later)}" if later else ", from which this command continues"
        back = f"Go back to {sound} (step {steps[sound]}){remove}"
    return (
        f"Training has diverged: its loss per frame, smoothed over {MEAN_STEPS} steps, has been above "
        f"{watch.limit:.3g} for {watch.high_steps} steps. It was {watch.best:.3g} at step {watch.best_step}, its best, "
        f"and is {watch.mean:.3g} at step {step}.\n"
        f"The learning rate is {lr:.3g}, the gradient's norm {grad_norm:.3g}; at step {watch.best_step} it was "
        f"{watch.best_norm:.3g}.\n"
        f"{_weights(model, sound)}.\n"
        f"{back}; and change one or more of: {', '.join(remedies(config))}.\n"
        "If the loss rises because the data has become harder, give --divergence_patience null"
    )


def _weights(model: nn.Module, sound: Path | None) -> str:
    """The weights that changed most since a checkpoint, or else the largest ones, with their root mean squares."""
    now = dict(model.named_parameters())
    if sound is None:
        largest = sorted(now, key=lambda name: -_rms(now[name]))[:NUM_NAMED]
        sizes = ", ".join(f"{name} {_rms(now[name]):.3g}" for name in largest)
        return f"The largest weights (root mean square): {sizes}"
    then = read_checkpoint(sound, lazy=True)["model"]
    # Changes are relative to a weight's root mean square, taken as at least 0.01 for biases near zero.
    change = {name: _rms(p.detach().cpu() - then[name]) / max(_rms(then[name]), 1e-2) for name, p in now.items()}
    changed = sorted(now, key=lambda name: -change[name])[:NUM_NAMED]
    sizes = ", ".join(f"{name} {_rms(then[name]):.3g} and {_rms(now[name]):.3g}" for name in changed)
    return f"The weights that have changed most since a sound checkpoint (root mean square then and now): {sizes}"


def _rms(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())
