"""Measurements in fresh processes, which take their steps in turns: a busy machine disturbs all alike, and the peak
memory of a process, which the system counts for all of its life, is that of one measurement."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from summarymix.training.usage import STATUS, peak_memory, process_memory

# Imported once, by the process from which the others are forked.
PRELOAD = ["torch", "lhotse", "jsonargparse", "matplotlib.figure", "summarymix.decoding.cli", "summarymix.training.cli"]


class LeftOut(Exception):
    """Why something has not been measured."""


class Job(NamedTuple):
    """What one process measures: ``make(*arguments)`` there gives the step to be timed."""

    make: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()


class Limits(NamedTuple):
    """Where a process computes, and what it may take; None: as much as it wants."""

    threads: int
    device: str = "cpu"
    max_seconds: float | None = None  # for a step
    max_gb: float | None = None  # beyond what it takes before the first step


def run_in_turns(jobs: dict[str, Job], rounds: int, limits: Limits) -> dict[str, dict[str, Any]]:
    """Take steps of all jobs, one of each in every round; the first round warms up.

    What fails is left out, with the reason, and the others go on: hours of measurements are not lost for one of them.

    Returns:
        For each job ``seconds`` (a list), ``value`` (what its step returned), ``peak_mb`` of its process, and
        ``increment_mb``, how much of that its steps have added; or, where they could not be taken, ``left_out``.
    """
    results: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in jobs}
    workers = {name: Worker(job, limits) for name, job in jobs.items()}
    try:
        for round_number in range(-1, rounds + 1):  # preparation, warming up, and those that count
            for name, worker in list(workers.items()):
                try:
                    if round_number < 0:
                        worker.wait_until_ready()
                        continue
                    seconds, results[name]["value"] = worker.step()
                    if round_number > 0:
                        results[name]["seconds"].append(seconds)
                except LeftOut as reason:
                    results[name] = {"left_out": str(reason)}
                    workers.pop(name).kill()
        for name, worker in workers.items():
            results[name] |= worker.memory()
    finally:
        for worker in workers.values():
            worker.kill()
    return results


class Worker:
    """A process that makes a job's step and takes it when told to.

    Args:
        job: what to do.
        limits: of the process.
    """

    def __init__(self, job: Job, limits: Limits) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._limits = limits
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job, limits), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait for the step to be made.

        Raises:
            LeftOut: it cannot be.
        """
        self._receive(None)

    def step(self) -> tuple[float, Any]:
        """Take a step: its seconds, and what it returned.

        Raises:
            LeftOut: it takes too long or too much memory.
        """
        self._pipe.send("step")
        return self._receive(self._limits.max_seconds)

    def memory(self) -> dict[str, float]:
        """``peak_mb`` and ``increment_mb``; the process ends."""
        self._pipe.send("memory")
        return self._receive(None)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _receive(self, timeout: float | None) -> Any:
        try:
            if not self._pipe.poll(timeout):
                raise LeftOut(f"more than --max-seconds {timeout:g}")
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            killed = code == -signal.SIGKILL
            reason = "the system ended it, most likely for want of memory" if killed else f"it ended with status {code}"
            raise LeftOut(reason) from None
        if isinstance(answer, LeftOut):
            raise answer
        return answer


def _work(pipe: Connection, job: Job, limits: Limits) -> None:
    """The process: makes the step, takes it when told to, and finally reports its memory."""
    torch.set_num_threads(limits.threads)
    device = torch.device(limits.device)
    try:
        step = job.make(*job.arguments)
    except (ImportError, LeftOut) as error:  # what is not there
        pipe.send(LeftOut(str(error)))
        return
    before = forget_peak(device)
    if limits.max_gb is not None:
        limit_memory(device, limits.max_gb)
    pipe.send(None)
    while pipe.recv() == "step":
        start = time.perf_counter()
        try:
            value = step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except Exception as error:
            if is_out_of_memory(error):
                pipe.send(LeftOut(f"more than --max-gb {limits.max_gb:g}" if limits.max_gb else "out of memory"))
                return
            reason = next(iter(str(error).splitlines()), "")
            pipe.send(LeftOut(f"it failed with {type(error).__name__}: {reason}"))
            raise
        pipe.send((time.perf_counter() - start, value))
    peak = peak_memory(device)
    pipe.send({"peak_mb": peak / 1e6, "increment_mb": (peak - before) / 1e6})


def forget_peak(device: torch.device) -> int:
    """Let :func:`peak_memory` begin anew, and return what is taken now, in bytes.

    Only Linux can for the CPU; elsewhere that of imports and preparation remains the least peak.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    clear = Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")
    except OSError:
        return peak_memory(device)
    return process_memory("VmRSS")


def limit_memory(device: torch.device, max_gb: float) -> None:
    """Make allocations fail that go more than ``max_gb`` beyond what is taken now. On the CPU, Linux only."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = (torch.cuda.memory_reserved(device) + max_gb * 1e9) / total
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device)
    elif STATUS.is_file():
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (process_memory("VmData") + int(max_gb * 1e9), hard))


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is for want of memory that an operation failed; torch raises plain RuntimeErrors on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "alloc" in str(error)
