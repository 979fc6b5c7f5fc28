#!/usr/bin/env python3
"""Check this library on a GPU against float64 on the CPU: tools/check_gpu.py, which tools/gpu_check.sh runs.

    python tools/check_gpu.py --config conf/conformer_small.yaml --config conf/zipformer_small.yaml conf/attention.yaml

Compared are the losses of the golden file (see tools/check_k2.py), and for each --config, with random weights and a
ragged batch: losses and gradients in float32 and in bfloat16, and the frames of streams with those of whole utterances
under chunk masks. Each comparison prints a line. The exit status is 1 if a difference exceeds its tolerance.
"""

import argparse
import copy
import sys

import torch
from benchmarks.parts import add_config_option, read_configs
from check_k2 import TOLERANCE, golden_cases, solve
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.cli import clear_errors
from summarymix.distributed import find_device
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed, output_lengths
from summarymix.loss import loss_backend
from summarymix.model import LossConfig, ModelConfig, Transducer, View
from summarymix.training.precision import Precision, autocast

SETTINGS = (ChunkConfig(), ChunkConfig(16, 4))
# Relative differences: of the summed losses, and of the gradient as one vector (norm of the difference).
LOSS_TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "bf16": 2e-3}
GRADIENT_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.05}
FRAME_TOLERANCE = 1e-4  # absolute, of encoder frames, which have about unit variance


class Checks:
    """Comparisons done so far."""

    def __init__(self) -> None:
        self.failed = 0

    def compare(self, name: str, difference: float, tolerance: float) -> None:
        """Print a comparison, and count it if the difference is too large or not a number."""
        is_good = difference <= tolerance
        self.failed += not is_good
        print(f"{'ok  ' if is_good else 'FAIL'} {name}: {difference:.1e} (tolerance {tolerance:.0e})", flush=True)


def main() -> None:
    args = parse_args()
    # Convolutions in full precision too; by default cuDNN computes them in TF32.
    torch.backends.cudnn.allow_tf32 = False
    checks = Checks()
    with clear_errors("check_gpu.py"):
        find_device(args.device)
        configs = read_configs(args.config)
        check_losses(args.device, checks)
        for name, config in configs.items():
            model = random_model(config.model)
            check_training(name, model, config.loss, args.seconds, args.device, checks)
            check_streaming(name, model, args.seconds, args.device, checks)
    if checks.failed:
        sys.exit(f"{checks.failed} comparisons failed")


def parse_args() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add_config_option(parser)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the longest utterance (8)")
    parser.add_argument("--device", default="cuda", help="cpu, cuda, cuda:1, … (cuda)")
    return parser.parse_args()


def check_losses(device: str, checks: Checks) -> None:
    """Compare the losses that ``--loss.backend native`` computes on ``device`` with the golden ones of k2."""
    differences = [
        (value - torch.from_numpy(case[name])).abs().max().double()
        for case in golden_cases().values()
        for name, value in solve(case, loss_backend("native", device), device).items()
    ]
    checks.compare(f"golden losses on {device}, largest difference", torch.stack(differences).max().item(), TOLERANCE)


def random_model(config: ModelConfig) -> Transducer:
    """Make a model with random weights, in float64, in evaluation mode: without dropout."""
    torch.manual_seed(0)
    return Transducer(config).double().eval()


def ragged_batch(model: Transducer, seconds: float) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Make features (N, T, F) float64 of three utterances, their lengths (N,), and transcripts."""
    torch.manual_seed(1)
    lengths = torch.tensor([round(100 * seconds * share) for share in (1.0, 0.83, 0.5)])
    features = torch.randn(len(lengths), int(lengths.max()), model.feature_dim, dtype=torch.float64)
    tokens = [torch.randint(2, model.config.vocab_size, (length // 20,)).tolist() for length in lengths.tolist()]
    return features, lengths, tokens


def check_training(
    name: str, model: Transducer, options: LossConfig, seconds: float, device: str, checks: Checks
) -> None:
    """Compare losses and gradients on ``device`` with those in float64 on the CPU."""
    features, lengths, tokens = ragged_batch(model, seconds)
    for chunk in SETTINGS:

        def losses_and_gradient(on: str, precision: Precision | None) -> tuple[Tensor, Tensor]:
            copied = copy.deepcopy(model).to(on)
            if precision is not None:
                copied = copied.float()
            given = features.to(on, copied.dtype)
            with autocast(torch.device(on), precision or "fp32"):
                losses = copied([View(given, chunk)], lengths, tokens, options)  # noqa: B023
            parts = torch.stack([losses.simple, losses.pruned, losses.ctc]).sum(1)  # (3,)
            parts.sum().backward()
            gradients = [p.grad.flatten() for p in copied.parameters() if p.grad is not None]
            return parts.detach().double().cpu(), torch.cat(gradients).double().cpu()

        expected, expected_gradient = losses_and_gradient("cpu", None)
        for precision in ("fp32", "bf16"):
            got, gradient = losses_and_gradient(device, precision)
            title = f"{name}, {chunk}, {precision}"
            difference = ((got - expected) / expected).abs().max().item()
            checks.compare(f"{title}, losses", difference, LOSS_TOLERANCE[precision])
            difference = ((gradient - expected_gradient).norm() / expected_gradient.norm()).item()
            checks.compare(f"{title}, gradient", difference, GRADIENT_TOLERANCE[precision])


@torch.inference_mode()
def check_streaming(name: str, model: Transducer, seconds: float, device: str, checks: Checks) -> None:
    """Compare streams on ``device`` in float32 with whole utterances under chunk masks, in float64 on the CPU."""
    chunk = SETTINGS[1]
    assert chunk.chunk_size is not None
    features, lengths, _ = ragged_batch(model, seconds)
    expected, frames = model.encoder(features, lengths, chunk)  # (N, T', D)
    encoder = copy.deepcopy(model.encoder).float().to(device)
    state = encoder.init_state(len(lengths), chunk)
    size = features_needed(chunk.chunk_size)
    padded = torch.nn.functional.pad(features, (0, 0, 0, size)).float().to(device)
    differences = []
    for start in range(0, output_lengths(features.size(1)), chunk.chunk_size):
        valid = (frames - start).clamp(0, chunk.chunk_size)
        begin = FEATURES_PER_FRAME * start
        out, state = encoder.step(padded[:, begin : begin + size], state, valid.to(device))
        wanted = expected[:, start : start + chunk.chunk_size]
        difference = (out[:, : wanted.size(1)].cpu() - wanted).abs()
        inside = torch.arange(wanted.size(1)) < valid[:, None]
        differences.append(difference[inside].max())
    checks.compare(f"{name}, {chunk}, stream, encoder frames", torch.stack(differences).max().item(), FRAME_TOLERANCE)


if __name__ == "__main__":
    main()
