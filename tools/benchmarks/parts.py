"""Parts of a model and their timed steps."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.workers import LeftOut
from summarymix.blocks.mixing import make_mixer
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.cli import parse_config
from summarymix.configs import what_became_of
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer, View, make_encoder
from summarymix.training.config import TrainConfig
from summarymix.training.optim import make_optimizer
from summarymix.training.precision import autocast

VOCAB_SIZE = 500  # for configurations that take it from the token table
TOKENS_PER_SECOND = 5  # of transcripts, about as in LibriSpeech
PARTS = ("mixer", "encoder", "model")
Compute = Callable[[Any], Tensor]  # input to output or loss


def add_config_option(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        action="append",
        required=required,
        metavar="FILE",
        help="YAML files of a model; repeatable",
    )


def read_configs(groups: list[list[Path]]) -> dict[str, TrainConfig]:
    """Read configurations by name: ``conformer + attention``, or their paths if the name is taken.

    Raises:
        ValueError: a configuration is given twice.
    """
    configs: dict[str, TrainConfig] = {}
    for paths in groups:
        options = [option for path in paths for option in ("--config", str(path))]
        config = parse_config(TrainConfig, options, what_became_of=what_became_of)
        size = config.model.vocab_size or VOCAB_SIZE
        config.model = replace(config.model, vocab_size=size)
        name = " + ".join(path.stem for path in paths)
        if name in configs:
            name = " + ".join(map(str, paths))
        if name in configs:
            raise ValueError(f"--config {name} is given twice")
        configs[name] = config
    return configs


def make_step(
    config: TrainConfig,
    part: str,
    training: bool,
    seconds: float,
    batch: int,
    chunk: ChunkConfig,
    device_name: str,
    precision: str,
) -> Callable[[], None]:
    """Make a function that takes one step on ``seconds`` of audio, after a warm-up on one second.

    Raises:
        LeftOut: the configuration does not have the part.
    """
    torch.manual_seed(0)
    device = torch.device(device_name)
    prepare = {"mixer": prepare_mixer, "encoder": prepare_encoder, "model": prepare_model}[part]
    try:
        module, make_input, compute = prepare(config, batch, chunk, device)
    except ValueError as error:
        raise LeftOut(str(error)) from error
    module.to(device).train(training)
    optimizer = make_optimizer(module, config.optim) if part == "model" else None

    def step(given: Any) -> None:
        module.zero_grad()
        with torch.set_grad_enabled(training), autocast(device, precision):  # type: ignore[arg-type]
            out = compute(given)
        if training:
            # The loss of an output is its mean square.
            (out if out.dim() == 0 else out.float().square().mean()).backward()
        if optimizer is not None:
            optimizer.step()

    step(make_input(1.0))
    module.zero_grad()
    given = make_input(seconds)
    return lambda: step(given)


def prepare_mixer(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """Mixer of a layer, a function from seconds to its input, and its computation."""
    model = config.model
    if model.encoder != "conformer":
        raise ValueError(f"the mixer alone is that of a Conformer; measure a {model.encoder} with --parts encoder")
    sizes = model.conformer
    mixer = make_mixer(model.mixing, sizes.dim, sizes.summary_dim, sizes.num_heads, model.dropout)

    def make_input(seconds: float) -> tuple[Tensor, Tensor, int]:
        num_frames = output_lengths(feature_frames(seconds))
        lengths = torch.full((batch,), num_frames)
        padded = ChunkGrid(lengths, num_frames, chunk).num_frames
        return torch.randn(batch, padded, sizes.dim, device=device), lengths, num_frames

    def compute(given: tuple[Tensor, Tensor, int]) -> Tensor:
        # Making the grid is part of the work: attention derives its mask from it.
        x, lengths, num_frames = given
        grid = ChunkGrid(lengths, num_frames, chunk, device=device)
        start = ChunkConfig(grid.chunk_size, min(chunk.left_chunks, 0))  # no frames come before
        return mixer(x, grid, mixer.init_state(batch, start))[0]

    return mixer, make_input, compute


def prepare_encoder(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """Encoder, a function from seconds to its input, and its computation."""
    encoder = make_encoder(config.model)
    encoder.check_chunk(chunk)

    def make_input(seconds: float) -> tuple[Tensor, Tensor]:
        return random_features(batch, seconds, config.model.feature_dim, device)

    return encoder, make_input, lambda given: encoder(*given, chunk)[0]


def prepare_model(
    config: TrainConfig, batch: int, chunk: ChunkConfig, device: torch.device
) -> tuple[nn.Module, Callable[[float], Any], Compute]:
    """Transducer, a function from seconds to its input, and the computation of its losses."""
    model = Transducer(config.model)
    model.encoder.check_chunk(chunk)

    def make_input(seconds: float) -> tuple[Tensor, Tensor, list[list[int]]]:
        tokens = torch.randint(2, config.model.vocab_size, (batch, round(TOKENS_PER_SECOND * seconds)))
        return *random_features(batch, seconds, config.model.feature_dim, device), tokens.tolist()

    def compute(given: tuple[Tensor, Tensor, list[list[int]]]) -> Tensor:
        features, lengths, tokens = given
        scales = config.scales
        losses = model([View(features, chunk)] * scales.num_views(), lengths, tokens, config.loss)
        total = scales.simple * losses.simple + scales.pruned * losses.pruned + scales.ctc * losses.ctc
        return ((total + scales.consistency * losses.consistency) / losses.num_frames.to(device)).mean()

    return model, make_input, compute


def random_features(batch: int, seconds: float, feature_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random features (N, T, F) and, on the CPU as in training, their lengths (N,)."""
    frames = feature_frames(seconds)
    return torch.randn(batch, frames, feature_dim, device=device), torch.full((batch,), frames)


def feature_frames(seconds: float) -> int:
    """Number of feature frames in ``seconds`` of audio."""
    return round(100 * seconds)


def make_product(device: str, precision: str) -> Callable[[], None]:
    """Make a step that multiplies two square matrices, as a measure of the machine's best rate."""
    size = product_size(device)
    a, b = torch.randn(2, size, size, device=device)

    def step() -> None:
        with torch.inference_mode(), autocast(torch.device(device), precision):  # type: ignore[arg-type]
            torch.matmul(a, b)

    return step


def product_size(device: str) -> int:
    """Number of rows of these matrices, enough to keep the device busy."""
    return 1024 if torch.device(device).type == "cpu" else 8192
