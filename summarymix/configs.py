"""Configurations as plain dictionaries: conversion, comparison, and options of earlier versions."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
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
"""Current names of options by their former names."""
REMOVED = {
    "model.summary_norm": False,
    "model.combiner_activation": "gelu",
    "model.fusion": "concat",
    "model.zipformer.convolution": "chunk",
    "chunk.draws": 1,
    "data.shuffle_buffer": 20000,
}
"""Removed options and their former defaults."""


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values of nested options, such as ``("optim.lr", 0.1)`` for ``{"optim": {"lr": 0.1}}``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def what_became_of(name: str) -> str | None:
    """A sentence on an option that was renamed or removed, or that icefall has; None for any other name."""
    if name in RENAMED:
        return f"{name} is now {RENAMED[name]}"
    if name in REMOVED:
        return f"{name} was removed because it had no benefit; leave it out"
    if name == "world_size":  # of icefall
        return "the number of processes is given to torchrun: torchrun --nproc-per-node N train.py"
    return None


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options under their current names.

    Raises:
        ValueError: a removed option of the model has a value other than its former default.
    """
    nested: dict[str, Any] = {}
    for name, value in dotted(values):
        if name in REMOVED:
            if name.startswith("model.") and value != REMOVED[name]:
                raise ValueError(f"{name} {value} was removed and is no longer supported")
            continue
        *groups, leaf = RENAMED.get(name, name).split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    return nested


def plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as dictionaries, lists, strings and numbers, for YAML and checkpoints."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [convert(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return convert(asdict(config))


def with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options, with the defaults of those that are missing."""
    added = {
        name: with_defaults(values.get(name, {}), default) if isinstance(default, dict) else values.get(name, default)
        for name, default in defaults.items()
    }
    return {**values, **added}


def check_least(config: object, prefix: str = "", **least: float) -> None:
    """Check that fields of a configuration are at least the given values, or None.

    Raises:
        ValueError: one is less; the message names the option, with ``prefix``, such as ``data.``.
    """
    for name, value in least.items():
        given = getattr(config, name)
        if given is not None and not given >= value:
            raise ValueError(f"--{prefix}{name} {given} must be at least {value}")


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Differences between two configurations from :func:`plain`, by name: ``optim.lr was 0.1 and is 0.2``."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, "unknown"), new.get(name, "unknown")
        if isinstance(before, dict) and isinstance(after, dict):
            found += config_differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before} and is {after}")
    return found
