"""The zip-style encoder: the Zipformer's stacks at several frame rates (arXiv 2310.11230), with SummaryMixing in place
of attention, so that time is linear in the audio and a stream's state constant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import lcm
from typing import Literal

import torch
from torch import Tensor, nn

from summarymix.blocks.make_mixer import MixerConfig
from summarymix.blocks.pieces import in_blocks
from summarymix.chunking import FRAME_MS, ChunkConfig, ChunkGrid
from summarymix.encoder.base import Encoder
from summarymix.encoder.resampling import Downsample, Upsample
from summarymix.encoder.subsampling import HalfSubsampling
from summarymix.encoder.zipformer_layer import ZipformerLayer
from summarymix.encoder.zipformer_modules import Bypass
from summarymix.state import PartStates, State, init_parts

INNER = 2  # frames at 50 Hz, where the stacks begin and end, in an encoder frame


@dataclass
class ZipformerConfig:
    """Sizes of the zip-style encoder, one number for each stack; the defaults are those of icefall's Zipformer-M.

    Args:
        downsampling: frames at 50 Hz in a frame of the stack. Chunks are multiples of the largest, in time.
        num_layers: layers.
        dims: width D of the residual stream. The encoder's output has the largest of them.
        feedforward_dims: inner width of a layer's second feed-forward module; the first has 3/4 of it, the third 5/4.
        kernel_sizes: taps of the convolutions, odd.
        summary_dims: width of the local and of the summary branch of each SummaryMixing.
        num_heads: heads of attention, where that is what mixes.
        frontend_channels: channels of the front end's three convolutions.
        convolution: chunk, the dynamic chunk convolution, or edge_scaled, the one of streaming Zipformers.
        ref_duration: seconds of audio that make a batch in the schedules of bypasses and regularisers, which end after
            4000 to 50000 of them: hundreds of hours. For a small corpus make it smaller.
    """

    downsampling: tuple[int, ...] = (1, 2, 4, 8, 4, 2)
    num_layers: tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    dims: tuple[int, ...] = (192, 256, 384, 512, 384, 256)
    feedforward_dims: tuple[int, ...] = (512, 768, 1024, 1536, 1024, 768)
    kernel_sizes: tuple[int, ...] = (31, 31, 15, 15, 15, 31)
    summary_dims: tuple[int, ...] = (64, 64, 96, 128, 96, 64)
    num_heads: tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    frontend_channels: tuple[int, int, int] = (8, 32, 128)
    convolution: Literal["chunk", "edge_scaled"] = "chunk"
    ref_duration: float = 600.0

    def check(self) -> None:
        """Refuse lists of different lengths.

        Raises:
            ValueError: names them.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "frontend_channels"}
        lengths = {name: len(value) for name, value in values.items() if isinstance(value, list | tuple)}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(
                f"model.zipformer has one number for each stack, so all its lists are of one length, not {counts}"
            )


class Stack(nn.Module):
    """Layers at one frame rate. If that is lower than 50 Hz they are bypassed, with a learnt scale for each channel, by
    what they were given: the fast changes that they cannot see.

    Args:
        factor: frames at 50 Hz in a frame of the stack.
        layers: of the stack.
        dim: D.
    """

    def __init__(self, factor: int, layers: Sequence[ZipformerLayer], dim: int) -> None:
        super().__init__()
        self.factor = factor
        self.layers = nn.ModuleList(layers)
        if factor > 1:
            self.downsample = Downsample(factor)
            self.upsample = Upsample(dim, factor)
            self.bypass = Bypass(dim)

    def forward(self, x: Tensor, grids: dict[int, ChunkGrid]) -> Tensor:
        """Whole utterances at 50 Hz, (N, T, D) to (N, T, D). ``grids`` has the one of each factor."""
        return self.compute(x, grids, lambda i, x, grid: self.layers[i](x, grid))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of the layers; ``chunk`` is in encoder frames."""
        chunk = at_rate(chunk, self.factor)
        return init_parts(((f"layers.{i}", layer) for i, layer in enumerate(self.layers)), batch_size, chunk)

    def step(self, x: Tensor, grids: dict[int, ChunkGrid], state: State) -> tuple[Tensor, State]:
        """One chunk at 50 Hz, (N, C, D) to (N, C, D), and the state that follows."""
        parts = PartStates(state)
        x = self.compute(x, grids, lambda i, x, grid: parts.step(f"layers.{i}", self.layers[i], x, grid))
        return x, parts.following

    def compute(
        self, x: Tensor, grids: dict[int, ChunkGrid], run: Callable[[int, Tensor, ChunkGrid], Tensor]
    ) -> Tensor:
        """What :meth:`forward` and :meth:`step` do; ``run`` is how they do a layer."""
        original = x
        if self.factor > 1:
            x = self.downsample(x, grids[1])
        for i in range(len(self.layers)):
            x = run(i, x, grids[self.factor])
        if self.factor == 1:
            return x
        return in_blocks(lambda original, x: self.bypass(original, self.upsample(x)), original, x, stride=self.factor)


class Zipformer(Encoder):
    """Front end at 50 Hz, stacks, and a last step to 25 Hz.

    Args:
        config: sizes.
        mixer: how frames see each other.
        feature_dim: mel bins.
        dropout: of the feed-forward modules, and of attention's weights; three times as much at the beginning.
    """

    def __init__(self, config: ZipformerConfig, mixer: MixerConfig, feature_dim: int, dropout: float) -> None:
        config.check()
        slowest = lcm(INNER, *config.downsampling)  # frames at 50 Hz of which every rate has whole ones
        super().__init__(feature_dim, max(config.dims), chunk_multiple=slowest // INNER)
        self.dims = config.dims
        self.factors = sorted({1, *config.downsampling})
        self.subsampling = HalfSubsampling(feature_dim, config.frontend_channels, config.dims[0])
        self.stacks = nn.ModuleList()
        done, total = 0, sum(config.num_layers)
        for i, (factor, num_layers, dim) in enumerate(
            zip(config.downsampling, config.num_layers, config.dims, strict=True)
        ):
            layers = [
                ZipformerLayer(
                    dim=dim,
                    feedforward_dim=config.feedforward_dims[i],
                    kernel_size=config.kernel_sizes[i],
                    summary_dim=config.summary_dims[i],
                    num_heads=config.num_heads[i],
                    mixer=mixer,
                    convolution=config.convolution,
                    dropout=dropout,
                    depth=(done + j) / total,
                )
                for j in range(num_layers)
            ]
            self.stacks.append(Stack(factor, layers, dim))
            done += num_layers
        self.out = Downsample(INNER)

    def encode(self, features: Tensor, lengths: Tensor, num_frames: int, chunk: ChunkConfig) -> Tensor:
        """Normalised features (N, T, F) to (N, T', D), of which ``lengths`` (N,) are valid; ``num_frames`` is T'."""
        grids = self.make_grids(lengths, num_frames, chunk)
        x = self.embed(features, grids)  # (N, T50, D0)
        x = self.compute(x, grids, lambda i, x: self.stacks[i](x, grids))
        return x[:, :num_frames]

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of the stacks."""
        self.check_chunk(chunk)
        return init_parts(((f"stacks.{i}", stack) for i, stack in enumerate(self.stacks)), batch_size, chunk)

    def encode_chunk(
        self, features: Tensor, lengths: Tensor, num_frames: int, state: State, all_valid: bool | None
    ) -> tuple[Tensor, State]:
        """The same for one chunk, and the state that follows; ``all_valid`` as for a :class:`ChunkGrid`."""
        grids = self.make_grids(lengths, num_frames, ChunkConfig(), all_valid)
        parts = PartStates(state)
        x = self.embed(features, grids)  # (N, 2·C, D0)
        x = self.compute(x, grids, lambda i, x: parts.step(f"stacks.{i}", self.stacks[i], x, grids))
        return x, parts.following

    def embed(self, features: Tensor, grids: dict[int, ChunkGrid]) -> Tensor:
        """The front end: (N, T, F) to (N, T50, D0), zeros behind the last pair of frames."""
        x = self.subsampling(features)  # (N, (T-3)//2, D0)
        return grids[1].pad(x[:, : grids[1].num_frames])

    def compute(self, x: Tensor, grids: dict[int, ChunkGrid], run: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The stacks and the last step: (N, T50, D0) to (N, T50/2, D). ``run`` is how a stack is done.

        A stack of another width takes the first channels of the one before, or finds zeros behind them. The output has
        each channel from the last stack that has it.
        """
        outputs: list[Tensor] = []
        for i, dim in enumerate(self.dims):
            x = run(i, resize(x, dim))
            outputs.append(x)
        width, parts = 0, []
        for output in reversed(outputs):
            if output.size(-1) > width:
                parts.append(output[..., width:])
                width = output.size(-1)
        return self.out(torch.cat(parts, dim=-1), grids[1])

    def make_grids(
        self, lengths: Tensor, num_frames: int, chunk: ChunkConfig, all_valid: bool | None = None
    ) -> dict[int, ChunkGrid]:
        """The grid of each frame rate, by its factor. All begin at 0, and all have the same chunks.

        A frame of a slow stack is valid if one of its frames at 50 Hz is. ``lengths`` (N,) and ``num_frames`` are in
        encoder frames.
        """
        total = INNER * self.chunk_multiple * -(-max(num_frames, 1) // self.chunk_multiple)  # frames at 50 Hz
        return {
            factor: ChunkGrid(
                -(-INNER * lengths // factor),
                total // factor,
                at_rate(chunk, factor),
                frame_ms=FRAME_MS // INNER * factor,
                all_valid=all_valid,
            )
            for factor in self.factors
        }


def at_rate(chunk: ChunkConfig, factor: int) -> ChunkConfig:
    """A chunk of encoder frames, in frames of which each has ``factor`` at 50 Hz."""
    size = chunk.chunk_size
    return ChunkConfig(None if size is None else INNER * size // factor, chunk.left_chunks)


def resize(x: Tensor, dim: int) -> Tensor:
    """(…, D) to (…, dim): the first channels, or zeros behind them."""
    missing = dim - x.size(-1)
    return torch.nn.functional.pad(x, (0, missing)) if missing > 0 else x[..., :dim]
