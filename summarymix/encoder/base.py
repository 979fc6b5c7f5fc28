"""What every encoder has: the normalisation of features, and the two ways of giving it audio."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.chunking import FRAME_MS, ChunkConfig
from summarymix.encoder.subsampling import FEATURE_OVERLAP, features_needed, output_lengths
from summarymix.state import State


class Encoder(nn.Module):
    """Features at 100 Hz to encoder frames at 25 Hz.

    The same weights serve :meth:`forward` (whole utterances, any chunk grid) and :meth:`step` (chunk by chunk, with
    a state); both give the same frames up to rounding. Features are normalised here, with the mean and the standard
    deviation of each mel bin over the training data, which are part of the weights.

    Args:
        feature_dim: F, mel bins.
        dim: D, features of the encoder frames.
        chunk_multiple: a chunk has a multiple of so many frames.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, feature_dim: int, dim: int, chunk_multiple: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.chunk_multiple = chunk_multiple
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_scale", torch.ones(feature_dim))

    def set_feature_stats(self, mean: Tensor, std: Tensor) -> None:
        """Normalise features by these: mean and standard deviation of each mel bin, (F,)."""
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(1 / std.clamp(min=1e-3))

    def forward(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            features: (N, T, F) log-mel features at 100 Hz; what stands behind an utterance's end does not matter.
            lengths: (N,) int64, feature frames of each utterance. One shorter than 7 has no encoder frame.
            chunk: what each frame may see.

        Returns:
            Frames (N, T', D) at 25 Hz, T' = ((T-1)//2 - 1)//2 and at least 1, and their numbers (N,).

        Raises:
            ValueError: the encoder cannot have chunks of that size.
        """
        self.check_chunk(chunk)
        missing = features_needed(1) - features.size(1)
        if missing > 0:
            features = F.pad(features, (0, 0, 0, missing))
        num_frames = output_lengths(features.size(1))
        frames = output_lengths(lengths)  # (N,)
        return self.encode(self.normalise(features), frames, num_frames, chunk), frames

    def step(self, features: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Encode the next chunk of each stream.

        Args:
            features: (N, 4·C + 3, F); the next call's features begin 4·C frames later. C may change between calls,
                but not with attention.
            state: that of the chunks before.
            lengths: (N,) int64, valid encoder frames of this chunk; fewer than C in a stream's last chunk only.
                None: C.

        Returns:
            Frames (N, C, D), and the state that follows.

        Raises:
            ValueError: the number of features makes no whole chunk, or with attention a chunk of another size.
        """
        num_frames = output_lengths(features.size(1))
        if num_frames < 1 or features.size(1) != features_needed(num_frames):
            raise ValueError(f"a chunk of C frames takes 4·C + {FEATURE_OVERLAP} features, not {features.size(1)}")
        self.check_chunk(ChunkConfig(num_frames))
        all_valid = True if lengths is None else None
        if lengths is None:
            lengths = torch.full((features.size(0),), num_frames, device=features.device)
        return self.encode_chunk(self.normalise(features), lengths, num_frames, state, all_valid)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """The state before the first chunk, all zeros, batch first; its shapes hold the left context of ``chunk``.

        Raises:
            ValueError: attention with unlimited left context, which has no state of fixed size.
        """
        raise NotImplementedError

    def encode(self, features: Tensor, lengths: Tensor, num_frames: int, chunk: ChunkConfig) -> Tensor:
        """Normalised features (N, T, F) to (N, T', D), of which ``lengths`` (N,) are valid; ``num_frames`` is T'."""
        raise NotImplementedError

    def encode_chunk(
        self, features: Tensor, lengths: Tensor, num_frames: int, state: State, all_valid: bool | None
    ) -> tuple[Tensor, State]:
        """The same for one chunk, and the state that follows; ``all_valid`` as for a :class:`ChunkGrid`."""
        raise NotImplementedError

    def normalise(self, features: Tensor) -> Tensor:
        """(N, T, F), with the training data's mean of 0 and standard deviation of 1."""
        return (features - self.feature_mean) * self.feature_scale

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """Refuse a chunk size that this encoder cannot have.

        Raises:
            ValueError: names the nearest that it can.
        """
        size, multiple = chunk.chunk_size, self.chunk_multiple
        if size is not None and size % multiple:
            near = sorted({max(size // multiple, 1) * multiple, (size // multiple + 1) * multiple})
            raise ValueError(
                f"this encoder's chunks are multiples of {multiple * FRAME_MS} ms, the frame of its slowest stack, and "
                f"{size * FRAME_MS} ms are none; nearest: {' or '.join(f'{n * FRAME_MS} ms' for n in near)}"
            )
