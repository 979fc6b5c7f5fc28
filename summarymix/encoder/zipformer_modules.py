"""The parts of a layer of the zip-style encoder. What each is for, and its sizes and ranges, are those of the Zipformer
(arXiv 2310.11230) and of icefall's measurements. Balancers and whiteners have the limits that icefall's code gives;
:class:`Balancer` says in what shares of positive values differ.

Each begins with a small output, so that a new layer does little, and ScaledAdam gives its scale a speed of its own.
"""

import torch
from torch import Tensor, nn

from summarymix.blocks.attention import past_frames, remember_frames
from summarymix.blocks.convolution import ChunkConvolution
from summarymix.blocks.mixing import SeenMean
from summarymix.blocks.pieces import in_pieces
from summarymix.blocks.regularizers import Balancer, Whiten, limit_value
from summarymix.blocks.scheduled import Schedulable, Scheduled
from summarymix.blocks.swoosh import swoosh_l, swoosh_r
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class Bypass(nn.Module):
    """x₀ + c ⊙ (x - x₀): how much of what modules have made of x₀ is kept, learnt for each channel.

    At first c may not fall below 0.9, so that all modules have to learn something; the limit falls to 0.2. With
    ``skip_rate`` the modules are left out altogether for some utterances: stochastic depth.

    Args:
        dim: D.
        skip_rate: share of utterances, in training.
    """

    def __init__(self, dim: int, skip_rate: Schedulable = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))
        self.scale_min = Scheduled((0, 0.9), (20000, 0.2))
        self.skip_rate = skip_rate

    def forward(self, original: Tensor, x: Tensor) -> Tensor:
        """Both (N, T, D), as is the result."""
        scale = limit_value(self.scale, float(self.scale_min), 1.0, self.training)
        skip_rate = float(self.skip_rate)
        if self.training and skip_rate > 0:
            scale = scale * keep_mask(x, skip_rate)
        return original + (x - original) * scale


def keep_mask(x: Tensor, skip_rate: float) -> Tensor:
    """(N, 1, 1) of ones, and of zeros for the share ``skip_rate`` of the utterances of x (N, …)."""
    return (torch.rand(x.size(0), 1, 1, device=x.device) >= skip_rate).to(x.dtype)


class UtteranceDropout(nn.Module):
    """Dropout of whole channels of an utterance: the mask is the same in all its frames.

    Args:
        rate: in training; a number, or scheduled.
    """

    def __init__(self, rate: Schedulable) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D)."""
        rate = float(self.rate)
        if not self.training or rate == 0:
            return x
        mask = torch.rand(x.size(0), 1, x.size(2), device=x.device) >= rate  # (N, 1, D)
        return x * (mask / (1 - rate)).to(x.dtype)


class ZipFeedForward(nn.Module):
    """Expansion, SwooshL, contraction, frame by frame.

    Args:
        dim: D.
        hidden_dim: inner width.
        dropout: of the inner features.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: Schedulable) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.balancer = Balancer(hidden_dim, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0)
        self.dropout = UtteranceDropout(dropout)
        self.contract = scale_initial_weights(nn.Linear(hidden_dim, dim), 0.1)
        self.whiten = Whiten(whitening_limit(7.5))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """x (N, T, D) to (N, T, D)."""
        return in_pieces(lambda x: self.forward_piece(x, grid.mask), x)

    def forward_piece(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`forward` of one piece. The mask has all frames: training uses it, and has one piece."""
        inner = self.balancer(self.expand(x), mask)
        return self.whiten(self.contract(self.dropout(swoosh_l(inner))), mask)


class GatedMean(nn.Module):
    """Base of the two below: W (y_t ⊙ mean of (v_u ⊙ tanh s_u) over the frames u seen by t).

    Args:
        dim: D.
        hidden_dim: P, width of y, v and s.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 3 * hidden_dim)  # s, v and y
        # Well before tanh saturates, a small s learns nothing: icefall saw good models begin at an absolute value of 3.
        self.balancer = Balancer(
            hidden_dim,
            min_positive=Scheduled((0, 0.25), (20000, 0.05)),
            max_positive=Scheduled((0, 0.75), (20000, 0.95)),
            min_abs=0.5,
            max_abs=5.0,
        )
        self.value_whiten = Whiten(whitening_limit(5.0))
        self.out = scale_initial_weights(nn.Linear(hidden_dim, dim), 0.05)
        self.whiten = Whiten(whitening_limit(5.0, 3.0))

    def values_and_gate(self, x: Tensor, grid: ChunkGrid) -> tuple[Tensor, Tensor]:
        """v ⊙ tanh s and y of x (N, T, D), (N, T, P) each."""
        scale, values, gate = self.project(x).chunk(3, dim=-1)
        return self.value_whiten(values, grid.mask) * self.balancer(scale, grid.mask).tanh(), gate

    def project_out(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """The last map: (N, T, P) to (N, T, D)."""
        return self.whiten(self.out(x), grid.mask)


class GatedSummary(GatedMean):
    """In place of the Zipformer's non-linear attention: a mean in which all frames count alike, so that it is the same
    in a whole chunk; the gate y_t makes it the frame's own. Where SummaryMixing adds its summary to what a frame is,
    this multiplies the two.

    Args:
        dim: D.
        hidden_dim: P, width of y, v and s.
        decay_seconds: of the mean, see :class:`SeenMean`.
    """

    def __init__(self, dim: int, hidden_dim: int, decay_seconds: float | None) -> None:
        super().__init__(dim, hidden_dim)
        self.mean = SeenMean(hidden_dim, decay_seconds)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state of the mean before the first chunk."""
        return self.mean.init_state(batch_size, chunk, self.out.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state that follows."""
        values, gate = self.values_and_gate(x, grid)
        mean, state = self.mean(values, grid, state)  # (N, K, P)
        gated = grid.chunked(gate) * mean.to(gate.dtype)[:, :, None]  # (N, K, C, P)
        return self.project_out(gated.flatten(1, 2), grid), state


class GatedAttention(GatedMean):
    """The Zipformer's non-linear attention: a mean with attention weights, those of the first head."""

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Values of the last L chunks: see :func:`past_frames`."""
        return {"value": past_frames(batch_size, chunk, self.out.weight, self.out.in_features)}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State, weights: Tensor) -> tuple[Tensor, State]:
        """x (N, T, D) and weights (N, H, T, S) to (N, T, D), and the state that follows."""
        values, gate = self.values_and_gate(x, grid)
        seen, kept = remember_frames(grid, state["value"], grid.zero_padding(values))  # (N, S, P)
        return self.project_out(weights[:, 0] @ seen.to(x.dtype) * gate, grid), {"value": kept}


class ZipConvolution(nn.Module):
    """Gated linear unit, convolution on the chunk grid, SwooshR, projection.

    Args:
        dim: D.
        kernel_size: taps, odd.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        # In first layers icefall saw gates of 50 to 100, which pass all or nothing and learn no more.
        self.gate_balancer = Balancer(
            dim,
            min_positive=Scheduled((0, 0.05), (8000, 0.025)),
            max_positive=1.0,
            min_abs=1.5,
            max_abs=Scheduled((0, 5.0), (8000, 10.0)),
        )
        self.depthwise = ChunkConvolution(dim, kernel_size)
        self.balancer = Balancer(
            dim,
            min_positive=Scheduled((0, 0.1), (8000, 0.05)),
            max_positive=1.0,
            min_abs=Scheduled((0, 0.2), (20000, 0.5)),
            max_abs=10.0,
        )
        self.inner_whiten = Whiten(whitening_limit(7.5))
        self.out = scale_initial_weights(nn.Linear(dim, dim), 0.05)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state of the convolution before the first chunk."""
        return self.depthwise.init_state(batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """x (N, T, D) to (N, T, D), and the state that follows."""
        x = in_pieces(lambda x: self.gated_input(x, grid.mask), x)
        x, state = self.depthwise(x, grid, state)
        return in_pieces(lambda x: self.project_out(x, grid.mask), x), state

    def gated_input(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The gated linear unit, frame by frame: (N, T, D)."""
        x, gate = self.expand(x).chunk(2, dim=-1)
        return x * self.gate_balancer(gate, mask).sigmoid()

    def project_out(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """SwooshR and the projection, frame by frame: (N, T, D)."""
        return self.out(swoosh_r(self.inner_whiten(self.balancer(x, mask), mask)))


def whitening_limit(limit: float, ratio: float = 2.0) -> Scheduled:
    """The limit of a whitener, which grows to ``ratio`` times as much: strictest at the beginning."""
    return Scheduled((0, limit), (20000, ratio * limit))


def scale_initial_weights(linear: nn.Linear, scale: float) -> nn.Linear:
    """The layer with its initial weights times ``scale``, and a bias that is small beside what they give."""
    with torch.no_grad():
        linear.weight *= scale
        nn.init.uniform_(linear.bias, -0.1 * scale, 0.1 * scale)
    return linear
