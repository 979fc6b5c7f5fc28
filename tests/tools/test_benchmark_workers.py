"""Processes that are measured: their memory, and what they may not do."""

import os
import time
from collections.abc import Callable

import pytest
import torch
from benchmarks.workers import Job, LeftOut, Limits, is_out_of_memory, run_in_turns

MEASURES_MEMORY = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="memory is Linux's")


def take(megabytes: int, seconds: float = 0.0, before: int = 0) -> Callable[[], int]:
    """A step that takes so much memory and time; ``before`` is what making it takes and gives back."""
    torch.ones(before * 250_000)

    def step() -> int:
        time.sleep(seconds)
        return len(torch.ones(megabytes * 250_000))  # float32: 4 bytes

    return step


def missing() -> Callable[[], None]:
    raise LeftOut("there is none")


def broken() -> Callable[[], None]:
    def step() -> None:
        raise RuntimeError("shapes do not fit")

    return step


def killed() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), 9)


@MEASURES_MEMORY
def test_each_job_has_its_own_memory_and_limits() -> None:
    jobs = {
        "small": Job(take, (40, 0.0, 500)),
        "large": Job(take, (200,)),
        "too large": Job(take, (400,)),
        "slow": Job(take, (1, 60)),
        "missing": Job(missing),
        "killed": Job(killed),
    }
    results = run_in_turns(jobs, rounds=2, limits=Limits(threads=1, max_seconds=3, max_gb=0.3))
    for name, megabytes in (("small", 40), ("large", 200)):
        assert len(results[name]["seconds"]) == 2
        shares = zip(results[name]["host_seconds"], results[name]["seconds"], strict=True)
        assert all(0 < host <= whole for host, whole in shares)
        assert results[name]["value"] == megabytes * 250_000
        assert results[name]["increment_mb"] == pytest.approx(megabytes, abs=8)
        assert results[name]["peak_mb"] > results[name]["increment_mb"]
    assert results["too large"] == {"left_out": "more than --max-gb 0.3"}
    assert results["slow"] == {"left_out": "more than --max-seconds 3"}
    assert results["missing"] == {"left_out": "there is none"}
    assert results["killed"] == {"left_out": "the system ended it, most likely for want of memory"}


def test_a_failure_is_said_and_costs_the_others_nothing() -> None:
    results = run_in_turns({"bad": Job(broken), "good": Job(take, (1,))}, rounds=1, limits=Limits(threads=1))
    assert results["bad"] == {"left_out": "it failed with RuntimeError: shapes do not fit"}
    assert results["good"]["value"] == 250_000
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
