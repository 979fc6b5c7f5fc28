"""The door through which all audio is opened: any format, the length that its header promises, samples to its true end.

Headers often state a wrong length: of MP3 files without a frame count or joined from several, of FLAC and WAV written
to a pipe or by a recorder that crashed, of files that were cut off. libsndfile, with which lhotse reads training audio,
believes them. So :func:`open_audio` compares libsndfile's number of samples with the data in the file, and FFmpeg (the
libraries inside the package av) decodes what libsndfile would read wrongly or cannot read.
"""

import io
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer

BLOCK_SECONDS = 1.0
# Audio may be this many seconds shorter than its header or its segments state: segment ends are often rounded, or were
# measured on another decoder's output.
END_TOLERANCE = 0.1

# Formats whose headers hold an exact length. FFmpeg estimates lengths for the others from bit rates.
_EXACT_CONTAINERS = {"aiff", "au", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere", "tta", "wav", "wv"}
# A playlist must not make FFmpeg open other files or addresses.
_NO_PROTOCOL = {"protocol_whitelist": "none"}
# Formats that FFmpeg reads as well as libsndfile.
_SCANNED_FORMATS = {"AIFF", "AU", "FLAC", "MP3", "NIST", "OGG"}
_WIDE_SUBTYPES = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
_WAV_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff")
_EXTENSIBLE, _PLAIN_CODECS = 0xFFFE, {1, 3, 6, 7}  # of WAV; PCM, float, A-law, µ-law
MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz; a header with another rate is damaged
_MAX_BLOCK = 1 << 22  # values, for headers with thousands of channels
REMEDY = "restore the file, or convert it: ffmpeg -i IN OUT.flac"
_PACKED_SUBTYPES = {"GSM610", "IMA_ADPCM", "G721_32", "G723_24", "G723_40", "DWVW_12", "DWVW_16", "DWVW_24"}
_MAX_PACKET_SECONDS = 3600
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
        with _ffmpeg(self.path, self.ffmpeg_options) as (container, stream):
            converter = _Converter(self.sample_rate)
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


class _SeekableFile(io.BufferedReader):
    """A file for FFmpeg, which a damaged header may make seek to a place before its beginning."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1  # Otherwise av prints the exception.


class _Converter:
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
        length = _measure(path, sound, log)
        if sound is not None:
            if abs(length.seconds - sound.frames / sound.samplerate) <= END_TOLERANCE:
                declared = _samples(length.declared, sound.samplerate)
                bits = 24 if sound.subtype in _WIDE_SUBTYPES else 16
                return AudioFile(path, sound.samplerate, sound.channels, declared, bits=bits)
            stated = f"{sound.frames / sound.samplerate:.2f} s" if sound.frames < _MAX_SAMPLES else "no length"
            problem = f"libsndfile finds {stated} of {length.seconds:.2f} s"
        with _ffmpeg(path, length.ffmpeg_options) as (container, stream):
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


class _Length(NamedTuple):
    """Length of the audio in a file."""

    seconds: float
    """What the file holds, not decoded; within :data:`END_TOLERANCE`."""
    declared: float | None
    """What its header promises; None if it promises nothing usable."""
    ffmpeg_options: dict[str, str]


def _measure(path: str, sound: soundfile.SoundFile | None, log: str) -> _Length:
    """Measure the audio in a file.

    Args:
        path: the file.
        sound: the same file as libsndfile opened it, or None.
        log: notes that libsndfile has made while it opened the file.
    """
    if sound is None:
        _wav_length(path, math.nan)  # refuses joined files, which libsndfile does not open
        with _ffmpeg(path, {}) as (container, stream):
            declared = _container_seconds(container, stream)
            # libsndfile opens CAF and VOC files unless they are truncated.
            if container.format.name in ("caf", "voc") and stream.duration is not None:
                ratio = _block_ratio(path) if stream.codec_context.name.startswith("pcm_") else 1.0
                declared = ratio * float(stream.duration * (stream.time_base or 1))
            return _Length(math.nan, declared, {})
    seconds = sound.frames / sound.samplerate
    if sound.format in ("WAV", "WAVEX", "RF64", "W64"):
        return _wav_length(path, seconds)
    # FFmpeg takes the packets of compressed AIFF for samples.
    if sound.format not in _SCANNED_FORMATS or sound.subtype in _PACKED_SUBTYPES:
        return _Length(seconds, seconds * max(_logged_ratio(log), _block_ratio(path)), {})
    with _ffmpeg(path, {}) as (container, stream):
        declared = _container_seconds(container, stream)
        scanned = _packet_seconds(container, stream)
    if sound.format == "MP3" and _has_frame_count(path):
        declared = seconds
    return _Length(scanned, declared, {})


def _container_seconds(container: InputContainer, stream: AudioStream) -> float | None:
    """Length that the header of a container states exactly, or None."""
    if container.format.name not in _EXACT_CONTAINERS:
        return None
    if stream.duration is not None:
        return float(stream.duration * (stream.time_base or 1))
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    # With video, the container may be longer than its audio.
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def _logged_ratio(log: str) -> float:
    """Ratio of the length that a header states to what is there, from the notes that libsndfile makes of it."""
    notes = [(int(stated), int(there)) for stated, there in re.findall(r"(\d+) \(?should be (\d+)", log)]
    notes += [(int(stated), int(there)) for there, stated in re.findall(r"truncated\. (\d+) <--> (\d+)", log)]
    return max([1.0, *(stated / there for stated, there in notes if there > 0 and not _is_placeholder(stated))])


def _block_ratio(path: str) -> float:
    """Ratio of the length that the blocks of a CAF or VOC file state to what is there; 1 for other files."""
    end = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(26)
        is_caf = magic.startswith(b"caff")
        if not is_caf and not magic.startswith(b"Creative Voice File"):
            return 1.0
        first = 8 if is_caf else int.from_bytes(magic[20:22], "little")
        file.seek(first)
        while len(header := file.read(12 if is_caf else 4)) == (12 if is_caf else 4):
            # Of type 0, VOC's last block, there is nothing but the type.
            size = int.from_bytes(header[4:], "big", signed=True) if is_caf else int.from_bytes(header[1:], "little")
            begin = file.tell()
            if is_caf:
                first = begin  # one block has all samples
            if size < 0:  # unknown
                break
            if begin + size > end > first:
                return (begin + size - first) / (end - first)
            file.seek(size, os.SEEK_CUR)
    return 1.0


def _packet_seconds(container: InputContainer, stream: AudioStream) -> float:
    """Sum of the packets' lengths, without the samples that the encoder has added at both ends."""
    seconds, end = 0.0, None
    time_base = stream.time_base or Fraction(1, stream.sample_rate)
    for packet in container.demux(stream):
        length = float((packet.duration or 0) * time_base)
        if length > _MAX_PACKET_SECONDS:  # FFmpeg gives Vorbis' first packet 2^32 samples
            length = 0.0
        start = None if packet.pts is None else float(packet.pts * time_base)
        # FFmpeg takes some Vorbis packets for shorter than they are. Long gaps are missing audio, or joined files.
        if start is not None and end is not None and abs(start - end) < END_TOLERANCE:
            seconds += start - end
        seconds += length
        end = None if start is None else start + length
        if packet.has_sidedata("skip_samples"):
            first, last = struct.unpack("<II", bytes(packet.get_sidedata("skip_samples"))[:8])
            seconds -= (first + last) / stream.sample_rate
    return seconds


def _has_frame_count(path: str) -> bool:
    """True if an MP3 file begins with a frame that states the number of frames (of Xing, LAME or Fraunhofer)."""
    with open(path, "rb") as file:
        while (tag := file.read(10))[:3] == b"ID3":
            file.seek(_syncsafe(tag[6:10]), os.SEEK_CUR)
        frame = tag + file.read(200)
    match = re.search(rb"(Xing|Info)...(.)|VBRI", frame, re.DOTALL)
    return match is not None and (match[2] is None or bool(match[2][0] & 1))


def _tag_end(packet: av.Packet) -> int:
    """Position in the file behind a tag inside a packet; 0 without one. Tags lie between joined MP3 files."""
    if packet.pos is None or packet.stream.codec_context.name not in ("mp3", "mp3float"):
        return 0
    data = bytes(packet)
    if (begin := data.find(b"ID3")) >= 0:
        return packet.pos + begin + 10 + _syncsafe(data[begin + 6 : begin + 10])
    return packet.pos + 1 if any(mark in data for mark in (b"TAG", b"APETAGEX", b"LYRICSBEGIN")) else 0


def _syncsafe(data: bytes) -> int:
    """The number in bytes of seven bits each."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 127
    return number


def _wav_length(path: str, libsndfile_seconds: float) -> _Length:
    """Length of a WAV file (RIFF, RF64 or W64), by its chunks.

    A recorder or pipe that could not finish the header leaves 0, the maximum or an earlier length in it.

    Raises:
        ValueError: a second WAV file follows the first in the same file.
    """
    end = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic not in _WAV_MAGICS:
            return _Length(libsndfile_seconds, None, {})
        order = ">" if magic == b"RIFX" else "<"
        wide = magic == b"riff"
        # In W64, names have 16 bytes, sizes 8, which include both, and chunks begin at multiples of 8.
        head = struct.Struct("<4s12xQ") if wide else struct.Struct(f"{order}4sI")
        alignment = 8 if wide else 2
        file.seek(40 if wide else 12)
        bytes_per_second, long_size, is_packed = 0, 0, False
        while len(header := file.read(head.size)) == head.size:
            name, size = head.unpack(header)
            size -= head.size if wide else 0
            begin = file.tell()
            if name == b"data":
                break
            if name == b"fmt ":
                bytes_per_second, is_packed = _wav_codec(file.read(max(min(size, 26), 0)), order)
            elif name == b"ds64":
                (long_size,) = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))
            if not 0 <= size <= end - begin:  # a damaged header
                bytes_per_second = 0
                break
            file.seek(begin + -(-size // alignment) * alignment)
        else:
            bytes_per_second = 0
        if not bytes_per_second:
            return _Length(libsndfile_seconds, None, {})
        if size == 0xFFFFFFFF and long_size:
            size = long_size
        there = end - begin
        is_unknown = size <= 0 or (size > there and _is_placeholder(size))
        if size < there:
            file.seek(begin + max(-(-size // alignment) * alignment, 0))
            header = file.read(head.size)
            # Behind the samples there may be other chunks, or less than a header.
            is_chunk = len(header) == head.size and header[:4].isascii() and header[:4].decode().isprintable()
            is_chunk = is_chunk and head.unpack(header)[1] <= there - size
            if is_chunk and header[:4] in _WAV_MAGICS:
                raise ValueError("a second WAV file follows the first: separate them, because programs read only one")
            if is_chunk or there - size <= END_TOLERANCE * bytes_per_second:
                there = size
        if is_packed and not is_unknown and 0 < there <= size:
            # The bytes per second of a block codec are rounded, libsndfile counts its blocks.
            return _Length(libsndfile_seconds, libsndfile_seconds * size / there, {})
        declared = None if is_unknown else size / bytes_per_second
        # By its length, FFmpeg too would leave samples out that the header does not count.
        options = {"ignore_length": "1"} if not wide and (is_unknown or there != size) else {}
        return _Length(there / bytes_per_second, declared, options)


def _wav_codec(form: bytes, order: str) -> tuple[int, bool]:
    """Bytes per second by the beginning of a fmt chunk, 0 if it is incomplete; True if a block codec packs samples."""
    if len(form) < 14:
        return 0, False
    tag, _, rate, bytes_per_second, block = struct.unpack(f"{order}HHIIH", form[:14])
    if tag == _EXTENSIBLE and len(form) == 26:
        (tag,) = struct.unpack(f"{order}H", form[24:])
    is_packed = tag not in _PLAIN_CODECS
    return (bytes_per_second if is_packed else rate * block), is_packed  # of plain samples, the field may be wrong


def _is_placeholder(size: int) -> bool:
    """True for a size that programs write when they do not know it: about 2^31 or 2^32."""
    return min(abs(size - (1 << 31)), abs(size - (1 << 32))) < 1 << 16


@contextmanager
def _ffmpeg(path: str, options: dict[str, str]) -> Iterator[tuple[InputContainer, AudioStream]]:
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
