"""Recordings of any length, format and rate, read block by block in bounded memory.

Resampling uses lhotse's filter, as data preparation does: a windowed sinc of finite length. So the blocks of a stream
give the same samples as the whole recording.
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
# Audio may be this many seconds shorter than its header or its segments state: segment ends are often rounded, or were
# measured on another decoder's output.
END_TOLERANCE = 0.1
# Rates a and b, divided by their common divisor, need a filter of about a·b taps: up to 300,000 for usual rates.
_MAX_FILTER = 1 << 24


class _ForwardFile(soundfile.SoundFile):
    """A sound file without seeking.

    soundfile seeks to the current position after each read. In MP3 and Opus this corrupts the first samples of the next
    block.
    """

    def seekable(self) -> bool:
        return False


class AudioReader:
    """Reads a recording block by block as one channel.

    Args:
        path: a file in any format that libsndfile reads: WAV, FLAC, OGG, Opus, MP3 and more.
        channel: number of the channel, from 0; None for the mean of all channels.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read or lacks the channel; the message names the file and the remedy.
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
            raise ValueError(f"{path}: no channel {channel}: the file has {self._file.channels}, counted from 0")
        self._channel = channel

    def blocks(self, sample_rate: int | None = None) -> Iterator[Tensor]:
        """Yield all samples in blocks (n,) float32 of about :data:`BLOCK_SECONDS` each.

        Args:
            sample_rate: output sample rate in Hz; None for the file's own.

        Raises:
            ValueError: the file is damaged or truncated, or cannot be resampled.
        """
        try:
            resampler = Resampler(self.sample_rate, sample_rate or self.sample_rate)
            for samples in self._read():
                yield resampler.accept(to_mono(samples, self._channel))
            yield resampler.finish()
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _read(self) -> Iterator[np.ndarray]:
        """Yield blocks (n, channels) at the file's own sample rate."""
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
    """Return libsndfile's message without the file name."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def to_mono(samples: Tensor | np.ndarray, channel: int | None = None) -> Tensor:
    """Convert samples (n,) or (n, channels), as soundfile reads them, to one channel (n,) float32 in [-1, 1].

    Args:
        samples: floating point, or integers, which are scaled to [-1, 1).
        channel: number of the channel; None for the mean of all channels.

    Raises:
        ValueError: a sample is not finite, or the shape is wrong.
    """
    # A copy, because torch warns about read-only arrays.
    mono = samples if isinstance(samples, Tensor) else torch.tensor(samples)
    if not mono.is_floating_point():
        mono = mono / (torch.iinfo(mono.dtype).max + 1)
    if mono.dim() == 2:
        mono = mono.mean(1) if channel is None else mono[:, channel]
    if mono.dim() != 1:
        raise ValueError(f"expected samples (n,) or (n, channels), got {tuple(mono.shape)}")
    if not mono.isfinite().all():
        raise ValueError("some samples are infinite or NaN")
    return mono.float()


class Resampler:
    """Resamples a stream in blocks of any size. The output equals lhotse's for the whole recording.

    Args:
        source: input sample rate in Hz.
        target: output sample rate in Hz.

    Raises:
        ValueError: ``source`` is below 1, or the common divisor of the rates is so small that the filter would be huge.
    """

    def __init__(self, source: int, target: int) -> None:
        if source < 1:
            raise ValueError(f"the sample rate is {source} Hz: it must be at least 1 Hz")
        self._source, self._target = source, target
        divisor = math.gcd(source, target)
        # Each group of input samples gives a group of output samples.
        self._group_in, self._group_out = source // divisor, target // divisor
        if self._group_in * self._group_out > _MAX_FILTER:
            raise ValueError(f"{source} Hz cannot be resampled to {target} Hz: first convert the audio to a usual rate")
        self._received = self._sent = 0
        if source != target:
            resample = Resample(source, target)
            self._kernel: Tensor = resample.kernel  # (group_out, 1, group_in + 2·width)
            self._width: int = resample.width
            self._samples = torch.zeros(self._width)  # received and still needed

    def accept(self, samples: Tensor) -> Tensor:
        """Push samples (n,); return the output samples (m,) that are complete."""
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
        """Return the last samples; the stream then has round(duration · target) in all."""
        if self._source == self._target:
            return torch.zeros(0)
        missing = (2 * self._received * self._target + self._source) // (2 * self._source) - self._sent
        out = self.accept(torch.zeros(self._width + self._group_in))
        return out[:missing]
