"""Streaming state: a flat dictionary of tensors, passed in and returned, never kept inside a module.

Every tensor has the batch axis first: one row, or *slot*, per stream. Shapes never change while a stream runs, and
the initial state is all zeros, so streams are batched, moved and reset by plain indexing, whatever the encoder.
Modules pass a :class:`StateTree` down to their parts; callers of an encoder use the flat form.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig

State = dict[str, Tensor]

KINDS = {
    "sum": "summaries",
    "count": "summaries",
    "cache": "convolutions",
    "key": "attention",
    "value": "attention",
    "valid": "attention",
}
"""Kind of a tensor of an encoder's state, by the last part of its name."""


def kind_of(name: str) -> str:
    """Return the kind of the tensor ``name`` of an encoder's flat state, one of the values of :data:`KINDS`."""
    return KINDS[name.rpartition(".")[2]]


def select_slots(state: State, slots: Tensor) -> State:
    """Copy the rows ``slots`` (M,) int64 of a state of N slots to a new state of M slots."""
    return {name: tensor.index_select(0, slots) for name, tensor in state.items()}


def write_slots(state: State, slots: Tensor, part: State) -> None:
    """Write ``part``, a state of M slots, over the rows ``slots`` (M,) of ``state``, in place."""
    for name, tensor in state.items():
        tensor.index_copy_(0, slots, part[name])


def copy_state(state: State) -> State:
    """Return an independent copy of ``state``."""
    return {name: tensor.clone() for name, tensor in state.items()}


def reset_slots(state: State, slots: Tensor) -> None:
    """Reset the rows ``slots`` (M,) of ``state`` to the initial state, in place."""
    for tensor in state.values():
        tensor.index_fill_(0, slots, 0)


def state_bytes(state: State) -> int:
    """Return the size of one stream's state in bytes."""
    return sum(tensor[0].numel() * tensor.element_size() for tensor in state.values())


def pack_state(state: State) -> Tensor:
    """Pack a state of N slots into one tensor (N, V), for callers that treat states as opaque.

    V is ``state_bytes / 4`` if all tensors are float32. A state of zeros is packed as zeros.
    """
    return torch.cat([tensor.flatten(1) for tensor in state.values()], dim=1)


def unpack_state(packed: Tensor, like: State) -> State:
    """Unpack (N, V) to a state of N slots; ``like`` is a state of the same encoder and left context.

    Raises:
        ValueError: V does not match ``like``.
    """
    widths = [tensor[0].numel() for tensor in like.values()]
    if packed.size(1) != sum(widths):
        raise ValueError(f"the packed state has {packed.size(1)} numbers per stream; this encoder needs {sum(widths)}")
    parts = packed.split(widths, dim=1)
    return {name: part.unflatten(1, tensor.shape[1:]) for (name, tensor), part in zip(like.items(), parts, strict=True)}


class StateTree(dict[str, Any]):
    """A state as a tree of modules: the state of each part under the part's name, tensors at the leaves.

    A part without a state may be missing.
    """

    def __missing__(self, name: str) -> "StateTree":
        return StateTree()


def init_parts(parts: Iterable[tuple[str, Any]], batch_size: int, chunk: ChunkConfig) -> StateTree:
    """Make the initial states of named modules."""
    return StateTree({name: part.init_state(batch_size, chunk) for name, part in parts})


def nest(state: State) -> StateTree:
    """Convert ``{"layers.0.sum": …}`` to ``{"layers": {"0": {"sum": …}}}``."""
    tree = StateTree()
    for name, tensor in state.items():
        *modules, leaf = name.split(".")
        branch = tree
        for module in modules:
            branch = branch.setdefault(module, StateTree())
        branch[leaf] = tensor
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> State:
    """Convert a tree to a flat state: the inverse of :func:`nest`."""
    state: State = {}
    for name, value in tree.items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        else:
            state |= flatten(value, f"{prefix}{name}.")
    return state
