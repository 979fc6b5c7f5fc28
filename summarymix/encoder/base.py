"""The interface of all encoders: whole utterances, or chunk by chunk with a state. Both are runs of chunks."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.pieces import is_recorded, piece_frames
from summarymix.chunking import FRAME_MS, ChunkConfig
from summarymix.encoder.subsampling import FEATURE_OVERLAP, FEATURES_PER_FRAME, features_needed, output_lengths
from summarymix.state import State, StateTree, flatten, kind_of, nest

GPU_FACTOR = 32  # length of a run on a GPU, relative to CPU: enough to keep it busy


class Encoder(nn.Module):
    """Base class of encoders, which map features at 100 Hz to encoder frames at 25 Hz.

    The same weights serve :meth:`forward` (whole utterances, any chunk grid) and :meth:`step` (chunk by chunk, with
    a state); both give the same frames up to rounding. The encoder normalises features by the mean and the standard
    deviation of each mel bin over the training data; both are stored with the weights.

    Args:
        feature_dim: F, mel bins.
        dim: D, features of the encoder frames.
        chunk_multiple: chunk sizes are multiples of this number of frames.
    """

    takes_whole_chunks = False
    """True if an utterance's last chunk must be whole: silence fills it."""
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, feature_dim: int, dim: int, chunk_multiple: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.chunk_multiple = chunk_multiple
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_scale", torch.ones(feature_dim))

    def set_feature_stats(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation of each mel bin, (F,), that normalise the features."""
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(1 / std.clamp(min=1e-3))

    def forward(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            features: (N, T, F) log-mel features at 100 Hz; padding may have any values.
            lengths: (N,) int64, feature frames of each utterance, best on the CPU. Fewer than 7 make no encoder frame.
            chunk: chunk size and left context.

        Returns:
            Frames (N, T', D) at 25 Hz, T' = ((T-1)//2 - 1)//2 and at least 1, and their number per utterance (N,), on
            the device of ``lengths``.

        Raises:
            ValueError: the encoder does not support this chunk size.
        """
        self.check_chunk(chunk)
        missing = features_needed(1) - features.size(1)
        if missing > 0:
            features = F.pad(features, (0, 0, 0, missing))
        num_frames, frames = output_lengths(features.size(1)), output_lengths(lengths)
        out = []
        # The state of a whole utterance begins with 0 chunks and grows to the left context.
        size = chunk.chunk_size or -(-num_frames // self.chunk_multiple) * self.chunk_multiple
        state = self.init_tree(features.size(0), ChunkConfig(size, min(chunk.left_chunks, 0)))
        for start, stop in runs(num_frames, chunk, features):
            part = features[:, FEATURES_PER_FRAME * start : features_needed(stop + chunk.lookahead)]
            valid = (frames - start).clamp(0, stop + chunk.lookahead - start)
            x, state = self.encode(self.normalize(part), valid, stop - start, chunk, state)
            out.append(x[:, : stop - start])
        return out[0] if len(out) == 1 else torch.cat(out, dim=1), frames

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """Initial state of streams: all zeros, batch first; its shapes determine the left context.

        Raises:
            ValueError: unsupported chunk size, or attention with unlimited left context, whose state would grow.
        """
        self.check_chunk(chunk)
        state = flatten(self.init_tree(batch_size, chunk))
        if chunk.left_chunks < 0 and "attention" in map(kind_of, state):
            raise ValueError(
                f"self-attention cannot stream with {chunk}: it caches the keys and values of the whole left context. "
                "Limit it with --left-chunks N; only SummaryMixing streams with unlimited left context"
            )
        return state

    def step(
        self, features: Tensor, state: State, lengths: Tensor | None = None, lookahead: int = 0
    ) -> tuple[Tensor, State]:
        """Encode the next chunk of each stream.

        Args:
            features: (N, 4·(C + R) + 3, F); the next call's features begin 4·C frames later. C may change between
                calls, but not with attention.
            state: state after the previous chunk.
            lengths: (N,) int64, valid encoder frames of this chunk and its look-ahead; fewer than C + R at a stream's
                end only. None: C + R for all.
            lookahead: R, encoder frames.

        Returns:
            Frames (N, C, D), and the next state.

        Raises:
            ValueError: the features do not make a whole chunk or, with attention, the chunk size changes.
        """
        num_frames = output_lengths(features.size(1))
        if num_frames <= lookahead or features.size(1) != features_needed(num_frames):
            size = "4·C" if lookahead == 0 else f"4·(C + {lookahead})"
            raise ValueError(f"a chunk of C frames takes {size} + {FEATURE_OVERLAP} features, not {features.size(1)}")
        # The left context of a stream depends on its state alone.
        chunk = ChunkConfig(num_frames - lookahead, left_chunks=0, lookahead=lookahead)
        self.check_chunk(chunk)
        all_valid = True if lengths is None else None
        if lengths is None:
            lengths = torch.full((features.size(0),), num_frames, device=features.device)
        tree = nest(state)
        out, following = self.encode(self.normalize(features), lengths, num_frames - lookahead, chunk, tree, all_valid)
        return out, flatten(following)

    def init_tree(self, batch_size: int, chunk: ChunkConfig) -> StateTree:
        """Initial state as a tree; with attention and unlimited left context it grows."""
        raise NotImplementedError

    def encode(
        self,
        features: Tensor,
        lengths: Tensor,
        num_frames: int,
        chunk: ChunkConfig,
        state: StateTree,
        all_valid: bool | None = None,
    ) -> tuple[Tensor, StateTree]:
        """Encode a run of chunks, which follow the chunks in ``state``.

        Args:
            features: normalised, (N, 4·T' + 3, F), of the run and its look-ahead.
            lengths: (N,) int64, valid encoder frames of each utterance in this run and its look-ahead.
            num_frames: encoder frames of the run. Only an utterance's last run may end within a chunk.
            chunk: chunk size, left context and look-ahead.
            state: state after the previous run.
            all_valid: see :class:`ChunkGrid`.

        Returns:
            Frames (N, K·C, D) of whole chunks, and the next state.
        """
        raise NotImplementedError

    def normalize(self, features: Tensor) -> Tensor:
        """Normalise features (N, T, F) to mean 0 and standard deviation 1 over the training data."""
        return (features - self.feature_mean) * self.feature_scale

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """Check that this encoder supports the chunk size.

        Raises:
            ValueError: it does not; the message names the nearest supported sizes.
        """
        size, multiple = chunk.chunk_size, self.chunk_multiple
        if chunk.lookahead % multiple:
            raise ValueError(
                f"a look-ahead of {chunk.lookahead_ms} ms is not a multiple of {multiple * FRAME_MS} ms, the frame of "
                "this encoder's slowest stack"
            )
        if size is not None and size % multiple:
            near = sorted({max(size // multiple, 1) * multiple, (size // multiple + 1) * multiple})
            raise ValueError(
                f"a chunk of {size * FRAME_MS} ms is not a multiple of {multiple * FRAME_MS} ms, the frame of this "
                f"encoder's slowest stack; nearest: {' or '.join(f'{n * FRAME_MS} ms' for n in near)}"
            )


def runs(num_frames: int, chunk: ChunkConfig, features: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the runs in which whole utterances are encoded: the first frame, and the frame after the last.

    In inference a run has a limited number of chunks: activations of all layers then take memory for one run only and
    stay in the caches.
    """
    if chunk.chunk_size is None or is_recorded():
        yield 0, num_frames
        return
    frames = piece_frames(features.size(0)) * (1 if features.device.type == "cpu" else GPU_FACTOR)
    size = max(frames // chunk.chunk_size, 1) * chunk.chunk_size
    for start in range(0, num_frames, size):
        yield start, min(start + size, num_frames)
