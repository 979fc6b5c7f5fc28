"""Export of graphs to TorchScript files, which C++ (libtorch) and Python (PyTorch) load without this library."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from summarymix.export.graphs import Graph


def write_torchscript(graph: Graph, path: Path) -> None:
    """Trace a graph and save it, with its metadata as extra files in the archive, one per key."""
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns that sizes become constants; the chunk size is meant to be constant.
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(graph.module, tuple(graph.inputs.values()), check_trace=False))
        torch.jit.save(traced, path, _extra_files=graph.metadata)


def load_torchscript(path: Path) -> Callable[..., list[Tensor]]:
    """Load a TorchScript file as a function of its inputs, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(path, map_location="cpu")

    def run(*inputs: Tensor) -> list[Tensor]:
        with torch.no_grad():
            outputs = module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run
