"""One process or many: what the training loop needs to know of the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process's place among all that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the logs and checkpoints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def check_same(self, value: int, what: str) -> None:
        """Fail on all processes if they do not agree.

        Raises:
            RuntimeError: names ``what``.
        """
        if self.size == 1:
            return
        values = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        if int(values.sum()) != 0:
            raise RuntimeError(f"The {self.size} processes do not agree on {what}")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world() -> Iterator[World]:
    """Join the processes that torchrun has started (its environment variables say so), or be the only one.

    GPUs talk over nccl, CPUs over gloo. A process that fails leaves with its exception, upon which torchrun ends the
    others; nobody is left waiting.

    Raises:
        RuntimeError: more processes than GPUs on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise RuntimeError(
                f"process {local_rank} of this machine has no GPU of its own, {torch.cuda.device_count()} are visible: "
                "give torchrun a smaller --nproc-per-node"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size == 1:
        yield World(device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield World(device, dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()
