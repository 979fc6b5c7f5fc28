"""What a new run starts from: statistics of the features, or the weights of another run."""

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

STATS_SECONDS = 600.0  # audio from which the features' mean and deviation are estimated

# Options of the model that no weight depends on, or that the token table decides.
MAY_DIFFER = {"dropout", "vocab_size", "zipformer.ref_duration", "mixing.decay_seconds"}


def feature_stats(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each mel bin (F,), float32, over the first ten minutes of ``batches``.

    Raises:
        ValueError: there are no frames.
    """
    count, seconds = 0, 0.0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for batch in batches:
        valid = length_mask(batch.feature_lengths, batch.features.size(1))  # (N, T)
        frames = batch.features[valid].double()  # (frames, F)
        count += len(frames)
        total = total + frames.sum(0)
        squares = squares + frames.square().sum(0)
        seconds += batch.seconds
        if seconds >= STATS_SECONDS:
            break
    if not isinstance(total, Tensor) or not isinstance(squares, Tensor) or count == 0:
        raise ValueError("there is no training data to estimate the features' mean and deviation from")
    mean = total / count
    variance = squares / count - mean.square()
    return mean.float(), variance.clamp(min=0).sqrt().float()


def initialize_from(source: Path, model: Transducer, tokenizer: Tokenizer, reinit_vocab: bool = False) -> str:
    """Give ``model`` the weights of another run, the statistics of its features included.

    Args:
        source: a checkpoint, for its weights as they are; or the folder of a run, for those that decoding uses: of
            selected.json, or averaged over the last epoch.
        model: as initialised, of the same configuration but for the number of tokens.
        tokenizer: its token table.
        reinit_vocab: if that is not the table of ``source``, keep the initial values of what is particular to a token,
            except for tokens that both tables have.

    Returns:
        What was done, for the user.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the model is another, or the token table is and ``reinit_vocab`` is not set.
    """
    weights, config, old_tokens, name = _read_weights(source)
    new_config = plain(model.config)
    different = config_differences(_of_weights(config), _of_weights(new_config), "model.")
    if different:
        raise ValueError(
            f"--init_from {name} is of another model: {', '.join(different)}. Give the same options of the model"
        )
    if old_tokens == tokenizer.tokens:
        model.load_state_dict(weights)
        return f"Starting from the weights of {name}"
    shared = [token for token in tokenizer.tokens if token in set(old_tokens)]
    if not reinit_vocab:
        raise ValueError(
            f"--init_from {name} has another token table than --data.lang_dir: {len(old_tokens)} tokens there, "
            f"{tokenizer.vocab_size} here, {len(shared)} in both. Give the lang_dir that it was trained with, or "
            "--reinit_vocab true to train the weights of the other tokens from the beginning"
        )
    old_rows = torch.tensor([old_tokens.index(token) for token in shared])
    new_rows = torch.tensor([tokenizer.tokens.index(token) for token in shared])
    initial = model.state_dict()
    for tensor, axis in _vocabulary_axes(model.config).items():
        rows = weights[tensor].index_select(axis, old_rows).to(initial[tensor].device)
        weights[tensor] = initial[tensor].index_copy(axis, new_rows.to(rows.device), rows)
    model.load_state_dict(weights)
    return (
        f"Starting from the weights of {name}, with another token table: of {tokenizer.vocab_size} tokens, "
        f"{len(shared)} keep their weights, {tokenizer.vocab_size - len(shared)} begin anew"
    )


def _of_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The options of the model, by dotted names, that weights depend on."""
    unused = "zipformer." if config["encoder"] == "conformer" else "conformer."
    return {name: value for name, value in dotted(config) if name not in MAY_DIFFER and not name.startswith(unused)}


def _read_weights(source: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str], str]:
    """Weights, configuration of the model, tokens, and a name for messages."""
    if not source.is_dir():
        checkpoint = read_checkpoint(source, lazy=True)
        config = plain(ModelConfig.from_plain(checkpoint["model_config"]))
        return dict(checkpoint["model"]), config, checkpoint["tokens"]["tokens"], str(source)
    epoch, avg, _ = choose_epoch(source, None, None)
    model, tokenizer, info = load_model(source, epoch, avg)
    name = f"{source} (epoch {info['epoch']}, avg {info['avg']})"
    return model.state_dict(), plain(model.config), tokenizer.tokens, name


def _vocabulary_axes(config: ModelConfig) -> dict[str, int]:
    """The tensors of a model with a row for each token, and which of their axes that is."""
    with torch.device("meta"):
        one, other = (Transducer(replace(config, vocab_size=config.vocab_size + more)).state_dict() for more in (0, 1))
    sizes = {name: list(zip(one[name].shape, other[name].shape, strict=True)) for name in one}
    return {name: axis for name, pairs in sizes.items() for axis, (size, larger) in enumerate(pairs) if size != larger}
