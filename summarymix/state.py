"""Streaming state: a flat dictionary of tensors, passed in and handed back, never kept inside a module.

Every tensor has the batch axis first: one row, or *slot*, per stream. Shapes never change while a stream runs, and
the initial state is all zeros; so streams are batched, moved and reset by plain indexing, whatever the encoder is.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig

State = dict[str, Tensor]


def select_slots(state: State, slots: Tensor) -> State:
    """The rows ``slots`` (M,) int64 of a state of N slots, as a new state of M slots."""
    return {name: tensor.index_select(0, slots) for name, tensor in state.items()}


def write_slots(state: State, slots: Tensor, part: State) -> None:
    """Write ``part``, a state of M slots, over the rows ``slots`` (M,) of ``state``, in place."""
    for name, tensor in state.items():
        tensor.index_copy_(0, slots, part[name])


def reset_slots(state: State, slots: Tensor) -> None:
    """Make the rows ``slots`` (M,) of ``state`` those of a stream that has not begun, in place."""
    for tensor in state.values():
        tensor.index_fill_(0, slots, 0)


def state_bytes(state: State) -> int:
    """Bytes that one stream's state takes."""
    return sum(tensor[0].numel() * tensor.element_size() for tensor in state.values())


def pack_state(state: State) -> Tensor:
    """A state of N slots as one tensor (N, V), for those who carry states without knowing what is in them; V numbers
    are ``state_bytes / 4`` where all are float32. A state of zeros is packed as zeros."""
    return torch.cat([tensor.flatten(1) for tensor in state.values()], dim=1)


def unpack_state(packed: Tensor, like: State) -> State:
    """The state of N slots that was packed as (N, V); ``like`` is one of the same encoder and left context.

    Raises:
        ValueError: V is not that of such a state.
    """
    widths = [tensor[0].numel() for tensor in like.values()]
    if packed.size(1) != sum(widths):
        raise ValueError(f"a packed state of {packed.size(1)} numbers a stream; this encoder's has {sum(widths)}")
    parts = packed.split(widths, dim=1)
    return {name: part.unflatten(1, tensor.shape[1:]) for (name, tensor), part in zip(like.items(), parts, strict=True)}


class PartStates:
    """A module's state while it makes a step: each part is given its own, and what follows is collected.

    Args:
        state: of the module, the parts' under their names.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.following: State = {}

    def step(self, name: str, part: Any, x: Tensor, grid: Any, *others: Any) -> Tensor:
        """``part.step(x, grid, its state, *others)``, its state being that under ``name``."""
        x, following = part.step(x, grid, take_prefix(name, self._state), *others)
        self.following |= add_prefix(name, following)
        return x


def init_parts(parts: Iterable[tuple[str, Any]], batch_size: int, chunk: ChunkConfig) -> State:
    """The state of a module before the first chunk, from its parts and their names."""
    state: State = {}
    for name, part in parts:
        state |= add_prefix(name, part.init_state(batch_size, chunk))
    return state


def add_prefix(prefix: str, state: State) -> State:
    """``state`` with every name behind ``prefix.``: how a module nests the states of its parts."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def take_prefix(prefix: str, state: State) -> State:
    """The part of ``state`` that :func:`add_prefix` put under ``prefix``."""
    start = prefix + "."
    return {name[len(start) :]: tensor for name, tensor in state.items() if name.startswith(start)}
