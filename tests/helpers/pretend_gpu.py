"""A pretended GPU: tensors that are computed on the CPU, and watched as if they lay on a GPU.

    with PretendGpu() as gpu:
        model.to(GPU)
        ...
    gpu.waits    # the places at which the host would have waited for the GPU

Operations on tensors of both devices raise an error, as they do on a GPU. Inside of PyTorch's functions nothing is
watched.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]

# Functions that read numbers of a tensor, or whose result has a size that depends on them.
READING = {
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__bool__,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__array__,
    Tensor.__contains__,
    Tensor.__repr__,
    Tensor.nonzero,
    Tensor.masked_select,
    Tensor.unique,
    Tensor.equal,
    Tensor.allclose,
    torch.nonzero,
    torch.masked_select,
    torch.unique,
    torch.equal,
    torch.allclose,
    torch.bincount,
}
# Functions that take tensors of both devices.
MIXING = {"copy_", "__setitem__", "data.__set__", "grad.__set__", "_has_compatible_shallow_copy_type"}


class PretendGpu(TorchFunctionMode):
    """Watches all calls of PyTorch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """The line of this project, and the function, at each wait for the GPU."""
        self._on_gpu: dict[int, Any] = {}  # storages; kept, so that their addresses stay theirs
        self._pinned: dict[int, Any] = {}

    def __enter__(self) -> "PretendGpu":
        self._patches = ExitStack()
        for kind in torch.autograd.Function.__subclasses__():
            if kind.__module__.startswith("summarymix"):
                self._patches.enter_context(mock.patch.object(kind, "backward", self._watched(kind.backward)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def _watched(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """A backward pass of this project, which PyTorch would not watch."""

        def run(*args: Any) -> Any:
            super(PretendGpu, self).__enter__()
            try:
                return backward(*args)
            finally:
                super(PretendGpu, self).__exit__(None, None, None)

        return staticmethod(run)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = resolve_name(func) or getattr(func, "__name__", str(func))
        tensors = list(_tensors((args, kwargs)))
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "torch.Tensor.device.__get__":
            return GPU if self._is_on_gpu(first) else CPU
        if name == "torch.Tensor.is_cuda.__get__":
            return self._is_on_gpu(first)
        if name in ("torch.Tensor.pin_memory", "torch.Tensor.is_pinned"):
            return self._pin(first) if name.endswith("pin_memory") else _key(first) in self._pinned
        if name in ("torch.Tensor.cpu", "torch.Tensor.to") or "device" in kwargs:
            return self._move(func, name, first, args, kwargs)

        gpu = [tensor for tensor in tensors if self._is_on_gpu(tensor)]
        in_backward = torch._C._current_graph_task_id() != -1  # there, gradients have not been watched
        if func in READING and (gpu or in_backward):
            self._wait(name)
        if func is F.ctc_loss:
            for lengths in args[2:4]:
                if self._is_on_gpu(lengths):
                    self._wait(name)
            tensors = list(args[:2])
        if func in (Tensor.__getitem__, Tensor.__setitem__) and any(map(self._selects, _tensors(args[1]))):
            self._wait(f"{name} with a mask")
        if func in (Tensor.repeat_interleave, torch.repeat_interleave) and "output_size" not in kwargs and len(gpu) > 1:
            self._wait(name)
        if gpu and not in_backward and name.removeprefix("torch.").removeprefix("Tensor.") not in MIXING:
            for tensor in tensors:
                if tensor.dim() > 0 and not self._is_on_gpu(tensor) and func is not Tensor.__getitem__:
                    raise RuntimeError(f"{name}: tensors of {GPU} and {CPU} together at {_place()}")
        result = func(*args, **kwargs)
        if gpu:
            self._mark(result)
        return result

    def _move(
        self, func: Callable[..., Any], name: str, tensor: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function that may name a device, or another tensor to take it from."""
        named = [kwargs["device"]] if kwargs.get("device") is not None else []
        named += [value for value in args if isinstance(value, torch.device) or (isinstance(value, str) and value)]
        if name == "torch.Tensor.cpu":
            named = [CPU]
        to_gpu = any(torch.device(value).type == "cuda" for value in named)
        if not named:
            to_gpu = any(map(self._is_on_gpu, args))
        args = tuple(CPU if isinstance(value, str | torch.device) else value for value in args)
        kwargs |= {"device": CPU} if "device" in kwargs else {}
        was_on_gpu = self._is_on_gpu(tensor)
        moves = tensor is not None and to_gpu != was_on_gpu
        if moves and (was_on_gpu or _key(tensor) not in self._pinned or not kwargs.get("non_blocking")):
            self._wait(f"{name} to the {'GPU' if to_gpu else 'CPU'}")
        if name == "torch.tensor" and to_gpu:
            self._wait(f"{name} on the GPU")
        result = func(*args, **kwargs)
        if moves and _key(result) == _key(tensor):
            result = result.clone()
        if to_gpu:
            self._mark(result)
        return result

    def _pin(self, tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        copy = tensor.clone()
        self._pinned[_key(copy)] = copy.untyped_storage()
        return copy

    def _selects(self, index: Tensor) -> bool:
        return index.dtype == torch.bool and self._is_on_gpu(index)

    def _is_on_gpu(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and _key(tensor) in self._on_gpu

    def _mark(self, result: Any) -> None:
        for tensor in _tensors(result):
            self._on_gpu[_key(tensor)] = tensor.untyped_storage()

    def _wait(self, name: str) -> None:
        self.waits.append(f"{_place()}: {name.removeprefix('torch.')}")


def _key(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(values: Any) -> Iterable[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _place() -> str:
    """The line of this project that is running."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "summarymix"):
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "elsewhere"
