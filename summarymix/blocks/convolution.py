"""Convolutions on the chunk grid and the Conformer's convolution module around one (arXiv 2304.09325, 2005.08100)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from summarymix.blocks.dropout import Dropout
from summarymix.blocks.pieces import as_it_is, in_blocks, the_result
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class PastAndChunk(nn.Module):
    """A depthwise convolution in two parts: taps into the past, over the whole sequence, and taps inside the chunk.

    The past is always visible, whatever the left context; the state is the last ``reach`` inputs.
    """

    reach: int
    weight: Tensor  # (D, …)

    def past(self, x: Tensor) -> Tensor:
        """The causal part: x (N, h + T, D), of which h = ``reach`` frames come before, to (N, T, D)."""
        raise NotImplementedError

    def inside(self, chunks: Tensor, counts: Tensor | None) -> Tensor:
        """The part inside each chunk: (N, K, C, D) to (N, K, C, D).

        Args:
            chunks: the inputs, zero where there is padding.
            counts: (N, K, 1), valid frames of each chunk, which are its first ones; None: all.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, grid: ChunkGrid, after: Callable[..., Tensor] = as_it_is, *beside: Tensor) -> Tensor:
        """Whole utterances: x (N, T, D) to (N, T, D'), with what comes ``after`` the convolution, frame by frame: a
        function of convolved frames and of the same frames of what is ``beside``, (N, T, …) each."""
        return self.convolve(grid.zero_padding(x), grid, after, *beside, zeros=self.reach)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The last h inputs, (N, h, D), zeros at first; the same for every chunk."""
        return {"cache": self.weight.new_zeros(batch_size, self.reach, self.weight.size(0))}

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) to (N, C, D), and the state that follows."""
        x = grid.zero_padding(x)
        extended = torch.cat([state["cache"].to(x.dtype), x], dim=1)  # (N, h+C, D)
        new_state = {"cache": extended[:, -self.reach :].to(state["cache"].dtype)}
        return self.convolve(extended, grid, as_it_is), new_state

    def convolve(
        self, x: Tensor, grid: ChunkGrid, after: Callable[..., Tensor], *beside: Tensor, zeros: int = 0
    ) -> Tensor:
        """Both parts, and what comes after: x (N, h + T, D), zero where there is padding, to (N, T, D'). Of its h
        frames from before, the first ``zeros`` are zero and left out."""

        def compute(x: Tensor, counts: Tensor, *beside: Tensor) -> Tensor:
            chunks = x[:, self.reach :].unflatten(1, (counts.size(1), grid.chunk_size))  # (N, K, C, D)
            convolved = self.past(x) + self.inside(chunks, None if grid.all_valid else counts).flatten(1, 2)
            return after(convolved, *beside)

        padding = zeros, 0
        return in_blocks(compute, x, grid.counts, *beside, stride=grid.chunk_size, overlap=self.reach, padding=padding)


class ChunkConvolution(PastAndChunk):
    """A depthwise convolution centred on t that never looks into a later chunk (arXiv 2304.09325):

        y_t = b + Σ_{j=-h..h} w_j u_{t+j} · [t+j is a valid frame and chunk(t+j) ≤ chunk(t)],   h = (k-1)/2.

    The kernel is applied in two parts, so that no input frame is convolved twice: its past taps causally over the
    whole sequence, its future taps inside each chunk.

    Args:
        channels: D.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.reach = check_kernel(kernel_size) // 2
        bound = kernel_size**-0.5
        self.weight = nn.Parameter(torch.empty(channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, grid: ChunkGrid, after: Callable[..., Tensor] = as_it_is, *beside: Tensor) -> Tensor:
        """The same; one chunk is convolved in one part."""
        if grid.num_chunks > 1:
            return super().forward(x, grid, after, *beside)

        def compute(x: Tensor, *beside: Tensor) -> Tensor:
            return after(depthwise(x, self.weight, self.bias, 0), *beside)

        padding = self.reach, self.reach
        return in_blocks(compute, grid.zero_padding(x), *beside, overlap=2 * self.reach, padding=padding)

    def past(self, x: Tensor) -> Tensor:
        """Taps -h … 0."""
        return depthwise(x, self.weight[:, : self.reach + 1], self.bias, 0)

    def inside(self, chunks: Tensor, counts: Tensor | None) -> Tensor:
        """Taps 1 … h."""
        ahead = F.pad(chunks, (0, 0, -1, self.reach))  # (N, K, C-1+h, D): frame i is frame i + 1
        return depthwise(ahead.flatten(0, 1), self.weight[:, self.reach + 1 :], None, 0).unflatten(0, chunks.shape[:2])


class EdgeScaledConvolution(PastAndChunk):
    """The chunk-causal convolution of streaming Zipformers (arXiv 2310.11230; icefall):

        y_t = b + Σ_{j=-h..0} v_j u_{t+j} + (1 + l_i + r_m) · (c + Σ_{j=-h..h} w_j u_{t+j} · [t+j in the chunk of t]).

    A causal kernel v sees the past, a centred one w the chunk only, and where that is cut off at the chunk's edges
    learnt scales make up for it: l_i for frame i of the chunk, r_m for the one that m frames follow, both zero from k
    on. A chunk ends with its last valid frame, so an utterance does not depend on what it is padded to. Beside
    :class:`ChunkConvolution` it has some 3.5 times the parameters and 1.5 times the products.

    Args:
        channels: D.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.reach = check_kernel(kernel_size) // 2
        bound = kernel_size**-0.5
        self.past_weight = nn.Parameter(torch.empty(channels, self.reach + 1).uniform_(-bound, bound))
        self.past_bias = nn.Parameter(torch.zeros(channels))
        self.weight = nn.Parameter(torch.empty(channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.left_edge = nn.Parameter(torch.zeros(kernel_size, channels))
        self.right_edge = nn.Parameter(torch.zeros(kernel_size, channels))

    def past(self, x: Tensor) -> Tensor:
        """The kernel v."""
        return depthwise(x, self.past_weight, self.past_bias, 0)

    def inside(self, chunks: Tensor, counts: Tensor | None) -> Tensor:
        """The kernel w, and its scales."""
        y = depthwise(chunks.flatten(0, 1), self.weight, self.bias, self.reach).unflatten(0, chunks.shape[:2])
        place = torch.arange(chunks.size(2), device=chunks.device)  # (C,)
        behind = place.flip(0) if counts is None else (counts.to(place.dtype) - 1 - place).clamp(min=0)  # (…, C)
        return y * (1 + edge(self.left_edge, place) + edge(self.right_edge, behind))


def edge(scales: Tensor, distance: Tensor) -> Tensor:
    """Scales (k, D) at distances (…) from an edge, zero from k on: (…, D)."""
    return F.pad(scales, (0, 0, 0, 1))[distance.clamp(max=scales.size(0))]


def check_kernel(size: int) -> int:
    """The size of a kernel that can be centred.

    Raises:
        ValueError: it cannot.
    """
    if size % 2 == 0 or size < 3:
        raise ValueError(f"the kernel is centred, so its size is odd and at least 3, not {size}")
    return size


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Correlate each channel of x (N, T, D) with its row of ``weight`` (D, k): (N, T + 2·padding - k + 1, D).

    It is written as a 2-d convolution of height 1 in channels-last layout, which is the layout that x has already:
    no transposition, and on CPU some 20 times faster than conv1d.
    """
    if x.device.type == "cpu" and weight.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Depthwise.apply(x, weight, bias, padding)
        return out
    return _correlate(x, weight, bias, padding)


def _correlate(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    image = x.transpose(1, 2).unsqueeze(2)  # (N, D, 1, T), strides of channels-last
    out = F.conv2d(image, weight[:, None, None], bias, padding=(0, padding), groups=weight.size(0))
    return out.squeeze(2).transpose(1, 2)


class _Depthwise(torch.autograd.Function):
    """The same with another backward pass: torch's takes some 50 times the forward pass for the kernel's gradient on
    CPU, k sums of products some 10 times."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding  # type: ignore[attr-defined]
        return _correlate(x, weight, bias, padding)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, _, needs_bias, _ = ctx.needs_input_grad
        size, num_frames = weight.size(1), grad.size(1)
        grad_x = _correlate(grad, weight.flip(1), None, size - 1 - ctx.padding) if needs_x else None
        padded = F.pad(x, (0, 0, ctx.padding, ctx.padding))
        products = [(padded[:, j : j + num_frames] * grad).sum((0, 1)) for j in range(size)]  # k of (D,)
        return grad_x, torch.stack(products, dim=1), grad.sum((0, 1)) if needs_bias else None, None


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, chunk convolution, LayerNorm, Swish, pointwise: the Conformer's convolution module, which has a
    LayerNorm for its BatchNorm, so that a frame's output depends on no other utterance."""

    def __init__(self, dim: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = ChunkConvolution(dim, kernel_size)
        self.middle_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, grid: ChunkGrid, after: Callable[[Tensor, Tensor], Tensor] = the_result) -> Tensor:
        """x (N, T, D) to (N, T, D), with what comes ``after`` the module, frame by frame: a function of frames of x and
        of what the module has made of them."""
        return self.depthwise(in_blocks(self.before, x), grid, lambda y, x: after(x, self.after(y)), x)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """That of the chunk convolution."""
        return self.depthwise.init_state(batch_size, chunk)

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: (N, C, D) to (N, C, D), and the state that follows."""
        x, state = self.depthwise.step(self.before(x), grid, state)
        return self.after(x), state

    def before(self, x: Tensor) -> Tensor:
        """What comes before the depthwise convolution, frame by frame: (N, T, D)."""
        return F.glu(self.expand(self.norm(x)), dim=-1)

    def after(self, x: Tensor) -> Tensor:
        """What comes after it, frame by frame: (N, T, D)."""
        return self.dropout(self.out(F.silu(self.middle_norm(x))))
