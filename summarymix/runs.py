"""Training runs on disk: checkpoints, and the models loaded from them, for training, decoding and export.

``epoch-N.pt`` is the state after epoch N, ``checkpoint-STEP.pt`` the newest state within an epoch. Each is a
dictionary:

    model           state dict, float32
    model_avg       {"samples", "mean"}: running mean of the weights since the start, float64 (see averaging.py)
    model_config    the ModelConfig, vocab_size filled in; decoding needs this, "model" and "tokens"
    tokens          Tokenizer.state()
    optimizer       state dict
    scaler          of torch.amp.GradScaler, empty unless fp16
    progress        the Progress; learning rate and loss weights are functions of it, and random numbers are functions
                    of the seed and of it, so a run needs no other state to continue
    validated       step of the last validation, and its results
    history         train and dev losses of each epoch
    config          the whole TrainConfig
    batching        everything that determines an epoch's batches; if it changes, the cuts of an unfinished epoch that
                    are left are divided into new batches
    done            hashes of the ids of this epoch's cuts that are done, int64
    num_done_before number of them that were done before the present batches
    recipe, summarymix_version
"""

import hashlib
import json
import re
import warnings
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
"""Prefixes of weights in checkpoints of earlier versions, and their current names."""


def epoch_path(exp_dir: Path, epoch: int) -> Path:
    """The checkpoint of an epoch."""
    return exp_dir / f"epoch-{epoch}.pt"


def list_epochs(exp_dir: Path, needed: bool = False) -> list[int]:
    """The epochs with a checkpoint in ``exp_dir``, ascending.

    Raises:
        FileNotFoundError: there is none although one is ``needed``; the message has the remedy.
    """
    epochs = sorted(numbered(exp_dir, "epoch"))
    if epochs or not needed:
        return epochs
    if within := numbered(exp_dir, "checkpoint"):
        raise FileNotFoundError(
            f"No epoch-*.pt in {exp_dir}: its first epoch is unfinished. Repeat the command of train.py to continue; "
            f"transcribe.py also takes the file {max(within.items())[1]}"
        )
    raise FileNotFoundError(f"No epoch-*.pt in {exp_dir}: train first, or correct --exp-dir")


def numbered(exp_dir: Path, name: str) -> dict[int, Path]:
    """The files ``NAME-N.pt`` in ``exp_dir`` by N."""
    found = {}
    for path in Path(exp_dir).glob(f"{name}-*.pt"):
        if match := re.fullmatch(rf"{name}-(\d+)\.pt", path.name):
            found[int(match.group(1))] = path
    return found


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint whole; if that fails, an earlier file does not change.

    Raises:
        OSError: the file could not be written; the message names it and, for a full disk, the remedy.
    """
    with atomic_write(path, "wb") as file:
        try:
            torch.save({**checkpoint, "summarymix_version": version("summarymix")}, file)
        except RuntimeError as error:
            # torch hides the failed write behind its own error.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_checkpoint(path: Path, lazy: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with current option names; no code in it is executed.

    Args:
        path: the file.
        lazy: leave tensors on disk until they are used.

    Raises:
        FileNotFoundError: the file does not exist; the message names the epochs in its folder.
        ValueError: the file is not a checkpoint of this library, is damaged, or has a removed option.
    """
    if not path.is_file():
        epochs = ", ".join(map(str, list_epochs(path.parent))) or "none"
        raise FileNotFoundError(f"No checkpoint {path}; epochs in {path.parent}: {epochs}")
    remedy = "If it is one, delete it: training then resumes from the previous checkpoint"
    checkpoint = read_file(path, "a checkpoint", remedy, lazy)
    if not isinstance(checkpoint, dict) or not {"model", "model_config"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of this library: it has no model and model_config")
    try:
        model_config = upgraded({"model": checkpoint["model_config"]}).get("model", {})
        config = upgraded(checkpoint.get("config", {}))
        ModelConfig.from_plain(model_config)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} was written by summarymix {checkpoint.get('summarymix_version')} and cannot be used by this "
            f"version, {version('summarymix')}: {error}"
        ) from error
    upgrades = {"model_config": model_config, "config": config, "model": _renamed(checkpoint["model"])}
    if average := checkpoint.get("model_avg"):
        upgrades["model_avg"] = average | {"mean": _renamed(average["mean"])}
    return checkpoint | upgrades


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their current names."""

    def today(name: str) -> str:
        for old, new in RENAMED_WEIGHTS.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return {today(name): tensor for name, tensor in weights.items()}


def read_file(path: Path, kind: str, remedy: str, lazy: bool = False) -> Any:
    """Read a file of ``torch.save`` onto the CPU; no code in it is executed.

    Args:
        path: an existing file.
        kind: expected kind of file, for the message.
        remedy: remedy for a damaged file, for the message.
        lazy: leave tensors on disk until they are used.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with warnings.catch_warnings():  # on old formats, which the error below covers
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except OSError:
        raise
    except Exception as error:  # the unpickler fails with any of them on a file of something else
        raise ValueError(f"{path} is damaged or not {kind} ({_why_refused(error)}). {remedy}") from error


def _why_refused(error: Exception) -> str:
    """The reason why torch did not read a file, without its advice to load the file unsafely."""
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {code.group(1)}, and only tensors, texts and numbers are read, because objects can run code"
    reason = str(error).partition("\n")[0]
    return reason if reason.startswith("PytorchStreamReader") else "it was not written by torch.save"


def read_selection(exp_dir: Path) -> dict[str, Any]:
    """The choice of ``decode.py --select`` in a run: epoch, avg, splits, …; empty without one."""
    path = Path(exp_dir) / "selected.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): run decode.py --select again") from error


def choose_epoch(exp_dir: Path, epoch: int | None, avg: int | None) -> tuple[int | None, int, str]:
    """Choose (epoch, avg) for :func:`load_model`: as requested, or else as selected on dev, or else the last epoch.

    The selected avg belongs to the selected epoch, also if that is requested: of another one, 1 is the default.

    Args:
        exp_dir: folder of the run.
        epoch: requested epoch, or None.
        avg: requested number of epochs to average, or None.

    Returns:
        epoch, avg, and a message for the user if the selection was used.
    """
    choice = read_selection(exp_dir)
    if not choice or epoch not in (None, choice["epoch"]):
        return epoch, 1 if avg is None else avg, ""
    used = [name for name, given in (("epoch", epoch), ("avg", avg)) if given is None]
    what = ", ".join(f"{name} {choice[name]}" for name in used)
    message = f"{exp_dir}/selected.json: {what} selected on {', '.join(choice['splits'])}" if used else ""
    return choice["epoch"], choice["avg"] if avg is None else avg, message


def check_same_model(path: Path, checkpoint: dict[str, Any], model_config: dict[str, Any], tokens: Any) -> None:
    """Refuse to continue a run with another model or token table. Options newer than the checkpoint take defaults.

    Raises:
        ValueError: the model or the token table differs; the message names each option that differs.
    """
    old, new = (plain(ModelConfig.from_plain(config)) for config in (checkpoint["model_config"], model_config))
    different = config_differences(old, new, "model.")
    if different:
        raise ValueError(
            f"{path} has another configuration: {', '.join(different)}. "
            "To continue that run, give the same options; for a new run, give another --exp_dir"
        )
    if checkpoint["tokens"] != tokens:
        raise ValueError(
            f"{path} was trained with another token table than the one in --data.lang_dir. "
            "To continue that run, restore the table; for a new run, give another --exp_dir"
        )


def load_model(
    exp_dir: Path | str, epoch: int | None = None, avg: int = 1, recipe: str | None = None
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """Load the model of a training run in eval mode on the CPU, its weights averaged over epochs.

    Args:
        exp_dir: folder of the run.
        epoch: last epoch to average over; None takes the last one with a checkpoint.
        avg: number of epochs: the mean over the samples taken in (epoch - avg, epoch], computed from the checkpoints of
            these two epochs. 0 takes the weights at the end of ``epoch``.
        recipe: recipe that the run must belong to; None accepts any.

    Returns:
        The model, its tokenizer, and ``{"epoch", "avg", "step", "recipe", "parameters", "history", "config"}``.

    Raises:
        FileNotFoundError: an epoch's checkpoint is missing.
        ValueError: a file is damaged, the files have different models, the weights do not fit the configuration, or
            the run belongs to another recipe.
    """
    exp_dir = Path(exp_dir)
    if epoch is None:
        epoch = list_epochs(exp_dir, needed=True)[-1]
    if epoch < 1:
        raise ValueError(f"--epoch {epoch} must be at least 1")
    if not 0 <= avg <= epoch:
        raise ValueError(f"--avg {avg} must be from 0 (no averaging) to the epoch, which is {epoch}")
    path = epoch_path(exp_dir, epoch)
    checkpoint = read_checkpoint(path, lazy=True)
    _check_recipe(exp_dir, checkpoint, recipe)
    weights = dict(checkpoint["model"])
    if avg > 0:
        start = None
        if avg < epoch:
            start_path = epoch_path(exp_dir, epoch - avg)
            if not start_path.is_file():
                raise FileNotFoundError(
                    f"No checkpoint {start_path}, which --epoch {epoch} --avg {avg} needs. Epochs in {exp_dir}: "
                    f"{', '.join(map(str, list_epochs(exp_dir)))}; train with a larger --keep_last_k to keep more"
                )
            start = read_checkpoint(start_path, lazy=True)
            check_same_model(start_path, start, checkpoint["model_config"], checkpoint["tokens"])
        try:
            mean = mean_between(checkpoint["model_avg"], start["model_avg"] if start else None)
        except ValueError as error:
            raise ValueError(
                f"{error} (epochs {epoch - avg + 1} to {epoch} of {exp_dir}): train with a smaller --average_period, "
                f"or use a larger --avg, or the weights at the end of the epoch: --avg 0, or {path} in place of the "
                "folder"
            ) from error
        weights.update({name: value.to(weights[name].dtype) for name, value in mean.items()})
    return _make_model(path, checkpoint, weights, epoch, avg)


def load_run_or_checkpoint(
    path: Path | str, epoch: int | None = None, avg: int | None = None, recipe: str | None = None
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """Load the model of a run, with (epoch, avg) from :func:`choose_epoch`, or of one checkpoint without averaging.

    Args:
        path: folder of the run, or the checkpoint.
        epoch: see :func:`choose_epoch`.
        avg: see :func:`choose_epoch`.
        recipe: see :func:`load_model`.

    Returns:
        As :func:`load_model`.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`, or epoch and avg are given for a single checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        if not path.is_dir():
            raise FileNotFoundError(f"No {path}: give the folder of a training run, a checkpoint, or an export")
        epoch, avg, _ = choose_epoch(path, epoch, avg)
        return load_model(path, epoch, avg, recipe)
    if epoch is not None or avg is not None:
        raise ValueError(f"{path} is a single checkpoint: to use --epoch and --avg, give its folder")
    checkpoint = read_checkpoint(path, lazy=True)
    _check_recipe(path, checkpoint, recipe)
    progress = checkpoint["progress"]
    epoch = progress["epoch"] if progress.get("epoch_sums") else progress["epoch"] - 1  # the next has not begun
    return _make_model(path, checkpoint, checkpoint["model"], epoch, 0)


def _check_recipe(path: Path, checkpoint: dict[str, Any], recipe: str | None) -> None:
    """Refuse a run or a checkpoint of another recipe than this, if this is one.

    Raises:
        ValueError: the recipe is another one.
    """
    if recipe not in (None, checkpoint["recipe"]):
        raise ValueError(
            f"{path} is a run of the recipe {checkpoint['recipe']}, this is {recipe}: "
            f"run this in egs/{checkpoint['recipe']}/ASR, or give another --exp-dir"
        )


def _make_model(
    path: Path, checkpoint: dict[str, Any], weights: dict[str, torch.Tensor], epoch: int, avg: int
) -> tuple[Transducer, Tokenizer, dict[str, Any]]:
    """Make the result of :func:`load_model` from a checkpoint, read from ``path``, and averaged weights."""
    try:
        model = Transducer(ModelConfig.from_plain(checkpoint["model_config"]))
        model.load_state_dict(weights)
    except RuntimeError as error:
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


def model_digest(model: Transducer, tokenizer: Tokenizer) -> str:
    """Digest of a model: its configuration, tokens and weights. ``model`` is on the CPU."""
    digest = hashlib.blake2b(repr((plain(model.config), tokenizer.state())).encode(), digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def mean_between(end: dict[str, Any], start: dict[str, Any] | None) -> dict[str, Tensor]:
    """The mean over the samples in ``end`` but not in ``start``, both from :meth:`RunningMean.state_dict`.

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
