"""The Conformer (arXiv 2005.08100) with SummaryMixing in place of self-attention: linear time, constant state."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.convolution import ConvolutionModule
from summarymix.feedforward import FeedForward
from summarymix.mixer import MixerConfig, make_mixer
from summarymix.state import State, add_prefix, take_prefix
from summarymix.subsampling import FEATURE_OVERLAP, ConvSubsampling, features_needed, output_lengths


@dataclass
class ConformerConfig(MixerConfig):
    """Sizes of the encoder, how its frames see each other, and

    Args:
        feature_dim: mel bins of the features.
        frontend_channels: channels of the front end's two convolutions.
        num_layers: Conformer layers.
        dim: width D of the residual stream.
        feedforward_dim: inner width of the feed-forward modules.
        kernel_size: taps of the chunk convolution, odd; half of them look back, half ahead inside the chunk.
        summary_dim: width of the local and of the summary branch; attention has none.
        num_heads: heads of attention; SummaryMixing has none.
        dropout: after each module, inside the feed-forward modules, and of attention's weights.
    """

    feature_dim: int = 80
    frontend_channels: tuple[int, int] = (64, 32)
    num_layers: int = 12
    dim: int = 256
    feedforward_dim: int = 1024
    kernel_size: int = 31
    summary_dim: int = 256
    num_heads: int = 4
    dropout: float = 0.1


class ConformerLayer(nn.Module):
    """Half a feed-forward step, mixing, convolution, half a feed-forward step, LayerNorm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.feedforward1 = FeedForward(dim, config.feedforward_dim, dropout)
        self.mixing_norm = nn.LayerNorm(dim)
        self.mixing = make_mixer(config, dim, config.summary_dim, config.num_heads, dropout)
        self.mixing_dropout = nn.Dropout(dropout)
        self.convolution = ConvolutionModule(dim, config.kernel_size, dropout)
        self.feedforward2 = FeedForward(dim, config.feedforward_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances on the grid: (N, T, D) to (N, T, D)."""
        x = x + 0.5 * self.feedforward1(x)
        x = x + self.mixing_dropout(self.mixing(self.mixing_norm(x), grid))
        x = x + self.convolution(x, grid)
        return self.norm(x + 0.5 * self.feedforward2(x))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of mixing and convolution."""
        return add_prefix("mixing", self.mixing.init_state(batch_size, chunk)) | add_prefix(
            "convolution", self.convolution.init_state(batch_size)
        )

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: (N, C, D) to (N, C, D), and the state that follows."""
        x = x + 0.5 * self.feedforward1(x)
        mixed, mixing_state = self.mixing.step(self.mixing_norm(x), grid, take_prefix("mixing", state))
        x = x + mixed
        convolved, convolution_state = self.convolution.step(x, grid, take_prefix("convolution", state))
        x = x + convolved
        x = self.norm(x + 0.5 * self.feedforward2(x))
        return x, add_prefix("mixing", mixing_state) | add_prefix("convolution", convolution_state)


class Conformer(nn.Module):
    """Front end and layers. No positional encoding, so no limit to the length.

    The same weights serve :meth:`forward` (whole utterances, any chunk grid) and :meth:`step` (chunk by chunk, with
    a state); both give the same frames up to rounding. Features are normalised here, with the mean and the standard
    deviation of each mel bin over the training data, which are part of the weights.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("feature_mean", torch.zeros(config.feature_dim))
        self.register_buffer("feature_scale", torch.ones(config.feature_dim))
        self.subsampling = ConvSubsampling(config.feature_dim, config.frontend_channels, config.dim)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))

    def set_feature_stats(self, mean: Tensor, std: Tensor) -> None:
        """Normalise features by these: mean and standard deviation of each mel bin, (F,)."""
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(1 / std.clamp(min=1e-3))

    def forward(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            features: (N, T, F) log-mel features at 100 Hz; what stands behind an utterance's end does not matter.
            lengths: (N,) int64, feature frames of each utterance. One shorter than 7 has no encoder frame.
            chunk: what each frame may see.

        Returns:
            Frames (N, T', D) at 25 Hz, T' = ((T-1)//2 - 1)//2 and at least 1, and their numbers (N,).
        """
        missing = features_needed(1) - features.size(1)
        if missing > 0:
            features = torch.nn.functional.pad(features, (0, 0, 0, missing))
        x = self.embed(features)  # (N, T', D)
        num_frames = x.size(1)
        grid = ChunkGrid(output_lengths(lengths), num_frames, chunk)
        x = grid.pad(x)
        for layer in self.layers:
            x = layer(x, grid)
        return x[:, :num_frames], grid.lengths

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state before the first chunk, all zeros, batch first; its shapes hold the left context of ``chunk``.

        Raises:
            ValueError: attention with unlimited left context, which has no state of fixed size.
        """
        state: State = {}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, ConformerLayer)
            state |= add_prefix(f"layers.{i}", layer.init_state(batch_size, chunk))
        return state

    def step(self, features: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Encode the next chunk of each stream.

        Args:
            features: (N, 4·C + 3, F); the next call's features begin 4·C frames later. C may change between calls,
                but not with attention.
            state: that of the chunks before.
            lengths: (N,) int64, valid encoder frames of this chunk; fewer than C in a stream's last chunk only.
                None: C.

        Returns:
            Frames (N, C, D), and the state that follows.

        Raises:
            ValueError: the number of features makes no whole chunk, or with attention a chunk of another size.
        """
        num_frames = output_lengths(features.size(1))
        if num_frames < 1 or features.size(1) != features_needed(num_frames):
            raise ValueError(f"a chunk of C frames takes 4·C + {FEATURE_OVERLAP} features, not {features.size(1)}")
        if lengths is None:
            lengths = torch.full((features.size(0),), num_frames, device=features.device)
        x = self.embed(features)  # (N, C, D)
        grid = ChunkGrid(lengths, num_frames, ChunkConfig())
        new_state: State = {}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, ConformerLayer)
            x, layer_state = layer.step(x, grid, take_prefix(f"layers.{i}", state))
            new_state |= add_prefix(f"layers.{i}", layer_state)
        return x, new_state

    def embed(self, features: Tensor) -> Tensor:
        """Features (N, T, F) to the first layer's input (N, T', D)."""
        return self.subsampling((features - self.feature_mean) * self.feature_scale)
