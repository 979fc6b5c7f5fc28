"""The Conformer (arXiv 2005.08100) with SummaryMixing in place of self-attention: linear time, constant state."""

from dataclasses import dataclass

from torch import Tensor, nn

from summarymix.blocks.convolution import ConvolutionModule
from summarymix.blocks.dropout import Dropout
from summarymix.blocks.feedforward import FeedForward
from summarymix.blocks.make_mixer import MixerConfig, make_mixer
from summarymix.blocks.pieces import in_blocks
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.encoder.base import Encoder
from summarymix.encoder.subsampling import ConvSubsampling
from summarymix.state import PartStates, State, init_parts


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
        self.mixing_dropout = Dropout(dropout)
        self.convolution = ConvolutionModule(dim, config.kernel_size, dropout)
        self.feedforward2 = FeedForward(dim, config.feedforward_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances on the grid: (N, T, D) to (N, T, D)."""
        x = in_blocks(self.before_mixing, x)
        x = self.mixing(x, grid, self.mixing_norm, self.after_mixing)
        return self.convolution(x, grid, self.after_convolution)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of mixing and convolution."""
        parts = {"mixing": self.mixing, "convolution": self.convolution}
        return init_parts(parts.items(), batch_size, chunk)

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: (N, C, D) to (N, C, D), and the state that follows."""
        parts = PartStates(state)
        x = self.before_mixing(x)
        x = self.after_mixing(x, parts.step("mixing", self.mixing, self.mixing_norm(x), grid))
        return self.after_convolution(x, parts.step("convolution", self.convolution, x, grid)), parts.following

    def before_mixing(self, x: Tensor) -> Tensor:
        """What comes before the mixing, frame by frame: (N, T, D)."""
        return x.add(self.feedforward1(x), alpha=0.5)

    def after_mixing(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What comes when x has been mixed, frame by frame: (N, T, D)."""
        return x + self.mixing_dropout(mixed)

    def after_convolution(self, x: Tensor, convolved: Tensor) -> Tensor:
        """What comes when x has been convolved, frame by frame: (N, T, D)."""
        x = x + convolved
        return self.norm(x.add(self.feedforward2(x), alpha=0.5))


class Conformer(Encoder):
    """Front end and layers. No positional encoding, so no limit to the length."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__(config.feature_dim, config.dim)
        self.subsampling = ConvSubsampling(config.feature_dim, config.frontend_channels, config.dim)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))

    def encode(self, features: Tensor, lengths: Tensor, num_frames: int, chunk: ChunkConfig) -> Tensor:
        """Normalised features (N, T, F) to (N, T', D), of which ``lengths`` (N,) are valid; ``num_frames`` is T'."""
        grid = ChunkGrid(lengths, num_frames, chunk)
        x = grid.pad(self.subsampling(features))  # (N, K·C, D)
        for layer in self.layers:
            x = layer(x, grid)
        return x[:, :num_frames]

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of the layers."""
        return init_parts(((f"layers.{i}", layer) for i, layer in enumerate(self.layers)), batch_size, chunk)

    def encode_chunk(
        self, features: Tensor, lengths: Tensor, num_frames: int, state: State, all_valid: bool | None
    ) -> tuple[Tensor, State]:
        """The same for one chunk, and the state that follows; ``all_valid`` as for a :class:`ChunkGrid`."""
        x = self.subsampling(features)  # (N, C, D)
        grid = ChunkGrid(lengths, num_frames, ChunkConfig(), all_valid=all_valid)
        parts = PartStates(state)
        for i, layer in enumerate(self.layers):
            x = parts.step(f"layers.{i}", layer, x, grid)
        return x, parts.following
