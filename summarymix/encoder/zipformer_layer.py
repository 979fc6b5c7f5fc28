"""A layer of the zip-style encoder."""

from torch import Tensor, nn

from summarymix.blocks.attention import AttentionValues, AttentionWeights
from summarymix.blocks.bias_norm import BiasNorm
from summarymix.blocks.mixing import MixingConfig, SummaryMixing, make_summary_mixing
from summarymix.blocks.regularizers import Balancer, Whiten
from summarymix.blocks.scheduled import Scheduled
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.encoder.zipformer_modules import (
    Bypass,
    GatedAttention,
    GatedSummary,
    ZipConvolution,
    ZipFeedForward,
    keep_mask,
    scale_initial_weights,
    whitening_limit,
)
from summarymix.state import StateTree, init_parts

WARMUP = 4000  # batches over which layers come into use, one after the other
QUERY_DIM, VALUE_DIM = 32, 12  # per attention head, as in icefall's Zipformers


class ZipformerLayer(nn.Module):
    """Layer of the zip-style encoder (arXiv 2310.11230, figure 2).

    Feed-forward, gated summary, mixing, convolution, feed-forward; bypass; mixing, convolution, feed-forward; BiasNorm;
    bypass.

    Args:
        dim: D.
        feedforward_dim: inner width of the second feed-forward module; the first has 3/4 of it, the third 5/4.
        kernel_size: taps of the convolutions.
        summary_dim: summary width of the mixing modules.
        num_heads: attention heads, in mode attention: three modules share one set of weights.
        mixing: mixing of frames. The local control has no gated summary, which would be zero.
        dropout: rate in the feed-forward modules, which begin with three times as much, and on the attention weights.
        depth: relative depth of the layer, from 0 to 1; deeper layers come into use later.
    """

    def __init__(
        self,
        dim: int,
        feedforward_dim: int,
        kernel_size: int,
        summary_dim: int,
        num_heads: int,
        mixing: MixingConfig,
        dropout: float,
        depth: float,
    ) -> None:
        super().__init__()
        scheduled_dropout = Scheduled((0, 3 * dropout), (20000, dropout))
        self.feedforward1 = ZipFeedForward(dim, 3 * feedforward_dim // 4, scheduled_dropout)
        self.attention: AttentionWeights | None = None
        self.gated: GatedSummary | GatedAttention | None = None
        self.mixing1: SummaryMixing | AttentionValues
        self.mixing2: SummaryMixing | AttentionValues
        if mixing.mode == "attention":
            self.attention = AttentionWeights(dim, num_heads, QUERY_DIM, dropout)
            self.gated = GatedAttention(dim, 3 * dim // 4)
            self.mixing1, self.mixing2 = (AttentionValues(dim, num_heads, VALUE_DIM) for _ in range(2))
        else:
            if mixing.mode != "local":
                self.gated = GatedSummary(dim, 3 * dim // 4, mixing.decay_seconds)
            self.mixing1, self.mixing2 = (make_summary_mixing(mixing, dim, summary_dim) for _ in range(2))
        for module in (self.mixing1, self.mixing2):
            scale_initial_weights(module.out, 0.05)
        self.convolution1 = ZipConvolution(dim, kernel_size)
        self.feedforward2 = ZipFeedForward(dim, feedforward_dim, scheduled_dropout)
        self.middle_bypass = Bypass(dim)
        self.convolution2 = ZipConvolution(dim, kernel_size)
        self.feedforward3 = ZipFeedForward(dim, 5 * feedforward_dim // 4, scheduled_dropout)
        self.norm = BiasNorm(dim)
        begin, end = WARMUP * depth, WARMUP * (depth + 0.25)
        self.bypass = Bypass(dim, skip_rate=Scheduled((begin, 0.5), (end, 0.05)))

        # At first modules are skipped for some utterances, so that none dominates before the others have learnt.
        self.mixing_skip_rate = Scheduled((0, 0.2), (4000, 0.05), (16000, 0.0))
        self.feedforward_skip_rate = Scheduled((0, 0.1), (4000, 0.01), (50000, 0.0))
        # Outputs that stay too small or grow too large are rare, so slow correction suffices.
        self.gated_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.004), (4000, 0.02)), max_abs=100.0)
        self.feedforward2_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.0), (4000, 0.1)), max_abs=2.0)
        self.feedforward3_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.0), (4000, 0.2)), max_abs=4.0)
        self.mixing_whiten1 = Whiten(whitening_limit(7.5))
        self.mixing_whiten2 = Whiten(whitening_limit(7.5))
        self.norm_balancer = Balancer(dim, min_positive=0.45, max_positive=0.55, min_abs=0.2, max_abs=4.0)
        self.out_balancer = Balancer(dim, min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0)
        self.out_whiten = Whiten(whitening_limit(4.0, 3.0))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        """Initial states of the modules that look beyond their frame."""
        names = ("attention", "gated", "mixing1", "convolution1", "mixing2", "convolution2")
        parts = [(name, part) for name in names if (part := getattr(self, name)) is not None]
        return init_parts(parts, batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: StateTree) -> tuple[Tensor, StateTree]:
        """Encode a run of K whole chunks x (N, K·C, D), which follow the chunks in ``state``."""
        mask, original, following = grid.mask, x, StateTree()
        weights: tuple[Tensor, ...] = ()
        if self.attention is not None:
            attention, following["attention"] = self.attention(x, grid, state["attention"])
            weights = (attention,)  # (N, H, T, S)
        x = x + self.feedforward1(x, grid)
        if self.gated is not None:
            gated, following["gated"] = self.gated(x, grid, state["gated"], *weights)
            x = x + self.skip(self.gated_balancer(gated, mask), self.mixing_skip_rate)
        mixed, following["mixing1"] = self.mixing1(x, grid, state["mixing1"], *weights)
        x = x + self.skip(self.mixing_whiten1(mixed, mask), self.mixing_skip_rate)
        convolved, following["convolution1"] = self.convolution1(x, grid, state["convolution1"])
        x = x + self.skip(convolved, self.mixing_skip_rate)
        x = x + self.skip(self.feedforward2_balancer(self.feedforward2(x, grid), mask), self.feedforward_skip_rate)
        x = self.middle_bypass(original, x)

        mixed, following["mixing2"] = self.mixing2(x, grid, state["mixing2"], *weights)
        x = x + self.skip(self.mixing_whiten2(mixed, mask), self.mixing_skip_rate)
        convolved, following["convolution2"] = self.convolution2(x, grid, state["convolution2"])
        x = x + self.skip(convolved, self.mixing_skip_rate)
        x = x + self.skip(self.feedforward3_balancer(self.feedforward3(x, grid), mask), self.feedforward_skip_rate)
        x = self.bypass(original, self.norm(self.norm_balancer(x, mask)))
        return self.out_whiten(self.out_balancer(x, mask), mask), following

    def skip(self, x: Tensor, rate: Scheduled) -> Tensor:
        """In training, zero x for a random share ``rate`` of the utterances."""
        share = float(rate)
        return x * keep_mask(x, share) if self.training and share > 0 else x


def rare_balancer(dim: int, min_abs: Scheduled, max_abs: float) -> Balancer:
    """Make a balancer that acts on 5 % of the batches."""
    return Balancer(dim, min_positive=0.3, max_positive=0.7, min_abs=min_abs, max_abs=max_abs, prob=0.05)
