"""Time and memory of the pruned RNN-T loss, native and k2, and of torchaudio's full loss.

    python tools/benchmark.py loss --threads 2 --json benchmark/loss.json

A step is the loss computation of training, forward and backward, in float32: smoothed loss, ranges, pruning, joiner
(sum, tanh, projection), pruned loss; for torchaudio, the joiner over the whole lattice and the full loss. Each
implementation runs in its own process, which gives its peak memory. They take steps in turns, so that other load on the
machine affects all of them. k2 and torchaudio are left out if they cannot be imported.
"""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.record import Run, Table, add_machine_options, panels
from benchmarks.workers import Job, Limits, left_out, measured, run_in_turns
from summarymix.cli import above_zero
from summarymix.loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss_pruned,
    rnnt_loss_smoothed,
)

IMPLEMENTATIONS = ("native", "k2", "torchaudio")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--batch", type=above_zero(int), default=8, help="utterances per batch (8)")
    parser.add_argument("--frames", type=above_zero(int), default=400, help="encoder frames per utterance (400)")
    parser.add_argument("--symbols", type=above_zero(int), default=60, help="symbols per utterance (60)")
    parser.add_argument("--vocab", type=above_zero(int), default=500, help="vocabulary size (500)")
    parser.add_argument("--range", type=above_zero(int), default=5, help="contexts kept per frame (5)")
    parser.add_argument("--joiner-dim", type=above_zero(int), default=512, help="width of the joiner (512)")
    parser.add_argument("--rounds", type=above_zero(int), default=20, help="timed steps of each implementation (20)")
    parser.add_argument("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=IMPLEMENTATIONS, help="(all)")
    add_machine_options(parser, precision=False)


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure each implementation."""
    jobs = {name: Job(make_step, (name, args)) for name in args.implementations}
    return run_in_turns(jobs, args.rounds, Limits(args.threads, args.device))


def make_step(name: str, args: argparse.Namespace) -> Callable[[], float]:
    """Make a function that computes loss and gradients once, and returns the loss."""
    torch.manual_seed(0)
    B, T, S, V, J = args.batch, args.frames, args.symbols, args.vocab, args.joiner_dim
    device = torch.device(args.device)
    am, encoder_out = torch.randn(B, T, V), torch.randn(B, T, J)
    lm, decoder_out = torch.randn(B, S + 1, V), torch.randn(B, S + 1, J)
    projection = torch.nn.Linear(J, V).to(device)
    symbols = torch.randint(1, V, (B, S)).to(device)
    boundary = torch.tensor([[0, 0, S, T]] * B, device=device)
    am, encoder_out, lm, decoder_out = (x.to(device).requires_grad_() for x in (am, encoder_out, lm, decoder_out))

    if name == "torchaudio":
        from torchaudio.functional import rnnt_loss

        def loss() -> torch.Tensor:
            logits = projection(torch.tanh(encoder_out[:, :, None] + decoder_out[:, None]))
            frames, lengths = boundary[:, 3].int(), boundary[:, 2].int()
            return rnnt_loss(logits, symbols.int(), frames, lengths, blank=0, clamp=-1, reduction="sum")
    else:
        loss_backend(name, device)

        def loss() -> torch.Tensor:
            smoothed, (px_grad, py_grad) = rnnt_loss_smoothed(
                lm, am, symbols, 0, 0.25, 0.0, boundary, reduction="sum", return_grad=True, backend=name
            )
            if name == "k2":
                from k2 import do_rnnt_pruning as prune
                from k2 import get_rnnt_prune_ranges as get_ranges
            else:
                prune, get_ranges = do_rnnt_pruning, get_rnnt_prune_ranges
            ranges = get_ranges(px_grad, py_grad, boundary, args.range)
            encoder_pruned, decoder_pruned = prune(encoder_out, decoder_out, ranges)
            logits = projection(torch.tanh(encoder_pruned + decoder_pruned))
            pruned = rnnt_loss_pruned(logits, symbols, ranges, 0, boundary, reduction="sum", backend=name)
            return 0.5 * smoothed + pruned

    def step() -> float:
        for tensor in (am, lm, encoder_out, decoder_out, *projection.parameters()):
            tensor.grad = None
        result = loss()
        result.backward()
        return result.item()

    return step


def tables(run: Run) -> list[Table]:
    """Table of time and memory, with the ratio native : k2."""
    settings, results = run["settings"], run["results"]
    title = (
        f"Loss: B={settings['batch']} T={settings['frames']} S={settings['symbols']} V={settings['vocab']} "
        f"range {settings['range']} joiner {settings['joiner_dim']} -> {settings['vocab']}, {settings['rounds']} rounds"
    )
    done = measured(results)
    rows = [
        [
            name,
            f"{median(result['seconds']):.4f}",
            f"{min(result['seconds']):.4f}",
            f"{result['peak_mb']:.0f}",
            f"{result['increment_mb']:.0f}",
            f"{result['value']:.3f}",
        ]
        for name, result in done.items()
    ]
    notes = left_out(results)
    if {"native", "k2"} <= done.keys():
        native, k2 = done["native"], done["k2"]
        ratios = [a / b for a, b in zip(native["seconds"], k2["seconds"], strict=True)]
        memory = native["increment_mb"] / k2["increment_mb"]
        notes.append(f"native : k2: time {median(ratios):.2f} (median of rounds), memory {memory:.2f}")
    return [Table(title, ["", "median s", "least s", "peak MB", "of it step", "loss"], rows, notes)]


def plots(run: Run) -> dict[str, Figure]:
    """Bar plots of time and memory."""
    done = measured(run["results"])
    figure, (time, memory) = panels(2, "Pruned RNN-T loss and full loss, forward and backward")
    time.bar(list(done), [median(result["seconds"]) for result in done.values()])
    time.set_ylabel("seconds")
    memory.bar(list(done), [result["increment_mb"] for result in done.values()])
    memory.set_ylabel("peak memory of a step, MB")
    return {"time-memory": figure}
