"""FFmpeg, by the libraries inside the package av: opening files, converting decoded frames."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

REMEDY = "restore the file, or convert it: ffmpeg -i IN OUT.flac"
# A playlist must not make FFmpeg open other files or addresses.
_NO_PROTOCOL = {"protocol_whitelist": "none"}


@contextmanager
def open_ffmpeg(path: str, options: dict[str, str]) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file with FFmpeg; yield its container and its main audio stream.

    Raises:
        ValueError: FFmpeg cannot read the file, or it has no audio; the message does not name it.
    """
    try:
        # Opened here, because FFmpeg takes a name such as a:b for an address.
        with (
            _SeekableFile(io.FileIO(path)) as file,
            av.open(file, options=_NO_PROTOCOL | options, metadata_errors="replace") as container,
        ):
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream) or stream.codec_context is None:
                raise ValueError(f"no audio that FFmpeg knows: {REMEDY}")
            if stream.codec_context.name == "flac":
                # Otherwise FFmpeg plays damaged frames as noise.
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{error.strerror}: {REMEDY}") from error


class _SeekableFile(io.BufferedReader):
    """A file for FFmpeg, which a damaged header may make seek to a place before its beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1  # Otherwise av prints the exception.


class Converter:
    """Converts decoded frames to samples of the first frame's number of channels and sample rate.

    Both may change within a file, for example in an MP3 joined from several.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._layout: av.AudioLayout | None = None
        self._source: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def convert(self, frame: av.AudioFrame) -> np.ndarray:
        """Return the samples (n, channels) float32 that are complete after a frame."""
        self._layout = self._layout or frame.layout
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        before = []
        if source != self._source:
            before = self._convert(None)
            self._source = source
            self._resampler = av.AudioResampler("flt", self._layout, self._sample_rate)
        frame.pts = None
        return np.concatenate([*before, *self._convert(frame)]) if frame.samples else self._nothing()

    def finish(self) -> np.ndarray:
        """Return the last samples."""
        rest = self._convert(None)
        return np.concatenate(rest) if rest else self._nothing()

    def _convert(self, frame: av.AudioFrame | None) -> list[np.ndarray]:
        if self._resampler is None:
            return []
        assert self._layout is not None
        return [
            converted.to_ndarray().reshape(-1, self._layout.nb_channels)
            for converted in self._resampler.resample(frame)
            if converted is not None and converted.samples
        ] or [self._nothing()]

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, self._layout.nb_channels if self._layout else 1), np.float32)
