"""Recordings of any length, format and rate, read block by block in bounded memory.

Resampling is lhotse's, as in the preparation of data: a windowed sinc of finite length. So the blocks of a stream
resample to what the whole recording does.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from lhotse.augmentation.resample import Resample
from torch import Tensor

BLOCK_SECONDS = 1.0
# Seconds by which audio may be shorter than its header or its transcript says: ends of segments are often rounded, or
# were measured on another decoder's output.
END_TOLERANCE = 0.1
# The filter of two rates a and b without their common divisor has about a·b numbers; those of usual rates, 300,000.
_MAX_FILTER = 1 << 24


class _ForwardFile(soundfile.SoundFile):
    """soundfile would seek to where it stands after each read, at which MP3 and Opus lose the thread: a few samples
    at the beginning of each block are wrong then.
    """

    def seekable(self) -> bool:
        return False


class AudioReader:
    """A recording's samples, block by block, as one channel.

    Args:
        path: a file in any format that libsndfile reads: WAV, FLAC, OGG, Opus, MP3 and more.
        channel: which one, from 0; None for the mean of all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or has no such channel; names the file and the remedy.
    """

    def __init__(self, path: Path | str, channel: int | None = None) -> None:
        self.path = path
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            self._file = _ForwardFile(path)
        # soundfile.SoundFileError is a RuntimeError
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: {_reason(error)}. Convert it: ffmpeg -i IN OUT.flac") from error
        self.sample_rate: int = self._file.samplerate
        if channel is not None and not 0 <= channel < self._file.channels:
            self._file.close()
            raise ValueError(f"{path}: no channel {channel}; they are counted from 0, and it has {self._file.channels}")
        self._channel = channel

    def blocks(self, sample_rate: int | None = None) -> Iterator[Tensor]:
        """All samples, (n,) float32 at a time, n being those of :data:`BLOCK_SECONDS` or a few more or less.

        Args:
            sample_rate: in Hz; None for the file's own.

        Raises:
            ValueError: damage is found on the way, the file ends before its end, or it cannot be resampled.
        """
        try:
            resampler = Resampler(self.sample_rate, sample_rate or self.sample_rate)
            for samples in self._read():
                yield resampler.accept(to_mono(samples, self._channel))
            yield resampler.finish()
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _read(self) -> Iterator[np.ndarray]:
        """Samples (n, channels)."""
        size = round(BLOCK_SECONDS * self.sample_rate)
        done = 0
        with self._file as file:
            while True:
                try:
                    samples = file.read(size, dtype="float32", always_2d=True)  # (n, channels)
                except RuntimeError as error:
                    raise ValueError(f"damaged at {done / self.sample_rate:.1f} s: {_reason(error)}") from error
                if not len(samples):
                    break
                done += len(samples)
                yield samples
            if file.frames - done > END_TOLERANCE * self.sample_rate:
                seconds = [frames / self.sample_rate for frames in (done, file.frames)]
                raise ValueError("damaged, ends after {:.1f} of {:.1f} s".format(*seconds))


def _reason(error: Exception) -> str:
    """What libsndfile says, without the file's name."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def to_mono(samples: Tensor | np.ndarray, channel: int | None = None) -> Tensor:
    """One channel in [-1, 1] of samples, (n,) or (n, channels) as soundfile reads them, to (n,) float32.

    Args:
        samples: floating, or integers, whose range then becomes [-1, 1).
        channel: which one; None for the mean of all.

    Raises:
        ValueError: some are not finite, or they have another shape.
    """
    # Copied, because arrays that cannot be written to make torch complain.
    mono = samples if isinstance(samples, Tensor) else torch.tensor(samples)
    if not mono.is_floating_point():
        mono = mono / (torch.iinfo(mono.dtype).max + 1)
    if mono.dim() == 2:
        mono = mono.mean(1) if channel is None else mono[:, channel]
    if mono.dim() != 1:
        raise ValueError(f"expected samples (n,) or (n, channels), got {tuple(mono.shape)}")
    if not mono.isfinite().all():
        raise ValueError("some samples are infinite or no numbers")
    return mono.float()


class Resampler:
    """Samples of one rate to another, in blocks of any size, equal to the whole resampled by lhotse.

    Args:
        source: rate of what comes in, in Hz.
        target: rate of what goes out.

    Raises:
        ValueError: the rates have so little in common that the filter would be huge.
    """

    def __init__(self, source: int, target: int) -> None:
        if source < 1:
            raise ValueError(f"a sample rate of {source} Hz")
        self._source, self._target = source, target
        divisor = math.gcd(source, target)
        # Of each group of samples in comes a group of samples out.
        self._group_in, self._group_out = source // divisor, target // divisor
        if self._group_in * self._group_out > _MAX_FILTER:
            raise ValueError(f"{source} Hz cannot be resampled to {target} Hz: first convert it to a usual rate")
        self._received = self._sent = 0
        if source != target:
            resample = Resample(source, target)
            self._kernel: Tensor = resample.kernel  # (group_out, 1, group_in + 2·width)
            self._width: int = resample.width
            self._samples = torch.zeros(self._width)  # received, and still needed

    def accept(self, samples: Tensor) -> Tensor:
        """Push samples (n,); returns (m,), those that follow from what has come so far."""
        self._received += len(samples)
        if self._source == self._target:
            return samples
        self._samples = torch.cat([self._samples, samples])
        groups = (len(self._samples) - 2 * self._width) // self._group_in
        if groups < 1:
            return samples[:0]
        used = groups * self._group_in
        out = F.conv1d(self._samples[None, : used + 2 * self._width], self._kernel, stride=self._group_in)
        self._samples = self._samples[used:]
        self._sent += groups * self._group_out
        return out.T.flatten()  # of (group_out, groups)

    def finish(self) -> Tensor:
        """The last ones: in all round(duration · target) have come then."""
        if self._source == self._target:
            return torch.zeros(0)
        missing = (2 * self._received * self._target + self._source) // (2 * self._source) - self._sent
        out = self.accept(torch.zeros(self._width + self._group_in))
        return out[:missing]
