"""Convolution on the chunk grid, and the Conformer's convolution module around it (arXiv 2304.09325, 2005.08100)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from summarymix.blocks.dropout import Dropout
from summarymix.blocks.pieces import in_pieces
from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.state import State


class ChunkConvolution(nn.Module):
    """A depthwise convolution centred on t that never looks into a later chunk (arXiv 2304.09325):

        y_t = b + Σ_{j=-h..h} w_j u_{t+j} · [t+j is a valid frame and chunk(t+j) ≤ chunk(t)],   h = (k-1)/2.

    The past is always visible, whatever the left context. The kernel is applied in two parts, so that each input frame
    is convolved once: the past taps causally over the whole run, the future taps inside each chunk.

    Args:
        channels: D.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(f"kernel_size {kernel_size} of a centred convolution must be odd and at least 3")
        self.reach = kernel_size // 2
        bound = kernel_size**-0.5
        self.weight = nn.Parameter(torch.empty(channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Cache of the last h inputs (N, h, D), initially zeros in float32 or wider, whatever the chunk."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        return {"cache": self.weight.new_zeros(batch_size, self.reach, self.weight.size(0), dtype=dtype)}

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        x = grid.zero_padding(x)
        if grid.config.lookahead > 0:
            return self._with_lookahead(x, grid, state)
        cache = state["cache"]
        is_one = grid.num_chunks == 1  # one chunk is padded with zeros and convolved in one part
        behind = x.new_zeros(x.size(0), self.reach if is_one else 0, x.size(2))
        row = torch.cat([cache.to(x.dtype), x, behind], dim=1)  # (N, h + T, D) or (N, h + T + h, D)
        # A copy: a slice would keep the whole row in memory.
        following = {"cache": row[:, x.size(1) : x.size(1) + self.reach].to(cache.dtype, copy=True)}
        if is_one:
            return depthwise(row, self.weight, self.bias), following
        past = depthwise(row, self.weight[:, : self.reach + 1], self.bias)  # (N, T, D)
        ahead = F.pad(grid.chunked(x), (0, 0, -1, self.reach))  # (N, K, C-1+h, D): index i is frame i + 1
        future = depthwise(ahead.flatten(0, 1), self.weight[:, self.reach + 1 :], None)  # (N·K, C, D)
        return past + future.view_as(past), following

    def _with_lookahead(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Convolve each chunk with its look-ahead; the past of both are own frames of earlier chunks."""
        cache, num_chunks = state["cache"], grid.num_chunks
        row = torch.cat([cache.to(x.dtype), grid.own(x)], dim=1)  # (N, h + K·own_size, D)
        past = row.unfold(1, self.reach, grid.own_size)[:, :num_chunks].mT  # (N, K, h, D)
        window = F.pad(torch.cat([past, grid.chunked(x)], dim=2), (0, 0, 0, self.reach))  # (N, K, h + C + h, D)
        y = depthwise(window.flatten(0, 1), self.weight, self.bias)  # (N·K, C, D)
        following = row[:, row.size(1) - self.reach :].to(cache.dtype, copy=True)
        return y.view_as(x), {"cache": following}


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Correlate each channel of x (N, T, D) with its row of ``weight`` (D, k): (N, T - k + 1, D)."""
    if x.device.type != "cpu":
        return correlate_rows(x, weight, bias)
    if weight.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Depthwise.apply(x, weight, bias)
        return out
    return correlate_image(x, weight, bias)


def correlate_image(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
    """Compute :func:`depthwise` as a 2-d convolution of height 1 in channels-last layout, which x already has.

    There is no transposition, and on CPU it is about 20 times faster than conv1d. On CUDA PyTorch would pass this
    layout to cuDNN, whose depthwise kernels are for float16 and up to five taps.
    """
    image = x.transpose(1, 2).unsqueeze(2)  # (N, D, 1, T), strides of channels-last
    out = F.conv2d(image, weight[:, None, None], bias, padding=(0, padding), groups=weight.size(0))
    return out.squeeze(2).transpose(1, 2)


def correlate_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute :func:`depthwise` as a 1-d convolution: on CUDA PyTorch's own depthwise kernel, between two copies.

    Other toolkits' Conformers take this path; ``tools/benchmark.py depthwise`` compares both.
    """
    out = F.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=weight.size(0))  # (N, D, T - k + 1)
    return out.transpose(1, 2).contiguous()


class _Depthwise(torch.autograd.Function):
    """:func:`correlate_image` with a custom backward pass: on CPU torch's gradient of the kernel costs about 50 forward
    passes, k dot products about 10."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return correlate_image(x, weight, bias)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, _, needs_bias = ctx.needs_input_grad
        size, num_frames = weight.size(1), grad.size(1)
        grad_x = correlate_image(grad, weight.flip(1), None, size - 1) if needs_x else None
        products = [(x[:, j : j + num_frames] * grad).sum((0, 1)) for j in range(size)]  # k times (D,)
        return grad_x, torch.stack(products, dim=1), grad.sum((0, 1)) if needs_bias else None


class ConvolutionModule(nn.Module):
    """The Conformer's convolution module: pointwise, GLU, chunk convolution, LayerNorm, Swish, pointwise.

    LayerNorm replaces BatchNorm, so that an utterance's output does not depend on other utterances.
    """

    def __init__(self, dim: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = ChunkConvolution(dim, kernel_size)
        self.middle_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Initial state of the chunk convolution."""
        return self.depthwise.init_state(batch_size, chunk)

    def forward(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """Map x (N, T, D) to (N, T, D); also return the next state."""
        x = in_pieces(lambda x: F.glu(self.expand(self.norm(x)), dim=-1), x)
        x, state = self.depthwise(x, grid, state)
        return in_pieces(lambda x: self.dropout(self.out(F.silu(self.middle_norm(x)))), x), state
