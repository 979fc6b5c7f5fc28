"""A layer of the zip-style encoder."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from summarymix.blocks.attention import AttentionValues, AttentionWeights
from summarymix.blocks.bias_norm import BiasNorm
from summarymix.blocks.make_mixer import MixerConfig
from summarymix.blocks.mixing import SummaryMixing
from summarymix.blocks.pieces import in_blocks
from summarymix.blocks.regularise import Balancer, Whiten
from summarymix.blocks.scheduled import Scheduled
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.encoder.zipformer_modules import (
    Bypass,
    GatedAttention,
    GatedSummary,
    ZipConvolution,
    ZipFeedForward,
    growing,
    kept,
    start_small,
)
from summarymix.state import PartStates, State, init_parts

WARMUP = 4000  # batches in which layers come into use, one after the other
QUERY_DIM, VALUE_DIM = 32, 12  # of a head of attention, as in icefall's Zipformers


class ZipformerLayer(nn.Module):
    """Feed-forward, gated summary, mixing, convolution, feed-forward; bypass; mixing, convolution, feed-forward;
    BiasNorm; bypass (arXiv 2310.11230, figure 2).

    Args:
        dim: D.
        feedforward_dim: inner width of the second feed-forward module; the first has 3/4 of it, the third 5/4.
        kernel_size: taps of the convolutions.
        summary_dim: of the mixing modules.
        num_heads: of attention, where that is what mixes: one set of weights, which the three modules share.
        mixer: how frames see each other. The local control has no gated summary, which would be zero.
        convolution: which one.
        dropout: of the feed-forward modules, and of attention's weights; three times as much at the beginning.
        depth: where the layer is among all, from 0 to 1: deeper ones come into use later.
    """

    def __init__(
        self,
        dim: int,
        feedforward_dim: int,
        kernel_size: int,
        summary_dim: int,
        num_heads: int,
        mixer: MixerConfig,
        convolution: Literal["chunk", "edge_scaled"],
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
        if mixer.mixing == "attention":
            mixer.check(mixer.mixing)
            self.attention = AttentionWeights(dim, num_heads, QUERY_DIM, dropout)
            self.gated = GatedAttention(dim, 3 * dim // 4)
            self.mixing1 = AttentionValues(dim, num_heads, VALUE_DIM)
            self.mixing2 = AttentionValues(dim, num_heads, VALUE_DIM)
            last = self.mixing1.out, self.mixing2.out
        else:
            if mixer.mixing != "local":
                self.gated = GatedSummary(dim, 3 * dim // 4, mixer.decay_seconds)
            self.mixing1 = SummaryMixing(dim, summary_dim, mixer.mixing, options=mixer)
            self.mixing2 = SummaryMixing(dim, summary_dim, mixer.mixing, options=mixer)
            last = self.mixing1.last, self.mixing2.last
        for linear in last:
            start_small(linear, 0.05)
        self.convolution1 = ZipConvolution(dim, kernel_size, convolution)
        self.feedforward2 = ZipFeedForward(dim, feedforward_dim, scheduled_dropout)
        self.middle_bypass = Bypass(dim)
        self.convolution2 = ZipConvolution(dim, kernel_size, convolution)
        self.feedforward3 = ZipFeedForward(dim, 5 * feedforward_dim // 4, scheduled_dropout)
        self.norm = BiasNorm(dim)
        begin, end = WARMUP * depth, WARMUP * (depth + 0.25)
        self.bypass = Bypass(dim, skip_rate=Scheduled((begin, 0.5), (end, 0.05)))

        # Modules are left out for some utterances at first, so that none takes over before the others have learnt.
        self.mixing_skip_rate = Scheduled((0, 0.2), (4000, 0.05), (16000, 0.0))
        self.feedforward_skip_rate = Scheduled((0, 0.1), (4000, 0.01), (50000, 0.0))
        # Rare problems, which may be mended slowly: outputs that stay too small, or grow too large.
        self.gated_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.004), (4000, 0.02)), max_abs=100.0)
        self.feedforward2_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.0), (4000, 0.1)), max_abs=2.0)
        self.feedforward3_balancer = rare_balancer(dim, min_abs=Scheduled((0, 0.0), (4000, 0.2)), max_abs=4.0)
        self.mixing_whiten1 = Whiten(growing(7.5))
        self.mixing_whiten2 = Whiten(growing(7.5))
        self.norm_balancer = Balancer(dim, min_positive=0.45, max_positive=0.55, min_abs=0.2, max_abs=4.0)
        self.out_balancer = Balancer(dim, min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0)
        self.out_whiten = Whiten(growing(4.0, 3.0))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances on the grid: (N, T, D) to (N, T, D)."""
        return self.compute(x, grid, lambda name, x, *weights: getattr(self, name)(x, grid, *weights))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The states of the modules that look beyond their frame."""
        names = ("attention", "gated", "mixing1", "convolution1", "mixing2", "convolution2")
        parts = [(name, part) for name in names if (part := getattr(self, name)) is not None]
        return init_parts(parts, batch_size, chunk)

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: (N, C, D) to (N, C, D), and the state that follows."""
        parts = PartStates(state)
        x = self.compute(x, grid, lambda name, x, *weights: parts.step(name, getattr(self, name), x, grid, *weights))
        return x, parts.following

    def compute(self, x: Tensor, grid: ChunkGrid, run: Callable[..., Tensor]) -> Tensor:
        """What :meth:`forward` and :meth:`step` do; ``run`` is how they do a module that looks beyond its frame.

        Where there are blocks there are no gradients, and the mask, which has all frames, is of no use.
        """
        mask, original = grid.mask, x
        weights = () if self.attention is None else (run("attention", x),)
        x = in_blocks(lambda x: x + self.feedforward1(x, grid), x)
        if self.gated is not None:
            x = x + self.skip(self.gated_balancer(run("gated", x, *weights), mask), self.mixing_skip_rate)
        x = x + self.skip(self.mixing_whiten1(run("mixing1", x, *weights), mask), self.mixing_skip_rate)

        def middle(x: Tensor, convolved: Tensor, original: Tensor) -> Tensor:
            x = x + self.skip(convolved, self.mixing_skip_rate)
            x = x + self.skip(self.feedforward2_balancer(self.feedforward2(x, grid), mask), self.feedforward_skip_rate)
            return self.middle_bypass(original, x)

        x = in_blocks(middle, x, run("convolution1", x), original)
        x = x + self.skip(self.mixing_whiten2(run("mixing2", x, *weights), mask), self.mixing_skip_rate)

        def last(x: Tensor, convolved: Tensor, original: Tensor) -> Tensor:
            x = x + self.skip(convolved, self.mixing_skip_rate)
            x = x + self.skip(self.feedforward3_balancer(self.feedforward3(x, grid), mask), self.feedforward_skip_rate)
            x = self.norm(self.norm_balancer(x, mask))
            x = self.bypass(original, x)
            return self.out_whiten(self.out_balancer(x, mask), mask)

        return in_blocks(last, x, run("convolution2", x), original)

    def skip(self, x: Tensor, rate: Scheduled) -> Tensor:
        """In training, zeros for a share of the utterances."""
        share = float(rate)
        return x * kept(x, share) if self.training and share > 0 else x


def rare_balancer(dim: int, min_abs: Scheduled, max_abs: float) -> Balancer:
    """A balancer that seldom acts."""
    return Balancer(dim, min_positive=0.3, max_positive=0.7, min_abs=min_abs, max_abs=max_abs, prob=0.05)
