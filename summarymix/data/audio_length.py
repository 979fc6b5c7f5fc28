"""The true length of the audio in a file, and the length that its header promises."""

import math
import os
import re
import struct
from fractions import Fraction
from typing import NamedTuple

import av
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer

from summarymix.data.ffmpeg import open_ffmpeg

# Audio may be this many seconds shorter than its header or its segments state: segment ends are often rounded, or were
# measured on another decoder's output.
END_TOLERANCE = 0.1

# Formats whose headers hold an exact length. FFmpeg estimates lengths for the others from bit rates.
_EXACT_CONTAINERS = {"aiff", "au", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere", "tta", "wav", "wv"}
# Formats that FFmpeg reads as well as libsndfile.
_SCANNED_FORMATS = {"AIFF", "AU", "FLAC", "MP3", "NIST", "OGG"}
_WAV_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff")
_EXTENSIBLE, _PLAIN_CODECS = 0xFFFE, {1, 3, 6, 7}  # of WAV; PCM, float, A-law, µ-law
_PACKED_SUBTYPES = {"GSM610", "IMA_ADPCM", "G721_32", "G723_24", "G723_40", "DWVW_12", "DWVW_16", "DWVW_24"}
_MAX_PACKET_SECONDS = 3600


class Length(NamedTuple):
    """Length of the audio in a file."""

    seconds: float
    """What the file holds, not decoded; within :data:`END_TOLERANCE`."""
    declared: float | None
    """What its header promises; None if it promises nothing usable."""
    ffmpeg_options: dict[str, str]


def measure_length(path: str, sound: soundfile.SoundFile | None, log: str) -> Length:
    """Measure the audio in a file.

    Args:
        path: the file.
        sound: the same file as libsndfile opened it, or None.
        log: notes that libsndfile has made while it opened the file.
    """
    if sound is None:
        _wav_length(path, math.nan)  # refuses joined files, which libsndfile does not open
        with open_ffmpeg(path, {}) as (container, stream):
            declared = _container_seconds(container, stream)
            # libsndfile opens CAF and VOC files unless they are truncated.
            if container.format.name in ("caf", "voc") and stream.duration is not None:
                ratio = _block_ratio(path) if stream.codec_context.name.startswith("pcm_") else 1.0
                declared = ratio * float(stream.duration * (stream.time_base or 1))
            return Length(math.nan, declared, {})
    seconds = sound.frames / sound.samplerate
    if sound.format in ("WAV", "WAVEX", "RF64", "W64"):
        return _wav_length(path, seconds)
    # FFmpeg takes the packets of compressed AIFF for samples.
    if sound.format not in _SCANNED_FORMATS or sound.subtype in _PACKED_SUBTYPES:
        return Length(seconds, seconds * max(_logged_ratio(log), _block_ratio(path)), {})
    with open_ffmpeg(path, {}) as (container, stream):
        declared = _container_seconds(container, stream)
        scanned = _packet_seconds(container, stream)
    if sound.format == "MP3" and _has_frame_count(path):
        declared = seconds
    return Length(scanned, declared, {})


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
            file.seek(syncsafe(tag[6:10]), os.SEEK_CUR)
        frame = tag + file.read(200)
    match = re.search(rb"(Xing|Info)...(.)|VBRI", frame, re.DOTALL)
    return match is not None and (match[2] is None or bool(match[2][0] & 1))


def syncsafe(data: bytes) -> int:
    """The number in bytes of seven bits each."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 127
    return number


def _wav_length(path: str, libsndfile_seconds: float) -> Length:
    """Length of a WAV file (RIFF, RF64 or W64), by its chunks.

    A recorder or pipe that could not finish the header leaves 0, the maximum or an earlier length in it.

    Raises:
        ValueError: a second WAV file follows the first in the same file.
    """
    end = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic not in _WAV_MAGICS:
            return Length(libsndfile_seconds, None, {})
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
            return Length(libsndfile_seconds, None, {})
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
            return Length(libsndfile_seconds, libsndfile_seconds * size / there, {})
        declared = None if is_unknown else size / bytes_per_second
        # By its length, FFmpeg too would leave samples out that the header does not count.
        options = {"ignore_length": "1"} if not wide and (is_unknown or there != size) else {}
        return Length(there / bytes_per_second, declared, options)


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
