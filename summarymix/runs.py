"""A training run on disk: its checkpoints, and the models that are made of them. Training, decoding and export use it.

``epoch-N.pt`` is the run as it was after epoch N, ``checkpoint-STEP.pt`` the newest state within an epoch. Each is a
dictionary:

    model           state dict, float32
    model_avg       {"samples", "mean"}: running mean of the weights since the start, float64 (see averaging.py)
    model_config    the ModelConfig, vocab_size filled in; together with "model" it is all that decoding needs
    tokens          Tokenizer.state()
    optimizer       state dict
    scaler          of torch.amp.GradScaler, empty unless fp16
    progress        where the run stood; learning rate and loss weights are functions of it, and every random number is
                    one of the seed and of it, so that no other state is needed to continue
    history         dev losses of each epoch
    config          the whole TrainConfig
    recipe, summarymix_version
"""

import json
import pickle
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from summarymix.configs import config_differences, plain, upgraded
from summarymix.data.tokens import Tokenizer
from summarymix.files import atomic_write
from summarymix.model import ModelConfig, Transducer

RENAMED_WEIGHTS = {
    "joiner.decoder_proj.": "joiner.predictor_proj.",
    "simple_decoder_proj.": "simple_predictor_proj.",
}
"""Prefixes of weights in checkpoints of earlier versions, and their names of today."""


def epoch_path(exp_dir: Path, epoch: int) -> Path:
    """The checkpoint of an epoch."""
    return exp_dir / f"epoch-{epoch}.pt"


def list_epochs(exp_dir: Path) -> list[int]:
    """The epochs that have a checkpoint in ``exp_dir``, ascending."""
    return sorted(numbered(exp_dir, "epoch"))


def numbered(exp_dir: Path, name: str) -> dict[int, Path]:
    found = {}
    for path in Path(exp_dir).glob(f"{name}-*.pt"):
        if match := re.fullmatch(rf"{name}-(\d+)\.pt", path.name):
            found[int(match.group(1))] = path
    return found


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint whole, or leave what was there before.

    Raises:
        OSError: it could not be written; names the file and, for a full disk, the remedy.
    """
    with atomic_write(path, "wb") as file:
        try:
            torch.save({**checkpoint, "summarymix_version": version("summarymix")}, file)
        except RuntimeError as error:
            # torch hides the failed write behind an error of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_checkpoint(path: Path, lazy: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, its options under the names of today; nothing in it is executed.

    Args:
        path: the file.
        lazy: leave tensors on disk until they are used.

    Raises:
        FileNotFoundError: names the epochs that there are.
        ValueError: the file is no checkpoint of this library, or damaged, or has an option that was removed.
    """
    if not path.is_file():
        epochs = ", ".join(map(str, list_epochs(path.parent))) or "none"
        raise FileNotFoundError(f"No checkpoint {path}; epochs in {path.parent}: {epochs}")
    checkpoint = read_file(path, "a checkpoint", "Delete it; training resumes from the one before", lazy)
    if not isinstance(checkpoint, dict) or "model_config" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of this library: it has no model_config")
    try:
        model_config = upgraded({"model": checkpoint["model_config"]}).get("model", {})
        config = upgraded(checkpoint.get("config", {}))
    except ValueError as error:
        raise ValueError(f"{path} cannot be used by this version: {error}") from error
    upgrades = {"model_config": model_config, "config": config, "model": _renamed(checkpoint["model"])}
    if average := checkpoint.get("model_avg"):
        upgrades["model_avg"] = average | {"mean": _renamed(average["mean"])}
    return checkpoint | upgrades


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their names of today."""

    def today(name: str) -> str:
        for old, new in RENAMED_WEIGHTS.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return {today(name): tensor for name, tensor in weights.items()}


def read_file(path: Path, kind: str, remedy: str, lazy: bool = False) -> Any:
    """What ``torch.save`` has written, onto the CPU; nothing in it is executed.

    Args:
        path: the file, which is there.
        kind: what it should be, for the message.
        remedy: what to do if it is damaged.
        lazy: leave tensors on disk until they are used.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        # torch's advice, to load it all the same, is none.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise ValueError(f"{path} is damaged or not {kind} ({reason}). {remedy}") from error


def read_selection(exp_dir: Path) -> dict[str, Any]:
    """What ``decode.py --select`` has chosen in a run: epoch, avg, splits, …; nothing where it was never called."""
    path = Path(exp_dir) / "selected.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def choose_epoch(exp_dir: Path, epoch: int | None, avg: int | None) -> tuple[int | None, int, str]:
    """The (epoch, avg) for :func:`load_model`: what is asked for, or else what was selected on dev, or else the last.

    Args:
        exp_dir: folder of the run.
        epoch: asked for, or None.
        avg: likewise.

    Returns:
        The two, and for people why, where it is the selection.
    """
    choice = read_selection(exp_dir)
    if epoch is None and avg is None and choice:
        epoch, avg = choice["epoch"], choice["avg"]
        splits = ", ".join(choice["splits"])
        return epoch, avg, f"{exp_dir}/selected.json: epoch {epoch}, avg {avg} selected on {splits}"
    return epoch, 1 if avg is None else avg, ""


def check_same_model(path: Path, checkpoint: dict[str, Any], model_config: dict[str, Any], tokens: Any) -> None:
    """Refuse to continue a run with another model or token table. An option newer than a checkpoint has its default.

    Raises:
        ValueError: names each option that differs.
    """
    old, new = (plain(ModelConfig.from_plain(config)) for config in (checkpoint["model_config"], model_config))
    different = config_differences(old, new, "model.")
    if different:
        raise ValueError(
            f"{path} is of another configuration: {', '.join(different)}. "
            "To continue that run give the same options, for a new one another --exp_dir"
        )
    if checkpoint["tokens"] != tokens:
        raise ValueError(
            f"{path} was trained with another token table than that in --data.lang_dir. "
            "To continue that run restore the table, for a new one give another --exp_dir"
        )


def load_model(
    exp_dir: Path | str, epoch: int | None = None, avg: int = 1, recipe: str | None = None
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """The model of a training run, its weights averaged over epochs, in eval mode on the CPU.

    Args:
        exp_dir: folder of the run.
        epoch: last epoch to average over; None for the last that there is.
        avg: number of epochs: the mean is over the samples taken in (epoch - avg, epoch] and read from the files of
            these two epochs. 0 takes the weights as they are at the end of ``epoch``.
        recipe: refuse a run of another one.

    Returns:
        The model, its tokenizer, and ``{"epoch", "avg", "step", "recipe", "parameters", "history", "config"}``.

    Raises:
        FileNotFoundError: an epoch's checkpoint is missing.
        ValueError: a damaged file, files of different models, weights that do not fit the configuration, or a run of
            another recipe.
    """
    exp_dir = Path(exp_dir)
    if epoch is None:
        epochs = list_epochs(exp_dir)
        if not epochs:
            raise FileNotFoundError(f"No epoch-*.pt in {exp_dir}: train first, or correct --exp-dir")
        epoch = epochs[-1]
    if not 0 <= avg <= epoch:
        raise ValueError(f"--avg {avg} must be from 0 (no averaging) to the epoch, which is {epoch}")
    path = epoch_path(exp_dir, epoch)
    checkpoint = read_checkpoint(path, lazy=True)
    if recipe not in (None, checkpoint["recipe"]):
        raise ValueError(
            f"{exp_dir} is a run of the recipe {checkpoint['recipe']}, this is {recipe}: "
            f"call this in egs/{checkpoint['recipe']}/ASR, or give another --exp-dir"
        )
    weights = dict(checkpoint["model"])
    if avg > 0:
        start = None
        if avg < epoch:
            start_path = epoch_path(exp_dir, epoch - avg)
            if not start_path.is_file():
                raise FileNotFoundError(
                    f"No checkpoint {start_path}, where --epoch {epoch} --avg {avg} begins. Epochs in {exp_dir}: "
                    f"{', '.join(map(str, list_epochs(exp_dir)))}; with a larger --keep_last_k training keeps more"
                )
            start = read_checkpoint(start_path, lazy=True)
            check_same_model(start_path, start, checkpoint["model_config"], checkpoint["tokens"])
        try:
            mean = mean_between(checkpoint["model_avg"], start["model_avg"] if start else None)
        except ValueError as error:
            raise ValueError(
                f"{error} (epochs {epoch - avg + 1} to {epoch} of {exp_dir}): train with a smaller --average_period, "
                "or use a larger --avg, or --avg 0 for the weights as they were at the end of the epoch"
            ) from error
        weights.update({name: value.to(weights[name].dtype) for name, value in mean.items()})
    return _make_model(path, checkpoint, weights, epoch, avg)


def load_run_or_checkpoint(
    path: Path | str, epoch: int | None = None, avg: int | None = None
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """The model of a run, chosen as by :func:`choose_epoch`, or of one checkpoint, its weights as they are.

    Returns:
        What :func:`load_model` does.

    Raises:
        FileNotFoundError, ValueError: see there; or epoch and avg are given for a single checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        if not path.is_dir():
            raise FileNotFoundError(f"No {path}: give the folder of a training run, or a checkpoint")
        epoch, avg, _ = choose_epoch(path, epoch, avg)
        return load_model(path, epoch, avg)
    if epoch is not None or avg is not None:
        raise ValueError(f"{path} is a single checkpoint: give its folder with --epoch and --avg")
    checkpoint = read_checkpoint(path, lazy=True)
    return _make_model(path, checkpoint, checkpoint["model"], checkpoint["progress"]["epoch"], 0)


def _make_model(
    path: Path, checkpoint: dict[str, Any], weights: dict[str, torch.Tensor], epoch: int, avg: int
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """What :func:`load_model` returns, of a checkpoint read from ``path`` and the averaged weights."""
    try:
        model = Transducer(ModelConfig.from_plain(checkpoint["model_config"]))
        model.load_state_dict(weights)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} was written by summarymix {checkpoint['summarymix_version']} and does not fit the model of this "
            f"version, {version('summarymix')}: {error}"
        ) from error
    model.eval()
    info = {
        "epoch": epoch,
        "avg": avg,
        "step": checkpoint["progress"]["step"],
        "recipe": checkpoint["recipe"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "history": checkpoint["history"],
        "config": checkpoint["config"],
    }
    return model, Tokenizer.from_state(checkpoint["tokens"]), info


def mean_between(end: dict[str, Any], start: dict[str, Any] | None) -> dict[str, Tensor]:
    """The mean over the samples that ``end`` has and ``start`` has not, both from :meth:`RunningMean.state_dict`.

    Args:
        end: the later state.
        start: the earlier state of the same run; None for the beginning of training.

    Returns:
        Weights by name, float64.

    Raises:
        ValueError: no sample lies between the two.
    """
    first = 0 if start is None else start["samples"]
    samples = end["samples"] - first
    if samples < 1:
        raise ValueError("there is no sample of the running mean in this range")
    if start is None:
        return dict(end["mean"])
    return {name: (mean * end["samples"] - start["mean"][name] * first) / samples for name, mean in end["mean"].items()}
