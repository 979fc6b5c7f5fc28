"""The door through which all audio is opened: any format, the length that its header promises, samples to its true end.

Headers often state a wrong length: of MP3 files without a frame count or joined from several, of FLAC and WAV written
to a pipe or by a recorder that crashed, of files that were cut off. libsndfile, with which lhotse reads training audio,
believes them. So :func:`open_audio` compares libsndfile's number of samples with the data in the file, and FFmpeg (the
libraries inside the package av) decodes what libsndfile would read wrongly or cannot read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile

from summarymix.data.audio_length import END_TOLERANCE, measure_length, syncsafe
from summarymix.data.ffmpeg import REMEDY, Converter, open_ffmpeg

BLOCK_SECONDS = 1.0
_WIDE_SUBTYPES = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz; a header with another rate is damaged
_MAX_BLOCK = 1 << 22  # values, for headers with thousands of channels
_MAX_SAMPLES = 1 << 40  # longer headers hold no length: libsndfile states 2^63 - 1 samples for FLAC of unknown length


@dataclass(frozen=True)
class AudioFile:
    """A recording that can be read block by block to its true end. Made by :func:`open_audio`."""

    path: str
    sample_rate: int
    num_channels: int
    declared: int | None
    """Number of samples that the header promises; None if it promises nothing usable."""
    libsndfile_problem: str = ""
    """Why libsndfile cannot read the file to its true end, so that FFmpeg does; empty if libsndfile can."""
    bits: int = 16
    """Bits that hold a sample without loss: 16 or 24."""
    ffmpeg_options: dict[str, str] = field(default_factory=dict)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks (n, channels) float32 in [-1, 1] of about :data:`BLOCK_SECONDS` each, to the true end.

        An incomplete frame at the end, of at most :data:`END_TOLERANCE`, is left out.

        Raises:
            ValueError: the audio is damaged before its end; the message does not name the file.
        """
        return self._ffmpeg_blocks() if self.libsndfile_problem else self._libsndfile_blocks()

    def missing_seconds(self, num_samples: int) -> float:
        """Seconds that the header promises beyond ``num_samples``; 0 within :data:`END_TOLERANCE`."""
        missing = ((self.declared or 0) - num_samples) / self.sample_rate
        return missing if missing > END_TOLERANCE else 0.0

    def libsndfile_samples(self) -> int | None:
        """Number of samples that libsndfile reads; None if it cannot read to the end, or not from within the file."""
        done = 0
        try:
            with soundfile.SoundFile(self.path) as sound:
                if not sound.seekable():
                    return None
                tail = min(sound.frames, sound.samplerate // 100)
                sound.seek(sound.frames - tail)
                if len(sound.read(tail)) == tail:
                    return sound.frames
            # The last frame of an MP3 may be incomplete.
            with _ForwardFile(self.path) as sound:
                while n := len(sound.read(max(_MAX_BLOCK // sound.channels, 1), dtype="float32")):
                    done += n
        except RuntimeError:
            return None
        return done

    def _libsndfile_blocks(self) -> Iterator[np.ndarray]:
        done = 0
        size = max(min(round(BLOCK_SECONDS * self.sample_rate), _MAX_BLOCK // self.num_channels), 1)
        with open(self.path, "rb") as file, _ForwardFile(file.fileno(), closefd=False) as sound:
            while True:
                try:
                    samples = sound.read(size, dtype="float32", always_2d=True)
                except RuntimeError:
                    break
                if not len(samples):
                    return
                done += len(samples)
                yield samples  # (n, channels)
        # libsndfile loses a whole block with a damaged frame. FFmpeg reads up to it, and finds its time.
        for samples in self._ffmpeg_blocks():
            if len(samples) > done:
                yield samples[done:]
            done = max(done - len(samples), 0)

    def _ffmpeg_blocks(self) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        num_waiting = 0
        for samples in self._ffmpeg_frames():
            waiting.append(samples)
            num_waiting += len(samples)
            if num_waiting >= BLOCK_SECONDS * self.sample_rate:
                yield np.concatenate(waiting)
                waiting, num_waiting = [], 0
        if waiting:
            yield np.concatenate(waiting)

    def _ffmpeg_frames(self) -> Iterator[np.ndarray]:
        """Yield decoded frames (n, channels)."""
        done = 0
        damage = ""
        failed: list[float] = []  # seconds of the packets that cannot be decoded
        tag_end = 0
        with open_ffmpeg(self.path, self.ffmpeg_options) as (container, stream):
            converter = Converter(self.sample_rate)
            for packet in container.demux(stream):
                tag_end = max(tag_end, _tag_end(packet))
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    if packet.pos is None or packet.pos >= tag_end:
                        damage = damage or f"damaged at {done / self.sample_rate:.1f} s: {error.strerror}"
                        failed.append(float((packet.duration or 0) * (packet.time_base or 0)))
                    continue
                for frame in frames:
                    if container.format.name == "flac" and frame.time is not None:
                        # FFmpeg drops what is damaged. The next frame's number tells how much.
                        seconds = done / self.sample_rate
                        if frame.time - seconds > END_TOLERANCE:
                            raise ValueError(f"damaged at {seconds:.1f} s: {frame.time - seconds:.1f} s are missing")
                    samples = converter.convert(frame)
                    if damage and len(samples):
                        raise ValueError(damage)
                    done += len(samples)
                    yield samples
            # An incomplete packet at the end is no damage: the header tells whether more is missing.
            if sum(failed[:-1]) > END_TOLERANCE:
                raise ValueError(damage)
            yield converter.finish()


class _ForwardFile(soundfile.SoundFile):
    """A sound file without seeking.

    soundfile seeks to the current position after each read. In MP3 and Opus this corrupts the first samples of the next
    block.
    """

    def seekable(self) -> bool:
        return False


def open_audio(path: Path | str) -> AudioFile:
    """Open an audio or video file of any format, and find out who can read it to its true end.

    Of WAV this reads the headers; other files are read once, but not decoded.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be opened, or has no audio; the message names the file and the remedy.
    """
    path = os.fspath(path)
    _check_readable(path)
    try:
        with open(path, "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            problem, log = "", sound.extra_info
    # soundfile.SoundFileError is a RuntimeError
    except RuntimeError as error:
        sound, problem, log = None, _reason(error), ""
    if sound is not None:
        _check_rate(path, sound.samplerate)
    try:
        length = measure_length(path, sound, log)
        if sound is not None:
            if abs(length.seconds - sound.frames / sound.samplerate) <= END_TOLERANCE:
                declared = _samples(length.declared, sound.samplerate)
                bits = 24 if sound.subtype in _WIDE_SUBTYPES else 16
                return AudioFile(path, sound.samplerate, sound.channels, declared, bits=bits)
            stated = f"{sound.frames / sound.samplerate:.2f} s" if sound.frames < _MAX_SAMPLES else "no length"
            problem = f"libsndfile finds {stated} of {length.seconds:.2f} s"
        with open_ffmpeg(path, length.ffmpeg_options) as (container, stream):
            # Only a decoded frame has the true sample rate, which is twice that of the header in some AAC.
            frame = next(container.decode(stream), None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if frame is None:
        raise ValueError(f"{path}: no samples: restore the file")
    _check_rate(path, frame.sample_rate)
    declared = _samples(length.declared, frame.sample_rate)
    bits = 24 if frame.format.name in ("s32", "s32p") else 16
    channels = frame.layout.nb_channels
    return AudioFile(path, frame.sample_rate, channels, declared, problem, bits, length.ffmpeg_options)


def _tag_end(packet: av.Packet) -> int:
    """Position in the file behind a tag inside a packet; 0 without one. Tags lie between joined MP3 files."""
    if packet.pos is None or packet.stream.codec_context.name not in ("mp3", "mp3float"):
        return 0
    data = bytes(packet)
    if (begin := data.find(b"ID3")) >= 0:
        return packet.pos + begin + 10 + syncsafe(data[begin + 6 : begin + 10])
    return packet.pos + 1 if any(mark in data for mark in (b"TAG", b"APETAGEX", b"LYRICSBEGIN")) else 0


def _check_readable(path: str) -> None:
    """Raise an error with its remedy unless ``path`` is an ordinary file that may be read."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: give the audio files in it")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not an ordinary file: save the audio in one first")
    try:
        open(path, "rb").close()
    except PermissionError as error:
        raise ValueError(f"{path}: permission denied: make it readable with chmod +r, or ask its owner") from error


def _check_rate(path: str, rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"{path}: the sample rate is {rate} Hz, not {MIN_RATE} to {MAX_RATE}: {REMEDY}")


def _samples(seconds: float | None, sample_rate: int) -> int | None:
    return None if seconds is None else round(seconds * sample_rate)


def _reason(error: Exception) -> str:
    """Return libsndfile's message without the file name."""
    return str(getattr(error, "error_string", error)).rstrip(".")
