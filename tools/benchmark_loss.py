#!/usr/bin/env python3
"""Time and memory of the pruned RNN-T loss, native against k2, and of torchaudio's full loss.

    python tools/benchmark_loss.py --threads 2 --json benchmark.json

One step is what training does with the loss, forward and backward, in float32 on CPU: the smoothed loss, the
ranges, the pruning, a joiner (sum, tanh, projection), the pruned loss; or, for torchaudio, the joiner over the
whole lattice and the full loss. Every implementation has a process of its own, so that its peak memory is
known, and they take their steps in turns, so that a busy machine disturbs all alike. k2 and torchaudio are
left out where they cannot be imported.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from summarymix.files import atomic_write
from summarymix.loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss_pruned,
    rnnt_loss_smoothed,
)

IMPLEMENTATIONS = ("native", "k2", "torchaudio")


def main() -> None:
    args = parse_args()
    context = multiprocessing.get_context("spawn")
    workers: dict[str, Connection] = {}
    results: dict[str, dict] = {}
    for name in args.implementations:
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(name, args, theirs), daemon=True).start()
        theirs.close()
        missing = ours.recv()
        if missing:
            print(f"{name} is left out: {missing}")
        else:
            workers[name] = ours
            results[name] = {"seconds": []}

    for round_number in range(args.rounds + 1):
        for name, worker in workers.items():
            worker.send("step")
            seconds, results[name]["loss"] = worker.recv()
            if round_number > 0:  # the first step warms up
                results[name]["seconds"].append(seconds)
    for name, worker in workers.items():
        worker.send("peak")
        results[name].update(worker.recv())

    print_table(args, results)
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in ("json", "implementations")}
        with atomic_write(args.json) as file:
            json.dump({"torch": torch.__version__, "settings": settings, "results": results}, file, indent=2)
            file.write("\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    parser.add_argument("--frames", type=int, default=400, help="encoder frames per utterance")
    parser.add_argument("--symbols", type=int, default=60, help="symbols per utterance")
    parser.add_argument("--vocab", type=int, default=500)
    parser.add_argument("--range", type=int, default=5, help="contexts kept per frame")
    parser.add_argument("--joiner-dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each implementation")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=IMPLEMENTATIONS)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def work(name: str, args: argparse.Namespace, parent: Connection) -> None:
    """One implementation's process: takes steps when told to and finally reports its memory."""
    torch.set_num_threads(args.threads)
    try:
        step = make_step(name, args)
    except ImportError as error:
        parent.send(str(error))
        return
    before = peak_megabytes()
    parent.send("")
    while parent.recv() == "step":
        start = time.perf_counter()
        loss = step()
        parent.send((time.perf_counter() - start, loss))
    peak = peak_megabytes()
    parent.send({"peak_mb": peak, "peak_increment_mb": peak - before})


def make_step(name: str, args: argparse.Namespace) -> Callable[[], float]:
    """A function that computes loss and gradients once and returns the loss."""
    torch.manual_seed(0)
    B, T, S, V, J = args.batch, args.frames, args.symbols, args.vocab, args.joiner_dim
    am, encoder_out = torch.randn(B, T, V), torch.randn(B, T, J)
    lm, decoder_out = torch.randn(B, S + 1, V), torch.randn(B, S + 1, J)
    projection = torch.nn.Linear(J, V)
    symbols = torch.randint(1, V, (B, S))
    boundary = torch.tensor([[0, 0, S, T]] * B)
    for tensor in (am, lm, encoder_out, decoder_out):
        tensor.requires_grad_()

    if name == "torchaudio":
        from torchaudio.functional import rnnt_loss

        def loss() -> torch.Tensor:
            logits = projection(torch.tanh(encoder_out[:, :, None] + decoder_out[:, None]))
            frames, lengths = boundary[:, 3].int(), boundary[:, 2].int()
            return rnnt_loss(logits, symbols.int(), frames, lengths, blank=0, clamp=-1, reduction="sum")
    else:
        loss_backend(name)

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


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def print_table(args: argparse.Namespace, results: dict[str, dict]) -> None:
    print(
        f"B={args.batch} T={args.frames} S={args.symbols} V={args.vocab} range {args.range} "
        f"joiner {args.joiner_dim} -> {args.vocab}, {args.threads} threads, {args.rounds} rounds"
    )
    print(f"{'':12}{'median s':>10}{'least s':>10}{'peak MB':>10}{'of it step':>12}{'loss':>14}")
    for name, result in results.items():
        print(
            f"{name:12}{statistics.median(result['seconds']):10.4f}{min(result['seconds']):10.4f}"
            f"{result['peak_mb']:10.0f}{result['peak_increment_mb']:12.0f}{result['loss']:14.3f}"
        )
    if {"native", "k2"} <= results.keys():
        ratios = [a / b for a, b in zip(results["native"]["seconds"], results["k2"]["seconds"], strict=True)]
        memory = results["native"]["peak_increment_mb"] / results["k2"]["peak_increment_mb"]
        print(f"native : k2    time {statistics.median(ratios):.2f} (median of rounds), memory {memory:.2f}")


if __name__ == "__main__":
    main()
