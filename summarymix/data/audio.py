"""Recordings of any length, format and rate, read block by block in bounded memory.

Resampling uses lhotse's filter, as data preparation does: a windowed sinc of finite length. So the blocks of a stream
give the same samples as the whole recording.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lhotse.augmentation.resample import Resample
from torch import Tensor

from summarymix.data.audio_file import open_audio

MAX_CHANNELS = 64  # more, and more than samples, are samples in the place of channels
# Rates a and b, divided by their common divisor, need a filter of about a·b taps: up to 300,000 for usual rates.
MAX_FILTER = 1 << 20
# lhotse's filter: a sinc of 6 zero crossings on each side under a Hann window, at 0.99 of the lower Nyquist frequency.
_ZERO_CROSSINGS, _ROLLOFF = 6, 0.99
_MAX_WEIGHTS = 1 << 20  # computed at a time
# Share of the channels' energy in their mean, below which they cancel each other: -40 dB. Equal ones have 1.
_CANCELLED = 1e-4


class AudioReader:
    """Reads a recording block by block as one channel.

    Args:
        path: an audio or video file of any format that :func:`summarymix.data.audio_file.open_audio` opens.
        channel: number of the channel, from 0; None for the mean of all channels.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read or lacks the channel; the message names the file and the remedy.
    """

    def __init__(self, path: Path | str, channel: int | None = None) -> None:
        self.path = path
        self._audio = open_audio(path)
        self.sample_rate: int = self._audio.sample_rate
        try:
            _check_channel(channel, self._audio.num_channels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        self._channel = channel

    def blocks(self, sample_rate: int | None = None) -> Iterator[Tensor]:
        """Yield all samples in blocks (n,) float32 of about :data:`summarymix.data.audio_file.BLOCK_SECONDS` each.

        Args:
            sample_rate: output sample rate in Hz; None for the file's own.

        Raises:
            ValueError: the file is empty, damaged, or shorter than its header states.
        """
        try:
            resampler = Resampler(self.sample_rate, sample_rate or self.sample_rate)
            done = 0
            energy = mono_energy = 0.0
            for samples in self._audio.blocks():  # (n, channels)
                done += len(samples)
                mono = to_mono(samples, self._channel)
                energy += float(np.square(samples).mean(1).sum())
                mono_energy += float(mono.square().sum())
                yield resampler.accept(mono)
            if self._channel is None and mono_energy < _CANCELLED * energy:
                raise ValueError("the channels are of opposite phase, so that their mean is silent: give --channel 0")
            if not done:
                raise ValueError("no samples: restore the file")
            if self._audio.missing_seconds(done):
                ends, stated = (n / self.sample_rate for n in (done, self._audio.declared or 0))
                raise ValueError(
                    f"damaged, ends after {ends:.1f} of {stated:.1f} s: restore the file, or if this is all there is, "
                    "save it as a new one: ffmpeg -i IN OUT.flac"
                )
            yield resampler.finish()
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def to_mono(samples: Tensor | np.ndarray, channel: int | None = None) -> Tensor:
    """Convert samples (n,) or (n, channels), as soundfile reads them, to one channel (n,) float32 in [-1, 1].

    Args:
        samples: floating point, or integers, whose range is mapped to [-1, 1).
        channel: number of the channel; None for the mean of all channels.

    Raises:
        ValueError: a sample is not finite, the shape is wrong, or there is no such channel.
    """
    # A copy, because torch warns about read-only arrays.
    mono = samples if isinstance(samples, Tensor) else torch.tensor(samples)
    if not mono.is_floating_point():
        limits = torch.iinfo(mono.dtype)
        mono = (mono.double() - limits.min) * (2 / (limits.max - limits.min + 1)) - 1
    if mono.dim() == 2 and mono.size(1) > max(mono.size(0), MAX_CHANNELS):
        shape = tuple(mono.shape)
        raise ValueError(f"expected samples (n,) or (n, channels), got {shape}: transpose them, as samples.T")
    _check_channel(channel, mono.size(1) if mono.dim() == 2 else 1)
    if mono.dim() == 2:
        mono = mono.mean(1) if channel is None else mono[:, channel]
    if mono.dim() != 1:
        raise ValueError(f"expected samples (n,) or (n, channels), got {tuple(mono.shape)}")
    if not mono.isfinite().all():
        raise ValueError("some samples are infinite or NaN")
    return mono.float()


def _check_channel(channel: int | None, num_channels: int) -> None:
    if channel is not None and not 0 <= channel < num_channels:
        raise ValueError(f"no channel {channel}: the audio has {num_channels}, counted from 0")


class Resampler:
    """Resamples a stream in blocks of any size. The output equals lhotse's for the whole recording.

    Args:
        source: input sample rate in Hz.
        target: output sample rate in Hz.

    Raises:
        ValueError: ``source`` is below 1.
    """

    def __init__(self, source: int, target: int) -> None:
        if source < 1:
            raise ValueError(f"the sample rate is {source} Hz: it must be at least 1 Hz")
        self._source, self._target = source, target
        divisor = math.gcd(source, target)
        # Each group of input samples gives a group of output samples.
        self._group_in, self._group_out = source // divisor, target // divisor
        self._received = self._sent = 0
        self._kernel: Tensor | None = None
        if source == target:
            return
        if has_small_filter(source, target):
            resample = Resample(source, target)
            self._kernel = resample.kernel  # (group_out, 1, group_in + 2·width)
            self._width: int = resample.width
        else:
            self._width = math.ceil(_ZERO_CROSSINGS * source / (_ROLLOFF * min(source, target)))
        self._samples = torch.zeros(self._width)  # received and still needed
        self._dropped = -self._width  # number of received samples before them

    def accept(self, samples: Tensor) -> Tensor:
        """Push samples (n,); return the output samples (m,) that are complete."""
        self._received += len(samples)
        if self._source == self._target:
            return samples
        self._samples = torch.cat([self._samples, samples])
        out = self._interpolate() if self._kernel is None else self._convolve(self._kernel)
        self._sent += len(out)
        return out

    def finish(self) -> Tensor:
        """Return the last samples; the stream then has round(duration · target) in all."""
        if self._source == self._target:
            return torch.zeros(0)
        missing = (2 * self._received * self._target + self._source) // (2 * self._source) - self._sent
        out = self.accept(torch.zeros(self._width + self._group_in))
        return out[:missing]

    def _convolve(self, kernel: Tensor) -> Tensor:
        """The output samples that are complete, by the filter's weights for a whole group."""
        groups = (len(self._samples) - 2 * self._width) // self._group_in
        if groups < 1:
            return self._samples[:0]
        used = groups * self._group_in
        out = F.conv1d(self._samples[None, : used + 2 * self._width], kernel, stride=self._group_in)
        self._samples = self._samples[used:]
        return out.T.flatten()  # of (group_out, groups)

    def _interpolate(self) -> Tensor:
        """The output samples that are complete, by the filter's weights at each one's own time."""
        received = self._dropped + len(self._samples)
        # Output sample k lies at k · source / target, and needs the input samples up to ``width`` behind that.
        end = max(self._sent, ((received - self._width - 1) * self._target - 1) // self._source + 1)
        taps = torch.arange(-self._width, self._width + 2)  # (taps,)
        cutoff = _ROLLOFF * min(self._source, self._target) / self._source  # in cycles per two input samples
        parts = [self._samples[:0]]
        for numbers in torch.arange(self._sent, end).split(max(_MAX_WEIGHTS // len(taps), 1)):
            whole = numbers * self._source // self._target  # (n,) input sample at or before each output sample
            behind = (numbers * self._source % self._target).double() / self._target
            times = (taps - behind[:, None]) * cutoff  # (n, taps), in zero crossings
            times = times.clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
            weights = cutoff * torch.sinc(times) * torch.cos(times * math.pi / (2 * _ZERO_CROSSINGS)) ** 2
            inputs = self._samples[whole[:, None] + taps - self._dropped]  # (n, taps)
            parts.append((inputs * weights).sum(1).float())
        first_needed = end * self._source // self._target - self._width
        self._samples = self._samples[first_needed - self._dropped :]
        self._dropped = first_needed
        return torch.cat(parts)


def has_small_filter(source: int, target: int) -> bool:
    """True if the filter for these rates in Hz, which lhotse computes for all phases at once, is of moderate size."""
    return source * target // math.gcd(source, target) ** 2 <= MAX_FILTER
