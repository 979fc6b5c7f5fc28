"""Front ends: features at 100 Hz to frames at 25 or 50 Hz, without padding in time and so without state.

Both take the same 4·C + 3 features for a chunk of C encoder frames of 40 ms, and advance by 4·C. The internal frame
rate of an encoder is therefore invisible outside.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.bias_norm import BiasNorm
from summarymix.blocks.pieces import in_pieces
from summarymix.blocks.swoosh import swoosh_r
from summarymix.chunking import FRAME_MS

FEATURES_PER_FRAME = 4  # an encoder frame advances by this many feature frames …
FEATURE_OVERLAP = 3  # … and looks at this many more: frame t sees features 4t … 4t+6
FEATURE_SECONDS = FRAME_MS / 1000 / FEATURES_PER_FRAME  # from one feature frame to the next

IntOrTensor = TypeVar("IntOrTensor", int, Tensor)


def output_lengths(num_features: IntOrTensor) -> IntOrTensor:
    """Return the number of encoder frames for T = ``num_features`` features: ((T-1)//2 - 1)//2, 0 for T below 7."""
    frames = ((num_features - 1) // 2 - 1) // 2
    return frames.clamp(min=0) if isinstance(frames, Tensor) else max(frames, 0)


def features_needed(num_frames: int) -> int:
    """Return the number of feature frames for C = ``num_frames`` encoder frames: 4·C + 3."""
    return FEATURES_PER_FRAME * num_frames + FEATURE_OVERLAP


class ConvSubsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 over time and frequency, then a projection.

    Time is not padded, so a chunk of C frames needs only its own 4·C + 3 feature frames: no cache, and no special first
    chunk. Frequency is padded by one on both sides.

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
        """Map features (N, T, F), T at least 7, to (N, ((T-1)//2 - 1)//2, D)."""
        return in_pieces(self.convolve, x, stride=FEATURES_PER_FRAME, overlap=FEATURE_OVERLAP)

    def convolve(self, x: Tensor) -> Tensor:
        """Apply :meth:`forward` to one piece."""
        x = as_image(x)  # (N, 1, T, F)
        x = F.silu(self.conv1(x))  # (N, c1, T', F')
        x = F.silu(self.conv2(x))  # (N, c2, T'', F'')
        return self.norm(self.out(x.permute(0, 2, 3, 1).flatten(2)))


class HalfSubsampling(nn.Module):
    """Three convolutions to 50 Hz and an eighth of the mel bins, then a projection: for multi-rate encoders.

    It is the front end of arXiv 2310.11230 without its ConvNeXt layer, and in time only the first two convolutions have
    three taps. Frame u sees features 2u … 2u+4; frames 2t and 2t+1 together see the same features as encoder frame t of
    :class:`ConvSubsampling`. There is no look-ahead beyond the chunk; the paper's front end looks 90 ms ahead. The
    convolutions of the first stack compensate for the shorter window.

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
        """Map features (N, T, F), T at least 5, to (N, (T-3)//2, D)."""
        return in_pieces(self.convolve, x, stride=2, overlap=FEATURE_OVERLAP)

    def convolve(self, x: Tensor) -> Tensor:
        """Apply :meth:`forward` to one piece."""
        x = as_image(x)  # (N, 1, T, F)
        x = swoosh_r(self.conv1(x))  # (N, c1, T-2, F/2)
        x = swoosh_r(self.conv2(x))  # (N, c2, (T-3)//2, F/4)
        x = swoosh_r(self.conv3(x))  # (N, c3, (T-3)//2, F/8)
        return self.norm(self.out(x.permute(0, 2, 3, 1).flatten(2)))


def as_image(x: Tensor) -> Tensor:
    """View features (N, T, F) as an image of one channel, (N, 1, T, F), in channels-last layout.

    With one channel both layouts have the same bytes and differ only in their strides, which ``permute`` keeps and
    ``contiguous`` does not. Without these strides the backward pass copies everything to the other layout and back: on
    CPU a training step of the front end then takes 1.5 times as long.
    """
    return x[..., None].permute(0, 3, 1, 2)


def channels_last(*convolutions: nn.Conv2d) -> None:
    """Store the weights in channels-last layout: about 40 % less CPU time, and the output flattens without a copy."""
    for convolution in convolutions:
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
