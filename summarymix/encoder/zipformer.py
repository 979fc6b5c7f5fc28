"""The zip-style encoder: the Zipformer's stacks at several frame rates (arXiv 2310.11230), with SummaryMixing in place
of attention, so that time is linear in the audio and the streaming state constant."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import lcm

import torch
from torch import Tensor, nn

from summarymix.blocks.mixing import MixingConfig
from summarymix.chunking import FRAME_MS, ChunkConfig, ChunkGrid
from summarymix.encoder.base import Encoder
from summarymix.encoder.resampling import Downsample, Upsample
from summarymix.encoder.subsampling import HalfSubsampling
from summarymix.encoder.zipformer_layer import ZipformerLayer
from summarymix.encoder.zipformer_modules import Bypass
from summarymix.state import StateTree, init_parts

FRAMES_50HZ = 2  # per encoder frame; the stacks begin and end at 50 Hz


@dataclass
class ZipformerConfig:
    """Sizes of the zip-style encoder, one number for each stack. The defaults are icefall's Zipformer-M."""

    downsampling: tuple[int, ...] = (1, 2, 4, 8, 4, 2)
    """Frames at 50 Hz per frame of the stack. Chunk durations are multiples of the slowest stack's frame."""
    num_layers: tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    """Number of layers."""
    dims: tuple[int, ...] = (192, 256, 384, 512, 384, 256)
    """Width D of the residual stream. The encoder's output has the largest width."""
    feedforward_dims: tuple[int, ...] = (512, 768, 1024, 1536, 1024, 768)
    """Inner width of a layer's second feed-forward module; the first has 3/4 of it, the third 5/4."""
    kernel_sizes: tuple[int, ...] = (31, 31, 15, 15, 15, 31)
    """Taps of the convolutions, odd."""
    summary_dims: tuple[int, ...] = (64, 64, 96, 128, 96, 64)
    """SummaryMixing: width of the local and of the summary branch of each module."""
    num_heads: tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    """Attention: number of heads."""
    frontend_channels: tuple[int, int, int] = (8, 32, 128)
    """Channels of the front end's three convolutions."""
    ref_duration: float = 600.0
    """Seconds of audio per batch in the schedules of bypasses and regularisers, which end after 4000 to 50000 batches:
    700 to 8000 hours. Reduce it for a small corpus."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "frontend_channels"}
        lengths = {name: len(value) for name, value in values.items() if isinstance(value, list | tuple)}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(
                f"the lists of model.zipformer have different lengths ({counts}): give one number per stack in each"
            )
        for name, value in values.items():
            if not min(value if isinstance(value, list | tuple) else [value], default=1) > 0:
                raise ValueError(f"--model.zipformer.{name} {value} must be above 0")


class Stack(nn.Module):
    """Layers at one frame rate.

    Below 50 Hz a bypass with a learnt scale per channel carries fast changes of the input, which the layers cannot see.

    Args:
        factor: frames at 50 Hz per frame of the stack.
        layers: layers of the stack.
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

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        """Initial states of the layers; ``chunk`` is in encoder frames."""
        chunk = at_rate(chunk, self.factor)
        return StateTree(layers=init_parts(self.layers.named_children(), batch_size, chunk))

    def forward(self, x: Tensor, grids: dict[int, ChunkGrid], state: StateTree) -> tuple[Tensor, StateTree]:
        """Encode a run at 50 Hz: x (N, T, D) to (N, T, D). ``grids`` maps each factor to its grid."""
        original, following = x, StateTree()
        if self.factor > 1:
            x = self.downsample(x, grids[1])
        for name, layer in self.layers.named_children():
            x, following[name] = layer(x, grids[self.factor], state["layers"][name])
        if self.factor > 1:
            x = self.bypass(original, self.upsample(x))
        return x, StateTree(layers=following)


class Zipformer(Encoder):
    """Zip-style encoder: front end to 50 Hz, stacks, and downsampling to 25 Hz.

    Args:
        config: sizes.
        mixing: mixing of frames in each layer.
        feature_dim: F, mel bins.
        dropout: rate in the feed-forward modules, which begin with three times as much, and on the attention weights.
    """

    def __init__(self, config: ZipformerConfig, mixing: MixingConfig, feature_dim: int, dropout: float) -> None:
        slowest = lcm(FRAMES_50HZ, *config.downsampling)  # frames at 50 Hz that make whole frames at every rate
        super().__init__(feature_dim, max(config.dims), chunk_multiple=slowest // FRAMES_50HZ)
        self.dims = config.dims
        self.factors = sorted({1, FRAMES_50HZ, *config.downsampling})
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
                    mixing=mixing,
                    dropout=dropout,
                    depth=(done + j) / total,
                )
                for j in range(num_layers)
            ]
            self.stacks.append(Stack(factor, layers, dim))
            done += num_layers
        self.out = Downsample(FRAMES_50HZ)

    def init_tree(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        return StateTree(stacks=init_parts(self.stacks.named_children(), batch_size, chunk))

    def encode(
        self,
        features: Tensor,
        lengths: Tensor,
        num_frames: int,
        chunk: ChunkConfig,
        state: StateTree,
        all_valid: bool | None = None,
    ) -> tuple[Tensor, StateTree]:
        grids = self.make_grids(lengths, num_frames, chunk, all_valid, features.device)
        x = self.subsampling(features)  # (N, (T-3)//2, D0)
        x = grids[1].spread(x)  # (N, T50, D0)
        outputs, following = [], StateTree()
        for (name, stack), dim in zip(self.stacks.named_children(), self.dims, strict=True):
            x, following[name] = stack(resize(x, dim), grids, state["stacks"][name])
            outputs.append(x)
        out = self.out(last_channels(outputs), grids[1])  # (N, T50/2, D)
        return grids[FRAMES_50HZ].own(out), StateTree(stacks=following)

    def make_grids(
        self,
        lengths: Tensor,
        num_frames: int,
        chunk: ChunkConfig,
        all_valid: bool | None = None,
        device: torch.device | None = None,
    ) -> dict[int, ChunkGrid]:
        """Make the grid of each frame rate, by its factor. All begin at frame 0 and have the same chunks.

        A frame of a slow stack is valid if it has a valid frame at 50 Hz. ``lengths`` (N,) and ``num_frames`` are in
        encoder frames.
        """
        total = FRAMES_50HZ * self.chunk_multiple * -(-max(num_frames, 1) // self.chunk_multiple)  # frames at 50 Hz
        return {
            factor: ChunkGrid(
                -(-FRAMES_50HZ * lengths // factor),
                total // factor,
                at_rate(chunk, factor),
                frame_ms=FRAME_MS // FRAMES_50HZ * factor,
                all_valid=all_valid,
                device=device,
            )
            for factor in self.factors
        }


def at_rate(chunk: ChunkConfig, factor: int) -> ChunkConfig:
    """Convert a chunk from encoder frames to frames of a stack with ``factor`` frames at 50 Hz each."""
    size = None if chunk.chunk_size is None else FRAMES_50HZ * chunk.chunk_size // factor
    return ChunkConfig(size, chunk.left_chunks, FRAMES_50HZ * chunk.lookahead // factor)


def resize(x: Tensor, dim: int) -> Tensor:
    """Map (…, D) to (…, dim): keep the first channels, or append zeros."""
    missing = dim - x.size(-1)
    return torch.nn.functional.pad(x, (0, missing)) if missing > 0 else x[..., :dim]


def last_channels(outputs: Sequence[Tensor]) -> Tensor:
    """Take each channel from the last stack that has it: stack outputs (N, T, D_i) to (N, T, max D_i)."""
    width, parts = 0, []
    for output in reversed(outputs):
        if output.size(-1) > width:
            parts.append(output[..., width:])
            width = output.size(-1)
    return torch.cat(parts, dim=-1)
