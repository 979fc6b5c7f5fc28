"""The Conformer (arXiv 2005.08100) with SummaryMixing in place of self-attention: linear time, constant state."""

from dataclasses import dataclass

from torch import Tensor, nn

from summarymix.blocks.convolution import ConvolutionModule
from summarymix.blocks.dropout import Dropout
from summarymix.blocks.feedforward import FeedForward
from summarymix.blocks.mixing import MixingConfig, make_mixer
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.configs import check_least
from summarymix.encoder.base import Encoder
from summarymix.encoder.subsampling import ConvSubsampling
from summarymix.state import StateTree, init_parts


@dataclass
class ConformerConfig:
    """Sizes of the Conformer."""

    frontend_channels: tuple[int, int] = (64, 32)
    """Channels of the front end's two convolutions."""
    num_layers: int = 12
    """Number of layers."""
    dim: int = 256
    """Width D of the residual stream."""
    feedforward_dim: int = 1024
    """Inner width of the feed-forward modules."""
    kernel_size: int = 31
    """Taps of the chunk convolution, odd; half of them look back, half ahead inside the chunk."""
    summary_dim: int = 256
    """SummaryMixing: width of the local and of the summary branch."""
    num_heads: int = 4
    """Attention: number of heads."""

    def __post_init__(self) -> None:
        check_least(self, "model.conformer.", num_layers=0, dim=1, feedforward_dim=1, summary_dim=1, num_heads=1)


class ConformerLayer(nn.Module):
    """Conformer layer: half a feed-forward step, mixing, convolution, half a feed-forward step, LayerNorm."""

    def __init__(self, config: ConformerConfig, mixing: MixingConfig, dropout: float) -> None:
        super().__init__()
        dim = config.dim
        self.feedforward1 = FeedForward(dim, config.feedforward_dim, dropout)
        self.mixing_norm = nn.LayerNorm(dim)
        self.mixing = make_mixer(mixing, dim, config.summary_dim, config.num_heads, dropout)
        self.mixing_dropout = Dropout(dropout)
        self.convolution = ConvolutionModule(dim, config.kernel_size, dropout)
        self.feedforward2 = FeedForward(dim, config.feedforward_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        """Initial states of mixing and convolution."""
        parts = {"mixing": self.mixing, "convolution": self.convolution}
        return init_parts(parts.items(), batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: StateTree) -> tuple[Tensor, StateTree]:
        """Encode a run of K whole chunks x (N, K·C, D), which follow the chunks in ``state``."""
        x = x.add(self.feedforward1(x), alpha=0.5)
        mixed, mixing = self.mixing(self.mixing_norm(x), grid, state["mixing"])
        x = x + self.mixing_dropout(mixed)
        convolved, convolution = self.convolution(x, grid, state["convolution"])
        x = x + convolved
        x = self.norm(x.add(self.feedforward2(x), alpha=0.5))
        return x, StateTree(mixing=mixing, convolution=convolution)


class Conformer(Encoder):
    """Conformer encoder: front end and layers. It has no absolute positions, so the length is unlimited.

    Args:
        config: sizes.
        mixing: mixing of frames in each layer.
        feature_dim: F, mel bins.
        dropout: rate after each module, inside the feed-forward modules, and on the attention weights.
    """

    def __init__(self, config: ConformerConfig, mixing: MixingConfig, feature_dim: int, dropout: float) -> None:
        super().__init__(feature_dim, config.dim)
        self.subsampling = ConvSubsampling(feature_dim, config.frontend_channels, config.dim)
        self.layers = nn.ModuleList(ConformerLayer(config, mixing, dropout) for _ in range(config.num_layers))

    def init_tree(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        return StateTree(layers=init_parts(self.layers.named_children(), batch_size, chunk))

    def encode(
        self,
        features: Tensor,
        lengths: Tensor,
        num_frames: int,
        chunk: ChunkConfig,
        state: StateTree,
        all_valid: bool | None = None,
    ) -> tuple[Tensor, StateTree]:
        x = self.subsampling(features)  # (N, T', D)
        grid = ChunkGrid(lengths, num_frames, chunk, all_valid=all_valid, device=x.device)
        x = grid.spread(x)  # (N, K·C, D)
        following = StateTree()
        for name, layer in self.layers.named_children():
            x, following[name] = layer(x, grid, state["layers"][name])
        return grid.own(x), StateTree(layers=following)
