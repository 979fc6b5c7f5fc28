"""Time of the depthwise convolution in the forms that devices take: 2-d in channels-last layout, and 1-d.

    python tools/benchmark.py depthwise --device cuda --precision bf16

A step is the forward and backward pass of the past taps of a layer. The forms take steps in turns.
"""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.record import Run, Table, add_machine_options, panels
from benchmarks.workers import Job, Limits, left_out, measured, run_in_turns
from summarymix.blocks.convolution import correlate_image, correlate_rows, depthwise
from summarymix.cli import above_zero
from summarymix.training.precision import autocast

FORMS = {"chosen for the device": depthwise, "2-d, channels last": correlate_image, "1-d": correlate_rows}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--batch", type=above_zero(int), default=30, help="utterances per batch (30)")
    parser.add_argument("--frames", type=above_zero(int), default=500, help="encoder frames per utterance (500)")
    parser.add_argument("--dim", type=above_zero(int), default=512, help="channels (512)")
    parser.add_argument("--taps", type=above_zero(int), default=16, help="past taps, with the present one (16)")
    parser.add_argument("--rounds", type=above_zero(int), default=20, help="timed steps of each form (20)")
    add_machine_options(parser)


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure each form."""
    jobs = {name: Job(make_step, (name, args)) for name in FORMS}
    return run_in_turns(jobs, args.rounds, Limits(args.threads, args.device))


def make_step(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """Make a function that computes the convolution and its gradients once."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    shapes = (args.batch, args.frames, args.dim), (args.dim, args.taps), (args.dim,)
    inputs = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]

    def step() -> None:
        with autocast(device, args.precision):
            out = FORMS[name](*inputs)
        torch.autograd.grad(out.float().sum(), inputs)

    return step


def tables(run: Run) -> list[Table]:
    """Table of times."""
    settings = run["settings"]
    title = (
        f"Depthwise convolution: N={settings['batch']} T={settings['frames']} D={settings['dim']}, "
        f"{settings['taps']} taps, {settings['precision']}, {settings['rounds']} rounds"
    )
    rows = [
        [name, f"{1000 * median(result['seconds']):.2f}", f"{1000 * min(result['seconds']):.2f}"]
        for name, result in measured(run["results"]).items()
    ]
    return [Table(title, ["", "median ms", "least ms"], rows, left_out(run["results"]))]


def plots(run: Run) -> dict[str, Figure]:
    """Bar plot of times."""
    figure, (time,) = panels(1, "Depthwise convolution, forward and backward")
    results = measured(run["results"])
    time.bar(list(results), [median(result["seconds"]) for result in results.values()])
    time.set_ylabel("seconds")
    return {"time": figure}
