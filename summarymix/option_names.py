"""Options under the names that earlier versions gave them, in checkpoints and configuration files."""

from collections.abc import Iterator, Mapping
from typing import Any

CONFORMER_SIZES = (
    "frontend_channels",
    "num_layers",
    "dim",
    "feedforward_dim",
    "kernel_size",
    "summary_dim",
    "num_heads",
)
RENAMED = {f"model.{name}": f"model.conformer.{name}" for name in CONFORMER_SIZES} | {
    "model.mixing": "model.mixing.mode",
    "model.decay_seconds": "model.mixing.decay_seconds",
    "loss.consistency_scale": "scales.consistency",
}
"""The options of today by their former names."""
REMOVED = {
    "model.summary_norm": False,
    "model.combiner_activation": "gelu",
    "model.fusion": "concat",
    "model.zipformer.convolution": "chunk",
    "chunk.draws": 1,
}
"""Options that are gone, and the values that they had unless somebody set them."""


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of the options in nested dictionaries: ``{"model": {"dim": 8}}`` has ``("model.dim", 8)``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def what_became_of(name: str) -> str | None:
    """A sentence on an option of an earlier version; None if ``name`` is none."""
    if name in RENAMED:
        return f"{name} is now {RENAMED[name]}"
    if name in REMOVED:
        return f"{name} was removed, for it was found to be of no use; leave it out"
    return None


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options, under the names of today.

    Raises:
        ValueError: one that was removed has another value than it had by default.
    """
    nested: dict[str, Any] = {}
    for name, value in dotted(values):
        if name in REMOVED:
            if value != REMOVED[name]:
                raise ValueError(f"it has {name} {value}, which this version does not have any more")
            continue
        *groups, leaf = RENAMED.get(name, name).split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    return nested
