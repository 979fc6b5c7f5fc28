"""Log-mel filter banks: one extractor for preparation, training, offline and streaming decoding.

The definition is lhotse's ``Fbank(FbankConfig(num_mel_bins=80))``, which is Kaldi's with ``snip_edges=False``:
25 ms windows every 10 ms, centred so that n samples give round(n / 160) frames, with the signal mirrored at
both ends. Mirroring is done here, once, and the backends only compute whole windows. So features pushed in blocks
of any size equal the features of the whole file, with every backend.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import lhotse
import numpy as np
import torch
import torch.nn.functional as F
from lhotse.features.kaldi.layers import get_mel_banks
from numpy.typing import NDArray
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.encoder.subsampling import features_needed

IntOrArray = TypeVar("IntOrArray", int, NDArray[np.int64])

FeatureBackend = Literal["lhotse", "kaldifeat", "kaldi-native-fbank"]

ENERGY_FLOOR = torch.finfo(torch.float32).eps
SILENCE = math.log(ENERGY_FLOOR)
"""Feature value of digital silence. (lhotse pads with log(1e-10), which no audio reaches.)"""

_LOW_FREQUENCY = 20.0
_HIGH_FREQUENCY = -400.0  # relative to the Nyquist frequency. Kaldi's own default is 0
_FRAMES_AT_ONCE = 1000


@dataclass(frozen=True)
class FbankOptions:
    """Definition of the features. ``backend`` only selects the implementation.

    Backends agree within 2e-3. In 50 minutes of LibriSpeech one value in two million exceeds this, by up to 4e-3: in
    nearly silent bins next to loud ones, where float32 rounds lhotse's own values by 3e-3.

    Telephone speech has a ``sample_rate`` of 8000 Hz. 80 bins work there, but 40 carry the same information: 16 of the
    80 are a single FFT frequency, some of them the same one.

    ``tail_frames`` frames of silence follow the end of each recording.

    Raises:
        ValueError: the sample rate is below 1000 Hz, the tail is negative, there are fewer than 4 mel bins, or some lie
            between two FFT frequencies (more than 124 bins at 16000 Hz, 90 at 8000 Hz). lhotse and kaldi-native-fbank
            fill those with a constant, kaldifeat aborts the process.
    """

    sample_rate: int = 16000
    num_mel_bins: int = 80
    backend: FeatureBackend = "lhotse"
    tail_frames: int = 0

    def __post_init__(self) -> None:
        if self.sample_rate < 1000:
            raise ValueError(f"sample_rate must be at least 1000 Hz, not {self.sample_rate}")
        if self.sample_rate % 100:
            raise ValueError(f"sample_rate {self.sample_rate} has no whole samples in 10 ms: take 16000 or 8000")
        if self.tail_frames < 0:
            raise ValueError(f"tail_frames must be 0 or more, not {self.tail_frames}")
        if self.num_mel_bins < 4:
            raise ValueError(f"num_mel_bins must be at least 4, not {self.num_mel_bins}")
        if empty := _count_empty_bins(self.num_mel_bins, self.window, self.sample_rate):
            raise ValueError(
                f"{empty} of {self.num_mel_bins} mel bins are empty at {self.sample_rate} Hz: reduce num_mel_bins "
                "(80 is usual at 16000 Hz, 40 at 8000 Hz)"
            )

    @property
    def window(self) -> int:
        """Window length in samples (25 ms)."""
        return self.sample_rate * 25 // 1000

    @property
    def shift(self) -> int:
        """Frame shift in samples (10 ms)."""
        return self.sample_rate // 100

    @property
    def left_padding(self) -> int:
        """Number of mirrored samples before the first one; they centre frame t on its 10 ms."""
        return (self.window - self.shift) // 2

    def num_whole_windows(self, num_samples: int) -> int:
        """Number of windows that lie within ``num_samples``, the first one at their beginning."""
        return max(1 + (num_samples - self.window) // self.shift, 0)

    def num_windows(self, num_samples: IntOrArray) -> IntOrArray:
        """Number of frames of ``num_samples`` themselves: the duration in units of 10 ms, rounded half up."""
        return (num_samples + self.shift // 2) // self.shift

    def num_frames(self, num_samples: IntOrArray) -> IntOrArray:
        """Number of frames for ``num_samples``, with the tail."""
        return self.num_windows(num_samples) + self.tail_frames


def trained_on(data: dict[str, Any]) -> FbankOptions:
    """The features of a model, by the section ``data`` of the configuration of its training.

    lhotse computes them, whatever computed them in training: it is always installed.
    """
    tail_frames = data.get("tail_frames", 0)  # older runs have none
    return FbankOptions(data["sample_rate"], data["num_mel_bins"], tail_frames=tail_frames)


def latency_ms(chunk: ChunkConfig, fbank: FbankOptions) -> float | None:
    """Return the algorithmic latency, from a chunk's first sample to the last one that its result needs; None offline.

    It consists of the chunk, its look-ahead, three more feature frames of the front end, and half a window.
    """
    if chunk.chunk_size is None:
        return None
    samples = (
        (features_needed(chunk.chunk_size + chunk.lookahead) - 1) * fbank.shift + fbank.window - fbank.left_padding
    )
    return 1000 * samples / fbank.sample_rate


# Cached, because with features on the fly such options are made for every cut.
@cache
def _count_empty_bins(num_mel_bins: int, window: int, sample_rate: int) -> int:
    """Number of mel bins that lie between two FFT frequencies."""
    padded_window = 2 ** (window - 1).bit_length()
    banks, _ = get_mel_banks(num_mel_bins, padded_window, sample_rate, _LOW_FREQUENCY, _HIGH_FREQUENCY)
    return int((banks.sum(dim=1) == 0).sum())  # banks: (num_mel_bins, padded_window / 2)


class FbankExtractor:
    """Computes log-mel filter banks of whole recordings, or of a stream with :meth:`online`."""

    def __init__(self, options: FbankOptions | None = None) -> None:
        self.options = options or FbankOptions()
        self._windows_to_fbank = _BACKENDS[self.options.backend](self.options)

    def extract(self, samples: Tensor | np.ndarray) -> Tensor:
        """Compute the features of a whole recording.

        Args:
            samples: (n,) in [-1, 1], at ``options.sample_rate``.

        Returns:
            (T, num_mel_bins) float32 with T = ``options.num_frames(n)``: audio shorter than 5 ms gives the tail alone.

        Raises:
            ValueError: the samples are not one-dimensional.
        """
        samples = _as_samples(samples)
        num_windows = self.options.num_windows(len(samples))
        left = self.options.left_padding
        right = (num_windows - 1) * self.options.shift + self.options.window - left - len(samples)
        features = self._first_windows(_mirror(samples, left, max(right, 0)), num_windows)
        return with_tail(features, self.options.tail_frames)

    def whole_windows(self, blocks: list[Tensor]) -> list[Tensor]:
        """Compute the features of the whole windows of each block, without mirroring: of many streams together.

        Args:
            blocks: samples (n,) each.

        Returns:
            Features (t, num_mel_bins) of each block, t = ``options.num_whole_windows(n)``, each in its own memory.
        """
        options = self.options
        # The blocks follow each other, filled up to whole shifts, as if they were one recording. The two or three
        # windows that reach beyond the end of a block are computed too, and dropped.
        filled = [F.pad(block, (0, -len(block) % options.shift)) for block in blocks]
        sizes = [len(block) // options.shift for block in filled]
        samples = torch.cat([*filled, torch.zeros(options.window)])
        parts = self._first_windows(samples, sum(sizes)).split(sizes)
        return [
            part[: options.num_whole_windows(len(block))].clone() for part, block in zip(parts, blocks, strict=True)
        ]

    def _first_windows(self, samples: Tensor, num_frames: int) -> Tensor:
        """Compute features (num_frames, num_mel_bins) of the first windows in ``samples``."""
        if num_frames == 0:
            return torch.zeros(0, self.options.num_mel_bins)
        # In pieces, so that intermediate tensors take no more memory for an hour than for ten seconds.
        pieces = []
        for begin in range(0, num_frames, _FRAMES_AT_ONCE):
            end = min(begin + _FRAMES_AT_ONCE, num_frames)
            first, last = begin * self.options.shift, (end - 1) * self.options.shift + self.options.window
            pieces.append(self._windows_to_fbank(samples[first:last]))
        return torch.cat(pieces)

    def online(self) -> "OnlineFbank":
        """Start a stream; its concatenated frames equal :meth:`extract` of the concatenated samples."""
        return OnlineFbank(self)


class OnlineFbank:
    """Features of one stream, pushed in blocks of any size. A frame is ready once its last sample has arrived.

    :meth:`accept` computes the frames of a stream by itself. With :meth:`push` and :meth:`take`, an extractor computes
    those of many streams together (:meth:`FbankExtractor.whole_windows`), in some 60 % of the time.
    """

    def __init__(self, extractor: FbankExtractor) -> None:
        self._extractor = extractor
        self._options = extractor.options
        self._blocks: list[Tensor] = []  # samples that are still needed
        self._num_samples = 0  # in these blocks
        self._received = 0
        self._frames = 0  # that have been taken

    @property
    def num_ready(self) -> int:
        """Number of frames that are ready."""
        # Mirrored only once the first window is complete: finish() mirrors a very short stream as a whole.
        mirrored = 0 if self._frames else self._options.left_padding
        return self._options.num_whole_windows(mirrored + self._num_samples)

    def push(self, samples: Tensor | np.ndarray) -> None:
        """Add samples (n,) in [-1, 1]; their memory may be used again at once."""
        samples = _as_samples(samples).clone()
        self._blocks.append(samples)
        self._num_samples += len(samples)
        self._received += len(samples)

    def take(self) -> Tensor:
        """Return the samples (n,) whose whole windows are the ready frames, which are then no longer ready."""
        num_ready = self.num_ready
        if num_ready == 0:
            return torch.zeros(0)
        samples = torch.cat(self._blocks)
        if self._frames == 0:
            samples = _mirror(samples, self._options.left_padding, 0)
        # At least window - shift = 240 samples remain, and at most 200 are mirrored at the end.
        rest = samples[num_ready * self._options.shift :]
        self._blocks, self._num_samples = [rest], len(rest)
        self._frames += num_ready
        return samples[: (num_ready - 1) * self._options.shift + self._options.window]

    def accept(self, samples: Tensor | np.ndarray) -> Tensor:
        """Push samples (n,) in [-1, 1]; return the new frames (t, num_mel_bins), possibly none."""
        self.push(samples)
        return self._extractor.whole_windows([self.take()])[0]

    def finish(self) -> Tensor:
        """Return the frames (t, num_mel_bins) that are ready or whose windows reach past the end, and the tail.

        The stream accepts no more samples.
        """
        options = self._options
        samples = torch.cat([torch.zeros(0), *self._blocks])
        self._blocks, self._num_samples = [], 0
        if self._frames == 0:
            return self._extractor.extract(samples)
        remaining = options.num_windows(self._received) - self._frames
        right = (remaining - 1) * options.shift + options.window - len(samples)
        return with_tail(self._extractor.whole_windows([_mirror(samples, 0, right)])[0], options.tail_frames)


def with_tail(features: Tensor, num_frames: int) -> Tensor:
    """Add frames of silence at the end of features (T, F)."""
    return F.pad(features, (0, 0, 0, num_frames), value=SILENCE) if num_frames else features


def _as_samples(samples: Tensor | np.ndarray) -> Tensor:
    if samples.ndim != 1:
        raise ValueError(f"Features need one channel (n,), but got samples {tuple(samples.shape)}")
    return torch.as_tensor(samples, dtype=torch.float32)


def _mirror(samples: Tensor, left: int, right: int) -> Tensor:
    """Mirror (n,) at both ends, the edge sample included: x1 x0 | x0 x1 … It is repeated if n is too short."""
    n = len(samples)

    def reflected(begin: int, end: int) -> Tensor:
        index = torch.arange(begin, end) % (2 * n)
        return samples[torch.where(index < n, index, 2 * n - 1 - index)]

    if n == 0:
        return samples
    return torch.cat([reflected(-left, 0), samples, reflected(n, n + right)])


def _lhotse_backend(options: FbankOptions) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        # lhotse warns that snip_edges=True changes the number of frames, which is intended here.
        warnings.simplefilter("ignore")
        config = lhotse.FbankConfig(
            sampling_rate=options.sample_rate,
            num_mel_bins=options.num_mel_bins,
            snip_edges=True,
            low_freq=_LOW_FREQUENCY,
            high_freq=_HIGH_FREQUENCY,
        )
        fbank = lhotse.Fbank(config)

    def compute(samples: Tensor) -> Tensor:
        with torch.no_grad():
            return fbank.extract(samples, options.sample_rate)

    return compute


def _kaldifeat_backend(options: FbankOptions) -> Callable[[Tensor], Tensor]:
    try:
        import kaldifeat
    except ImportError as error:
        raise ImportError(
            f"The feature backend 'kaldifeat' cannot be used: {error}. "
            "Install it with tools/install_kaldifeat.sh, or choose 'lhotse' or 'kaldi-native-fbank'"
        ) from error
    fbank = kaldifeat.Fbank(_kaldi_options(kaldifeat.FbankOptions(), options))

    def compute(samples: Tensor) -> Tensor:
        return fbank(samples)

    return compute


def _kaldi_native_backend(options: FbankOptions) -> Callable[[Tensor], Tensor]:
    import kaldi_native_fbank

    config = _kaldi_options(kaldi_native_fbank.FbankOptions(), options)

    def compute(samples: Tensor) -> Tensor:
        fbank = kaldi_native_fbank.OnlineFbank(config)
        fbank.accept_waveform(options.sample_rate, samples.numpy())
        return torch.from_numpy(np.stack([fbank.get_frame(t) for t in range(fbank.num_frames_ready)]))

    return compute


def _kaldi_options(config: Any, options: FbankOptions) -> Any:
    """Set ``config``, the FbankOptions of a port of Kaldi, to lhotse's values where the defaults differ.

    Kaldi's tools scale samples to 16-bit integers; its ports do not scale, so samples lie in [-1, 1] as in lhotse.
    """
    config.frame_opts.samp_freq = options.sample_rate
    config.frame_opts.dither = 0.0
    config.frame_opts.snip_edges = True
    config.mel_opts.num_bins = options.num_mel_bins
    config.mel_opts.low_freq = _LOW_FREQUENCY
    config.mel_opts.high_freq = _HIGH_FREQUENCY
    return config


_BACKENDS: dict[str, Callable[[FbankOptions], Callable[[Tensor], Tensor]]] = {
    "lhotse": _lhotse_backend,
    "kaldifeat": _kaldifeat_backend,
    "kaldi-native-fbank": _kaldi_native_backend,
}
