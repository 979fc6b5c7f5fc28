"""Front ends: features at 100 Hz to frames at 25 or 50 Hz, without padding in time and so without state.

Both take the same features for a chunk of C encoder frames of 40 ms, 4·C + 3, and advance by 4·C. So nothing outside of
the encoder has to know at what rate it works inside.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.bias_norm import BiasNorm
from summarymix.blocks.pieces import in_pieces
from summarymix.blocks.swoosh import swoosh_r

FEATURES_PER_FRAME = 4  # an encoder frame advances by this many feature frames …
FEATURE_OVERLAP = 3  # … and looks at this many more: frame t sees features 4t … 4t+6

IntOrTensor = TypeVar("IntOrTensor", int, Tensor)


def output_lengths(num_features: IntOrTensor) -> IntOrTensor:
    """Encoder frames that come of ``num_features`` feature frames: ((T-1)//2 - 1)//2; fewer than 7 make none."""
    frames = ((num_features - 1) // 2 - 1) // 2
    return frames.clamp(min=0) if isinstance(frames, Tensor) else max(frames, 0)


def features_needed(num_frames: int) -> int:
    """Feature frames that make ``num_frames`` encoder frames: 4·C + 3."""
    return FEATURES_PER_FRAME * num_frames + FEATURE_OVERLAP


class ConvSubsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 over time and frequency, then a projection.

    In time nothing is padded, so a chunk of C frames needs its own 4·C + 3 feature frames and nothing else: no cache,
    and no special first chunk. Frequency is padded by one on both sides.

    Args:
        feature_dim: F, mel bins.
        channels: channels of the two convolutions.
        dim: D, features out.
    """

    def __init__(self, feature_dim: int, channels: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3, stride=2, padding=(0, 1))
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=(0, 1))
        channels_last(self.conv1, self.conv2)
        bins = ((feature_dim + 1) // 2 + 1) // 2
        self.out = nn.Linear(channels[1] * bins, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, T, F) to (N, ((T-1)//2 - 1)//2, D). T is at least 7."""
        return in_pieces(self.convolve, x, stride=FEATURES_PER_FRAME, overlap=FEATURE_OVERLAP)

    def convolve(self, x: Tensor) -> Tensor:
        """:meth:`forward` of one piece."""
        x = as_image(x)  # (N, 1, T, F)
        x = F.silu(self.conv1(x))  # (N, c1, T', F')
        x = F.silu(self.conv2(x))  # (N, c2, T'', F'')
        return self.norm(self.out(x.permute(0, 2, 3, 1).flatten(2)))


class HalfSubsampling(nn.Module):
    """Three convolutions to 50 Hz and an eighth of the frequencies, then a projection: for multi-rate encoders.

    It is the front end of arXiv 2310.11230 without its ConvNeXt layer, and in time only the first two convolutions have
    three taps. So frame u sees the features 2u … 2u+4, frames 2t and 2t+1 together just what an encoder frame t of
    :class:`ConvSubsampling` sees, and there is no look-ahead beyond the chunk, where that paper's has 90 ms. What this
    window lacks the first stack's convolutions have.

    Args:
        feature_dim: F, mel bins.
        channels: channels of the three convolutions.
        dim: D, features out.
    """

    def __init__(self, feature_dim: int, channels: tuple[int, int, int], dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3, stride=(1, 2), padding=(0, 1))
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=(0, 1))
        self.conv3 = nn.Conv2d(channels[1], channels[2], (1, 3), stride=(1, 2), padding=(0, 1))
        channels_last(self.conv1, self.conv2, self.conv3)
        bins = -(-feature_dim // 8)
        self.out = nn.Linear(channels[2] * bins, dim)
        self.norm = BiasNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, T, F) to (N, (T-3)//2, D). T is at least 5."""
        return in_pieces(self.convolve, x, stride=2, overlap=FEATURE_OVERLAP)

    def convolve(self, x: Tensor) -> Tensor:
        """:meth:`forward` of one piece."""
        x = as_image(x)  # (N, 1, T, F)
        x = swoosh_r(self.conv1(x))  # (N, c1, T-2, F/2)
        x = swoosh_r(self.conv2(x))  # (N, c2, (T-3)//2, F/4)
        x = swoosh_r(self.conv3(x))  # (N, c3, (T-3)//2, F/8)
        return self.norm(self.out(x.permute(0, 2, 3, 1).flatten(2)))


def as_image(x: Tensor) -> Tensor:
    """Features (N, T, F) as an image of one channel, (N, 1, T, F), in channels-last layout.

    With one channel both layouts are the same bytes, and what tells them apart are the strides that ``permute`` leaves
    and ``contiguous`` does not. Without them the backward pass copies everything to the other layout and back: on CPU a
    front end's step then takes 1.5 times as long.
    """
    return x[..., None].permute(0, 3, 1, 2)


def channels_last(*convolutions: nn.Conv2d) -> None:
    """Lay the weights out so. On CPU this takes some 40 % less time, and the output flattens without a copy."""
    for convolution in convolutions:
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
