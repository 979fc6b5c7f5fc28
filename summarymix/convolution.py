"""Dynamic chunk convolution and the Conformer's convolution module around it (arXiv 2304.09325, 2005.08100)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.chunking import ChunkGrid
from summarymix.state import State


class ChunkConvolution(nn.Module):
    """A depthwise convolution centred on t that never looks into a later chunk:

        y_t = b + Σ_{j=-h..h} w_j u_{t+j} · [t+j is a valid frame and chunk(t+j) ≤ chunk(t)],   h = (k-1)/2.

    The past is always visible, whatever the left context. The kernel is applied in two parts, so that no input
    frame is convolved twice: its past taps causally over the whole sequence, its future taps inside each chunk.

    Args:
        channels: D.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(f"the kernel is centred, so its size is odd and at least 3, not {kernel_size}")
        self.reach = kernel_size // 2
        bound = kernel_size**-0.5
        self.weight = nn.Parameter(torch.empty(channels, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """Whole utterances: x (N, T, D) to (N, T, D)."""
        x = grid.zero_padding(x)
        if grid.num_chunks == 1:
            return depthwise(x, self.weight, self.bias, self.reach)
        past = depthwise(x, self.weight[:, : self.reach + 1], self.bias, self.reach)[:, : x.size(1)]
        chunks = grid.chunked(x)  # (N, K, C, D)
        future = self.inside(chunks.flatten(0, 1)).unflatten(0, chunks.shape[:2])
        return (grid.chunked(past) + future).flatten(1, 2)

    def inside(self, chunks: Tensor) -> Tensor:
        """The future taps, inside each chunk: (M, C, D) to (M, C, D)."""
        # Padded by h on both sides, output i of the convolution is centred on input i - h - 1.
        return depthwise(chunks, self.weight[:, self.reach + 1 :], None, self.reach)[:, self.reach + 1 :]

    def init_state(self, batch_size: int) -> State:
        """The last h inputs, (N, h, D), zeros at first."""
        return {"cache": self.weight.new_zeros(batch_size, self.reach, self.weight.size(0))}

    def step(self, x: Tensor, grid: ChunkGrid, state: State) -> tuple[Tensor, State]:
        """One chunk: x (N, C, D) to (N, C, D), and the state that follows."""
        x = grid.zero_padding(x)
        extended = torch.cat([state["cache"].to(x.dtype), x], dim=1)  # (N, h+C, D)
        past = depthwise(extended, self.weight[:, : self.reach + 1], self.bias, 0)  # (N, C, D)
        return past + self.inside(x), {"cache": extended[:, -self.reach :].to(state["cache"].dtype)}


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Correlate each channel of x (N, T, D) with its row of ``weight`` (D, k): (N, T + 2·padding - k + 1, D).

    It is written as a 2-d convolution of height 1 in channels-last layout, which is the layout that x has already:
    no transposition, and on CPU some 20 times faster than conv1d.
    """
    image = x.transpose(1, 2).unsqueeze(2)  # (N, D, 1, T), strides of channels-last
    out = F.conv2d(image, weight[:, None, None], bias, padding=(0, padding), groups=weight.size(0))
    return out.squeeze(2).transpose(1, 2)


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
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, grid: ChunkGrid) -> Tensor:
        """(N, T, D) to (N, T, D)."""
        return self.after(self.depthwise(self.before(x), grid))

    def init_state(self, batch_size: int) -> State:
        """That of the chunk convolution."""
        return self.depthwise.init_state(batch_size)

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
