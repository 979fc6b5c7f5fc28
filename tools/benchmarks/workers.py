"""Measurements in fresh processes that take steps in turns.

Turns expose all measurements to the same load on the machine. The system counts a process's peak memory over its whole
life, so each measurement needs its own process.
"""

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

# Imported once, by the fork server.
PRELOAD = ["torch", "lhotse", "jsonargparse", "matplotlib.figure", "summarymix.decoding.cli", "summarymix.training.cli"]


class LeftOut(Exception):
    """Reason for a missing measurement."""


class Job(NamedTuple):
    """Measurement of one process, in which ``make(*arguments)`` makes the step to time."""

    make: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()


class Limits(NamedTuple):
    """Device and limits of a process; None: no limit."""

    threads: int
    device: str = "cpu"
    max_seconds: float | None = None  # per step
    max_gb: float | None = None  # beyond the memory before the first step


def run_in_turns(jobs: dict[str, Job], rounds: int, limits: Limits) -> dict[str, dict[str, Any]]:
    """Take steps of all jobs, one of each in every round; the first round is a warm-up.

    A job that fails is left out with the reason, and the others go on, so that one failure does not lose hours of
    measurements.

    Returns:
        For each job ``seconds`` and ``host_seconds`` (lists; until the step is done, and until its code has returned,
        while a GPU may still compute), ``value`` (result of its last step), ``peak_mb`` of its process, and
        ``increment_mb``, the part of the peak that its steps have added; or, after a failure, ``left_out``.
    """
    results: dict[str, dict[str, Any]] = {name: {"seconds": [], "host_seconds": []} for name in jobs}
    workers = {name: Worker(job, limits) for name, job in jobs.items()}
    try:
        for round_number in range(-1, rounds + 1):  # preparation, warm-up, timed rounds
            for name, worker in list(workers.items()):
                try:
                    if round_number < 0:
                        worker.wait_until_ready()
                        continue
                    seconds, host_seconds, results[name]["value"] = worker.step()
                    if round_number > 0:
                        results[name]["seconds"].append(seconds)
                        results[name]["host_seconds"].append(host_seconds)
                except LeftOut as reason:
                    results[name] = {"left_out": str(reason)}
                    workers.pop(name).kill()
        for name, worker in workers.items():
            results[name] |= worker.memory()
    finally:
        for worker in workers.values():
            worker.kill()
    return results


def measured(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results of :func:`run_in_turns` without failures."""
    return {name: result for name, result in results.items() if "left_out" not in result}


def left_out(results: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences on the failures in results of :func:`run_in_turns`."""
    return [f"{name} is left out: {result['left_out']}" for name, result in results.items() if "left_out" in result]


class Worker:
    """A process that makes a job's step and takes it on request.

    Args:
        job: the measurement.
        limits: limits of the process.
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
            LeftOut: the step cannot be made.
        """
        self._receive(None)

    def step(self) -> tuple[float, float, Any]:
        """Take a step. Return its seconds, those of the host, and its result.

        Raises:
            LeftOut: the step fails, or takes too long or too much memory.
        """
        self._pipe.send("step")
        return self._receive(self._limits.max_seconds)

    def memory(self) -> dict[str, float]:
        """End the process, and return ``peak_mb`` and ``increment_mb``."""
        self._pipe.send("memory")
        return self._receive(None)

    def kill(self) -> None:
        """Kill the process."""
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
    """Make the step in the worker process, take it on request, and finally report the memory."""
    torch.set_num_threads(limits.threads)
    device = torch.device(limits.device)
    try:
        step = job.make(*job.arguments)
    except (ImportError, LeftOut) as error:  # a missing package or part
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
            returned = time.perf_counter()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except Exception as error:
            if is_out_of_memory(error):
                pipe.send(LeftOut(f"more than --max-gb {limits.max_gb:g}" if limits.max_gb else "out of memory"))
                return
            reason = next(iter(str(error).splitlines()), "")
            pipe.send(LeftOut(f"it failed with {type(error).__name__}: {reason}"))
            raise
        pipe.send((time.perf_counter() - start, returned - start, value))
    peak = peak_memory(device)
    pipe.send({"peak_mb": peak / 1e6, "increment_mb": (peak - before) / 1e6})


def forget_peak(device: torch.device) -> int:
    """Reset :func:`peak_memory`, and return the memory in use, in bytes.

    On the CPU this requires Linux; elsewhere the peak includes imports and preparation.
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
    """Make allocations fail above ``max_gb`` beyond the memory in use. On the CPU, Linux only."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = (torch.cuda.memory_reserved(device) + max_gb * 1e9) / total
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device)
    elif STATUS.is_file():
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (process_memory("VmData") + int(max_gb * 1e9), hard))


def is_out_of_memory(error: Exception) -> bool:
    """True if an operation ran out of memory; torch raises plain RuntimeErrors on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "alloc" in str(error)
