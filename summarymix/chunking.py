"""The chunk grid: the only place that defines which frame sees which.

An utterance of T encoder frames is cut into chunks of C frames. Frame t belongs to chunk t // C and sees the
valid frames of its own chunk and of its left context: all earlier chunks or the last L of them, never a later one.
With C = None the whole utterance is one chunk: offline recognition. Training samples (C, L) for each batch
(dynamic chunk training, arXiv 2012.05481 and 2304.09325), so that one set of weights serves every latency.

With look-ahead R a chunk also sees the R frames behind its end. They are computed with the chunk as copies, which see
what the chunk sees and are seen by it alone; the next chunk computes these frames anew as its own (hard copies, as in
Emformer, arXiv 2010.10759). So a layer sees R frames ahead, however deep the encoder is.
"""

import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FRAME_MS = 40  # an encoder frame: 10 ms feature frames, sub-sampled by 4
CHUNK_MS = 640  # default chunk size of programs


@dataclass(frozen=True)
class ChunkConfig:
    """Chunk size in encoder frames (None: the whole utterance), left context in chunks (-1: unlimited), look-ahead in
    frames."""

    chunk_size: int | None = None
    left_chunks: int = -1
    lookahead: int = 0

    def __post_init__(self) -> None:
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size {self.chunk_size} must be at least one frame")
        if self.left_chunks < -1:
            raise ValueError(f"left context is -1 (unlimited) or a number of chunks, not {self.left_chunks}")
        if self.lookahead < 0 or (self.lookahead > 0 and self.chunk_size is None):
            raise ValueError(
                f"a look-ahead of {self.lookahead} frames is impossible: it is 0 or more, and needs chunks (--chunk-ms)"
            )

    @classmethod
    def from_ms(
        cls, chunk_ms: int | None, left_chunks: int = -1, lookahead_ms: int = 0, option: str = "--chunk-ms"
    ) -> "ChunkConfig":
        """Make the configuration for chunks of ``chunk_ms`` milliseconds; None is the whole utterance.

        Args:
            chunk_ms: chunk size.
            left_chunks: left context in chunks, -1 for unlimited.
            lookahead_ms: look-ahead.
            option: option that gave ``chunk_ms``, for messages.

        Raises:
            ValueError: ``chunk_ms`` is not a positive multiple of the encoder's frame, the message names the nearest;
                or ``lookahead_ms`` is not a multiple, or is given without a chunk.
        """
        lookahead = _whole_frames("--lookahead-ms", lookahead_ms, 0)
        return cls(None if chunk_ms is None else _whole_frames(option, chunk_ms, 1), left_chunks, lookahead)

    @property
    def lookahead_ms(self) -> int:
        """The look-ahead in milliseconds."""
        return self.lookahead * FRAME_MS

    @property
    def chunk_ms(self) -> int | None:
        """The chunk's duration in milliseconds, None for the whole utterance."""
        return None if self.chunk_size is None else self.chunk_size * FRAME_MS

    def __str__(self) -> str:
        if self.chunk_size is None:
            return "offline"
        left = "unlimited" if self.left_chunks < 0 else f"{self.left_chunks} chunks"
        ahead = f", look-ahead {self.lookahead_ms} ms" if self.lookahead else ""
        return f"chunk {self.chunk_ms} ms, left context {left}{ahead}"


def default_chunk(chunks: Iterable[ChunkConfig]) -> ChunkConfig:
    """Return the one of several settings that programs use by default: nearest to 640 ms, with the least look-ahead."""
    return min(chunks, key=lambda chunk: (abs((chunk.chunk_ms or 0) - CHUNK_MS), chunk.lookahead))


def _whole_frames(option: str, ms: int, least: int) -> int:
    """Convert the milliseconds of an option to encoder frames, of which there are at least ``least``."""
    frames, rest = divmod(ms, FRAME_MS)
    if rest or frames < least:
        below = max(frames, least) * FRAME_MS
        near = f"{below} or {below + FRAME_MS}" if ms > below else f"{below}"
        raise ValueError(f"{option} {ms} is not a multiple of the encoder's frame of {FRAME_MS} ms; nearest: {near}")
    return frames


@dataclass
class DynamicChunkConfig:
    """Distribution over chunk configurations, sampled once per batch (once per view if a batch has two).

    The defaults come from the recipes of arXiv 2409.07165.
    """

    full_context_prob: float = 0.4
    """Probability of full context."""
    min_chunk: int = 8
    """Otherwise: smallest chunk size in frames of 40 ms. The chunk size is uniform."""
    max_chunk: int = 32
    """Largest chunk size in frames of 40 ms."""
    limited_left_prob: float = 0.75
    """Probability that the left context of a batch in chunks is limited."""
    min_left: int = 2
    """Smallest limited left context in chunks. The left context is uniform."""
    max_left: int = 32
    """Largest limited left context in chunks."""
    lookahead_prob: float = 0.0
    """Probability of a look-ahead in a batch with chunks. Look-aheads are uniform, up to the chunk size."""

    def check(self, multiple: int) -> None:
        """Check that all values are possible, and that ``min_chunk``…``max_chunk`` contains a multiple of ``multiple``.

        Raises:
            ValueError: a value is impossible; or there is no multiple, and ``full_context_prob`` is below 1.
        """
        for name in ("full_context_prob", "limited_left_prob", "lookahead_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--chunk.{name} {getattr(self, name)} is a probability: it must be from 0 to 1")
        for name, least in (("chunk", 1), ("left", 0)):
            smallest, largest = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if not least <= smallest <= largest:
                raise ValueError(
                    f"--chunk.min_{name} {smallest} must be from {least} to --chunk.max_{name}, which is {largest}"
                )
        if self.full_context_prob < 1 and not self.sizes(multiple):
            raise ValueError(
                f"--chunk.min_chunk {self.min_chunk} and --chunk.max_chunk {self.max_chunk} have no multiple of "
                f"{multiple} between them, as this encoder requires: widen the range"
            )

    def sizes(self, multiple: int = 1) -> range:
        """The chunk sizes of :meth:`sample`; none if there is full context only."""
        if self.full_context_prob == 1:
            return range(0)
        return range(-(-self.min_chunk // multiple) * multiple, self.max_chunk + 1, multiple)

    def extremes(self, num_frames: int, multiple: int = 1) -> list[ChunkConfig]:
        """The configurations of :meth:`sample` that need most memory for ``num_frames`` frames: full context, the
        smallest chunks, and those to whole numbers of which the frames are padded most.
        """
        sizes = self.sizes(multiple)
        left = self.max_left if self.limited_left_prob == 1 else -1
        extreme = [sizes[0], max(sizes, key=lambda size: -(-num_frames // size) * size)] if sizes else []
        in_chunks = [ChunkConfig(size, left, size if self.lookahead_prob > 0 else 0) for size in dict.fromkeys(extreme)]
        return [*([ChunkConfig()] if self.full_context_prob > 0 else []), *in_chunks]

    def sample(self, rng: random.Random, multiple: int = 1) -> ChunkConfig:
        """Sample a configuration with a multiple of ``multiple`` frames, determined by the state of ``rng``."""
        if rng.random() < self.full_context_prob:
            return ChunkConfig()
        chunk_size = rng.choice(self.sizes(multiple))
        limited = rng.random() < self.limited_left_prob
        left_chunks = rng.randint(self.min_left, self.max_left) if limited else -1
        lookahead = 0
        if self.lookahead_prob > 0 and rng.random() < self.lookahead_prob:
            lookahead = rng.randint(1, chunk_size // multiple) * multiple
        return ChunkConfig(chunk_size, left_chunks, lookahead)


class ChunkGrid:
    """The grid of a *run*: K whole chunks of each utterance, which follow the chunks in its state.

    A whole utterance is the run of all its chunks, from an empty state; a stream's chunk is a run of one chunk.
    The frames are rounded up to whole chunks, so that every block reshapes (N, K·C, …) to (N, K, C, …) without a copy.
    All work is linear in the number of chunks, except in :meth:`attention_mask`, which only attention uses.

    With look-ahead R, blocks compute chunks of C + R frames: K·(C + R) frames in all. In the shapes of blocks, T and C
    include the look-ahead; only the first ``own_size`` frames of a chunk go on to later chunks and to the output.

    Args:
        lengths: (N,) int64, valid frames of each utterance in this run. On the CPU they are read without waiting for
            a GPU.
        num_frames: frames of the run, without look-ahead behind its end: the maximum of ``lengths``, or more.
        config: chunk size and left context; see :func:`left_context`.
        frame_ms: duration of a frame.
        all_valid: True if no frame is padding. None: derived from ``lengths``, which are unknown while a graph is
            exported, so the graph masks.
        device: device of the frames; None: that of ``lengths``.
    """

    def __init__(
        self,
        lengths: Tensor,
        num_frames: int,
        config: ChunkConfig,
        frame_ms: int = FRAME_MS,
        all_valid: bool | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.config = config
        self.own_size = max(num_frames, 1) if config.chunk_size is None else config.chunk_size
        self.chunk_size = self.own_size + config.lookahead
        self.num_chunks = -(-max(num_frames, 1) // self.own_size)
        self.num_frames = self.num_chunks * self.chunk_size
        self.chunk_seconds = self.own_size * frame_ms / 1000
        self.end = (self.num_chunks - 1) * self.own_size + self.chunk_size
        """Number of different frames, from the run's first to the last one of its look-ahead."""
        self.valid = self.spread(length_mask(lengths, self.end, device))  # (N, T)
        # On the host, once per run: without padding, blocks skip masking.
        if all_valid is None:
            all_valid = not torch.compiler.is_exporting() and bool((lengths >= self.end).all())
        self.all_valid = all_valid
        self.mask = None if self.all_valid else self.valid
        own, ahead = self.split(self.valid)
        self.counts = own.sum(2, dtype=torch.float32)[..., None]  # (N, K, 1), own frames per chunk
        self.ahead_counts = None if ahead is None else ahead.sum(2, dtype=torch.float32)[..., None]
        self._shared: dict[Hashable, Tensor] = {}

    def cached(self, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return the result of ``make()``, computed once per grid: for tensors that all layers share."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def spread(self, x: Tensor) -> Tensor:
        """Lay frames (N, t, …) out in chunks (N, T, …), with copies for the look-ahead; zeros follow the last frame."""
        x = x[:, : self.end]
        if missing := self.end - x.size(1):
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
        if self.config.lookahead == 0:
            return x
        return x.unfold(1, self.chunk_size, self.own_size).movedim(-1, 2).flatten(1, 2)

    def own(self, x: Tensor) -> Tensor:
        """The frames (N, K·own_size, …) of chunks (N, T, …) without their look-ahead: each frame once."""
        return x if self.config.lookahead == 0 else self.split(x)[0].flatten(1, 2)

    def chunked(self, x: Tensor) -> Tensor:
        """View (N, T, …) as (N, K, C, …)."""
        return x.unflatten(1, (self.num_chunks, self.chunk_size))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """View (N, T, …) as own frames (N, K, own_size, …) of the chunks, and their look-ahead (N, K, R, …) or None."""
        x = self.chunked(x)
        return (x, None) if self.config.lookahead == 0 else (x[:, :, : self.own_size], x[:, :, self.own_size :])

    def zero_padding(self, x: Tensor) -> Tensor:
        """Return x (N, T, D) with the padded frames zeroed."""
        return x if self.all_valid else x.masked_fill(~self.valid[..., None], 0.0)

    def chunk_sums(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sum the valid frames of each chunk in float32 or wider: (N, T, D) to (N, K, D), own frames and look-ahead."""
        wide = torch.promote_types(x.dtype, torch.float32)
        own, ahead = self.split(self.zero_padding(x))
        return own.sum(2, dtype=wide), None if ahead is None else ahead.sum(2, dtype=wide)

    def attention_mask(self, num_past: int) -> Tensor:
        """Make the mask (T, S) bool, True where frame t does not see frame s, whose chunk is later or too early.

        The S frames are ``num_past`` chunks before the run, and the run. With look-ahead each chunk is a row that has
        nothing else, see :func:`summarymix.blocks.attention.remember_frames`: the mask (1, 1) is False.
        """
        if self.config.lookahead > 0:
            return self.valid.new_zeros(1, 1)
        device = self.valid.device
        frames = torch.arange((num_past + self.num_chunks) * self.chunk_size, device=device)
        chunks = frames // self.chunk_size  # (S,)
        own = chunks[num_past * self.chunk_size :, None]  # (T, 1)
        masked = chunks > own
        if self.config.left_chunks >= 0:
            masked |= chunks < own - left_context(num_past, self.config.left_chunks)
        return masked


def left_context(num_past: int, left_chunks: int) -> int:
    """Return the limited left context of a run with ``num_past`` chunks in its state.

    A state with room for more than ``left_chunks`` keeps its size, so that a stream's left context depends on its state
    alone.
    """
    return max(num_past, left_chunks)


def length_mask(lengths: Tensor, size: int, device: torch.device | None = None) -> Tensor:
    """Make a mask (N, size) bool, True at the first ``lengths`` (N,) positions of each row.

    It lies on ``device``, or on that of ``lengths``.
    """
    lengths = to_device(lengths, device or lengths.device)
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def pinned(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor that can be copied to a device without waiting for it: in pinned memory, if it is a GPU."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device without waiting for it; elsewhere return it as it is."""
    return pinned(x, device).to(device, non_blocking=True)
