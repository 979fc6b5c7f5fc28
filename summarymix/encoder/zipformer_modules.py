"""Modules of a layer of the zip-style encoder.

Their purposes, sizes and ranges follow the Zipformer (arXiv 2310.11230) and icefall's measurements. Balancers and
whiteners have the limits of icefall's code; :class:`Balancer` explains how the shares of positive values differ.

Each module begins with a small output, so that a new layer does little; ScaledAdam learns its scale at a separate rate.
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
    """Learnt interpolation, per channel, between the input x₀ and the output x of some modules: x₀ + c ⊙ (x - x₀).

    The lower limit of c is 0.9 at first, which forces all modules to learn, and falls to 0.2. With ``skip_rate`` the
    modules are skipped for some utterances: stochastic depth.

    Args:
        dim: D.
        skip_rate: share of utterances skipped in training.
    """

    def __init__(self, dim: int, skip_rate: Schedulable = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))
        self.scale_min = Scheduled((0, 0.9), (20000, 0.2))
        self.skip_rate = skip_rate

    def forward(self, original: Tensor, x: Tensor) -> Tensor:
        """Interpolate between ``original`` and x, both (N, T, D), to (N, T, D)."""
        scale = limit_value(self.scale, float(self.scale_min), 1.0, self.training)
        skip_rate = float(self.skip_rate)
        if self.training and skip_rate > 0:
            scale = scale * keep_mask(x, skip_rate)
        return torch.addcmul(original, x - original, scale)


def keep_mask(x: Tensor, skip_rate: float) -> Tensor:
    """Draw a mask (N, 1, 1) for x (N, …): 0 for the share ``skip_rate`` of the utterances, 1 for the others."""
    return (torch.rand(x.size(0), 1, 1, device=x.device) >= skip_rate).to(x.dtype)


class UtteranceDropout(nn.Module):
    """Dropout of whole channels of an utterance: all its frames share the mask.

    Args:
        rate: dropout rate in training, constant or scheduled.
    """

    def __init__(self, rate: Schedulable) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D)."""
        rate = float(self.rate)
        if not self.training or rate == 0:
            return x
        mask = torch.rand(x.size(0), 1, x.size(2), device=x.device) >= rate  # (N, 1, D)
        return x * (mask / (1 - rate)).to(x.dtype)


class ZipFeedForward(nn.Module):
    """Feed-forward module: expansion, SwooshL, contraction, frame by frame.

    Args:
        dim: D.
        hidden_dim: inner width.
        dropout: rate on the inner features.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: Schedulable) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.balancer = Balancer(hidden_dim, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0)
        self.dropout = UtteranceDropout(dropout)
        self.contract = scale_initial_weights(nn.Linear(hidden_dim, dim), 0.1)
        self.whiten = Whiten(whitening_limit(7.5))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Map x (N, T, D) to (N, T, D)."""
        if self.training:  # with or without gradients, all pieces of an utterance share the dropout's mask
            return self.forward_piece(x, grid.mask)
        return in_pieces(lambda x: self.forward_piece(x, None), x)

    def forward_piece(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply :meth:`forward` to one piece, or in training to all frames, with the mask of the valid ones."""
        inner = self.balancer(self.expand(x), mask)
        return self.whiten(self.contract(self.dropout(swoosh_l(inner))), mask)


class GatedMean(nn.Module):
    """Base class of gated means: W (y_t ⊙ mean of (v_u ⊙ tanh s_u) over the frames u seen by t).

    Args:
        dim: D.
        hidden_dim: P, width of y, v and s.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 3 * hidden_dim)  # s, v and y
        # icefall: absolute values of s begin at about 3 in well-trained models and are smaller in poorly trained ones.
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
        """Compute v ⊙ tanh s and y, (N, T, P) each, of x (N, T, D)."""
        scale, values, gate = self.project(x).chunk(3, dim=-1)
        return self.value_whiten(values, grid.mask) * self.balancer(scale, grid.mask).tanh(), gate

    def project_out(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Project (N, T, P) to the output (N, T, D)."""
        return self.whiten(self.out(x), grid.mask)


class GatedSummary(GatedMean):
    """Gated mean of the frames seen, in place of the Zipformer's non-linear attention.

    All frames of a chunk share the mean; the gate y_t makes the result specific to the frame. SummaryMixing adds its
    summary to the frame; this module multiplies the two.

    Args:
        dim: D.
        hidden_dim: P, width of y, v and s.
        decay_seconds: see :class:`SeenMean`.
    """

    def __init__(self, dim: int, hidden_dim: int, decay_seconds: float | None) -> None:
        super().__init__(dim, hidden_dim)
        self.mean = SeenMean(hidden_dim, decay_seconds)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Initial state of the mean."""
        return self.mean.init_state(batch_size, chunk, self.out.weight)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        values, gate = self.values_and_gate(x, grid)
        mean, state = self.mean(values, grid, state)  # (N, K, P)
        gated = grid.chunked(gate) * mean.to(gate.dtype)[:, :, None]  # (N, K, C, P)
        return self.project_out(gated.flatten(1, 2), grid), state


class GatedAttention(GatedMean):
    """The Zipformer's non-linear attention: a gated mean with the attention weights of the first head."""

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Values of the last L chunks: see :func:`past_frames`."""
        return {"value": past_frames(batch_size, chunk, self.out.weight, self.out.in_features)}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State, weights: Tensor) -> tuple[Tensor, State]:
        """Map x (N, T, D) and weights (N, H, T, S) to (N, T, D); also return the next state."""
        values, gate = self.values_and_gate(x, grid)
        seen, kept = remember_frames(grid, state["value"], grid.zero_padding(values))  # (N, S, P)
        mean = (weights[:, 0] @ seen.to(x.dtype)).view_as(gate)  # (N, T, P)
        return self.project_out(mean * gate, grid), {"value": kept}


class ZipConvolution(nn.Module):
    """Convolution module: gated linear unit, convolution on the chunk grid, SwooshR, projection.

    Args:
        dim: D.
        kernel_size: taps, odd.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        # icefall saw inputs of 50 to 100 to the gates of first layers: such gates are saturated and stop learning.
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
        """Initial state of the convolution."""
        return self.depthwise.init_state(batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        x = in_pieces(lambda x: self.gated_input(x, grid.mask), x)
        x, state = self.depthwise(x, grid, state)
        return in_pieces(lambda x: self.project_out(x, grid.mask), x), state

    def gated_input(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply the gated linear unit, frame by frame: (N, T, D) to (N, T, D)."""
        x, gate = self.expand(x).chunk(2, dim=-1)
        return x * self.gate_balancer(gate, mask).sigmoid()

    def project_out(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply SwooshR and the projection, frame by frame: (N, T, D) to (N, T, D)."""
        return self.out(swoosh_r(self.inner_whiten(self.balancer(x, mask), mask)))


def whitening_limit(limit: float, ratio: float = 2.0) -> Scheduled:
    """Schedule a whitening limit that grows to ``ratio`` times ``limit``: strictest at the beginning."""
    return Scheduled((0, limit), (20000, ratio * limit))


def scale_initial_weights(linear: nn.Linear, scale: float) -> nn.Linear:
    """Scale the initial weights of ``linear`` by ``scale`` and draw a small bias, in place; return the layer."""
    with torch.no_grad():
        linear.weight *= scale
        nn.init.uniform_(linear.bias, -0.1 * scale, 0.1 * scale)
    return linear
