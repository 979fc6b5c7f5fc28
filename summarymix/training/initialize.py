"""Initialisation of a new run: feature statistics, or the weights of another run."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from summarymix.chunking import length_mask
from summarymix.configs import config_differences, dotted, plain
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.model import ModelConfig, Transducer
from summarymix.runs import choose_epoch, load_model, read_checkpoint

STATS_SECONDS = 600.0  # of audio for the features' mean and deviation

# Model options that no weight depends on, or that follow from the token table.
MAY_DIFFER = {"dropout", "vocab_size", "zipformer.ref_duration", "mixing.decay_seconds"}


def feature_stats(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each mel bin (F,), float32, over the first ten minutes of ``batches``.

    Tails do not count.

    Raises:
        ValueError: ``batches`` has no frames.
    """
    count, seconds = 0, 0.0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for batch in batches:
        valid = length_mask(batch.feature_lengths - batch.tail_frames, batch.features.size(1))  # (N, T)
        frames = batch.features[valid].double()  # (frames, F)
        count += len(frames)
        total = total + frames.sum(0)
        squares = squares + frames.square().sum(0)
        seconds += batch.seconds
        if seconds >= STATS_SECONDS:
            break
    if not isinstance(total, Tensor) or not isinstance(squares, Tensor) or count == 0:
        raise ValueError("No training data to estimate the features' mean and deviation from: check --data.train")
    mean = total / count
    variance = squares / count - mean.square()
    return mean.float(), variance.clamp(min=0).sqrt().float()


def initialize_from(source: Path, model: Transducer, tokenizer: Tokenizer, reinit_vocab: bool = False) -> str:
    """Load the weights of another run into ``model``, including its feature statistics.

    Args:
        source: a checkpoint, or the folder of a run for the weights that decoding uses: as selected in selected.json,
            or averaged over the last epoch.
        model: initialised model with the configuration of ``source``, except for the number of tokens.
        tokenizer: tokenizer of ``model``.
        reinit_vocab: with another token table than the one of ``source``, load the weights of the tokens in both
            tables, and leave the weights of the other tokens as initialised.

    Returns:
        A message for the user.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the model differs, or the token table differs and ``reinit_vocab`` is not set.
    """
    weights, config, old_tokens, name = _read_weights(source)
    new_config = plain(model.config)
    different = config_differences(_of_weights(config), _of_weights(new_config), "model.")
    if different:
        raise ValueError(f"--init_from {name} has another model: {', '.join(different)}. Give the same model options")
    if old_tokens == tokenizer.tokens:
        model.load_state_dict(weights)
        return f"Starting from the weights of {name}"
    old_rows_of = {token: row for row, token in enumerate(old_tokens)}
    rows_of = {row: old_rows_of[token] for row, token in enumerate(tokenizer.tokens) if token in old_rows_of}
    if not reinit_vocab:
        raise ValueError(
            f"--init_from {name} has another token table than --data.lang_dir: {len(old_tokens)} tokens there, "
            f"{tokenizer.vocab_size} here, {len(rows_of)} in both. Give the lang_dir that it was trained with, or "
            "--reinit_vocab true to train the other tokens' weights from scratch"
        )
    new_rows, old_rows = torch.tensor(list(rows_of)), torch.tensor(list(rows_of.values()))
    initial = model.state_dict()
    for tensor, axis in _vocabulary_axes(model.config).items():
        rows = weights[tensor].index_select(axis, old_rows).to(initial[tensor].device)
        weights[tensor] = initial[tensor].index_copy(axis, new_rows.to(rows.device), rows)
    model.load_state_dict(weights)
    return (
        f"Starting from the weights of {name}, with another token table: of {tokenizer.vocab_size} tokens, "
        f"{len(rows_of)} keep their weights, {tokenizer.vocab_size - len(rows_of)} are initialised"
    )


def _of_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The model options that weights depend on, by dotted name."""
    unused = "zipformer." if config["encoder"] == "conformer" else "conformer."
    return {name: value for name, value in dotted(config) if name not in MAY_DIFFER and not name.startswith(unused)}


def _read_weights(source: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str], str]:
    """Read weights, model configuration, tokens, and a name for messages."""
    if not source.is_dir():
        checkpoint = read_checkpoint(source, lazy=True)
        config = plain(ModelConfig.from_plain(checkpoint["model_config"]))
        return dict(checkpoint["model"]), config, checkpoint["tokens"]["tokens"], str(source)
    epoch, avg, _ = choose_epoch(source, None, None)
    model, tokenizer, info = load_model(source, epoch, avg)
    name = f"{source} (epoch {info['epoch']}, avg {info['avg']})"
    return model.state_dict(), plain(model.config), tokenizer.tokens, name


def _vocabulary_axes(config: ModelConfig) -> dict[str, int]:
    """The token axis of each tensor that has one."""
    with torch.device("meta"):
        one, other = (Transducer(replace(config, vocab_size=config.vocab_size + more)).state_dict() for more in (0, 1))
    sizes = {name: list(zip(one[name].shape, other[name].shape, strict=True)) for name in one}
    return {name: axis for name, pairs in sizes.items() for axis, (size, larger) in enumerate(pairs) if size != larger}
