"""The processes of torchrun, which train one model or decode one split together."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class World:
    """This process, and the number of processes that work together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True if this process writes the files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all processes, in place, and return them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: ValueT) -> list[ValueT]:
        """Return the values of all processes, in the order of their ranks, on the main process; elsewhere nothing."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values or []

    def check_same(self, value: int, what: str) -> None:
        """Check on all processes that ``value`` is the same.

        Raises:
            ValueError: the values differ; the message names ``what``.
        """
        if self.size == 1:
            return
        values = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        if int(values.sum()) != 0:
            raise ValueError(f"The {self.size} processes do not agree on {what}")

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def find_device(name: str | None = None) -> torch.device:
    """Find a device of this machine.

    Args:
        name: cpu, cuda, cuda:1, …; None for a GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    gpus = torch.cuda.device_count()
    try:
        device = torch.device(name or ("cuda" if gpus else "cpu"))
    except RuntimeError:
        raise ValueError(f"--device {name} is unknown: use cpu, cuda, or for the second GPU cuda:1, …") from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        others = " or one of them" if gpus else ""
        raise ValueError(f"--device {name}: PyTorch {torch.__version__} sees {gpus} GPUs: use --device cpu{others}")
    return device


@contextmanager
def join_world(device_name: str | None = None) -> Iterator[World]:
    """Join the processes of torchrun, as given by its environment variables, or run as the only process.

    GPUs communicate over nccl, CPUs over gloo. A process that fails exits with its exception; torchrun then ends the
    others, so that none is left waiting.

    Args:
        device_name: cpu, cuda or, for a single process, cuda:1, …; None for a GPU if there is one.

    Raises:
        ValueError: there is no such device, this machine has more processes than GPUs, or several processes were given
            one GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = find_device(device_name)
    if size > 1 and device.index is not None:
        raise ValueError(
            f"{size} processes cannot share {device}: leave the number out, so that each has a GPU of its own"
        )
    if device.type == "cuda" and device.index is None:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"Process {local_rank} of this machine has no GPU ({torch.cuda.device_count()} visible): "
                "give torchrun a smaller --nproc-per-node, or decode.py --device cpu"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device)
        return
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(_agree_on_name(store, rank, size), store)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    yield World(device, rank, size)
    dist.destroy_process_group()


def _agree_on_name(store: dist.Store, rank: int, size: int) -> str:
    """Agree on a name that differs from restart to restart.

    ``torchrun --max-restarts`` starts all processes again with the store of the first start, in which they would find
    the addresses of killed processes (pytorch#135712). The number of restarts cannot be the name, because machines
    count differently. So each process draws a number and reads the numbers of all, until all have read the same ones.
    """
    store.set(f"drawn/{rank}", uuid.uuid4().hex)
    while True:
        drawn = store.multi_get([f"drawn/{other}" for other in range(size)])  # waits until all have drawn
        name = hashlib.sha256(b"".join(drawn)).hexdigest()
        store.set(f"read/{rank}", name)
        if set(store.multi_get([f"read/{other}" for other in range(size)])) == {name.encode()}:
            return name
        time.sleep(0.01)  # a number from before the restart was read
