"""Whatever the header states, audio is read to its true end, by libsndfile or FFmpeg."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from summarymix.data.audio_file import AudioFile, open_audio
from summarymix.data.audio_length import END_TOLERANCE

RATE = 16000


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Noise under a tone, (n, channels)."""
    n = round(seconds * rate)
    noise = np.random.default_rng(round(1000 * seconds)).standard_normal((n, channels)) * 0.02
    return noise + 0.2 * np.sin(2 * np.pi * 300 * np.arange(n)[:, None] / rate)


def encoded(samples: np.ndarray, format: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """An audio file as libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=format)
    return file.getvalue()


def encode_with_ffmpeg(path: Path, samples: np.ndarray, codec: str, rate: int = RATE, **options: str) -> None:
    """Write an audio file of one channel as FFmpeg writes it, in the format of the path's suffix."""
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.T.astype(np.float32), "fltp", "mono")
        frame.sample_rate = rate
        for some in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(some)


def mp3_without_frame_count() -> bytes:
    """9 s of an MP3 whose bit rate changes, as an encoder writes it into a pipe, where it cannot add a first frame."""
    data = b""
    for seconds, level in ((3.0, 0.0), (6.0, 0.95)):
        file = io.BytesIO()
        with soundfile.SoundFile(
            file, "w", RATE, 1, "MPEG_LAYER_III", format="MP3", compression_level=level, bitrate_mode="CONSTANT"
        ) as sound:
            sound.write(tone(seconds))
        # The first frame has the count, unless it is too small for it.
        part = file.getvalue()
        data += part[part.index(b"\xff\xf3", part.index(b"Info")) :] if b"Info" in part else part
    return data


def read(path: Path) -> tuple[AudioFile, np.ndarray]:
    audio = open_audio(path)
    samples = np.concatenate([*audio.blocks()])
    assert samples.dtype == np.float32
    assert samples.shape[1] == audio.num_channels
    return audio, samples


WAV = encoded(tone(3.3), "WAV")
FLAC = encoded(tone(3.3), "FLAC")


def wav_of_size(size: int, data: bytes = WAV) -> bytes:
    return data[:40] + struct.pack("<I", size) + data[44:]


def flac_of_samples(count: int) -> bytes:
    """FLAC whose header states ``count`` samples; 0 stands for an unknown number."""
    return FLAC[:21] + bytes([FLAC[21] & 0xF0]) + struct.pack(">I", count) + FLAC[26:]


def chunk(name: bytes, size: int) -> bytes:
    """A chunk that sounds like noise at full scale."""
    return name + struct.pack("<I", size) + np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()


HEADERS: dict[str, bytes] = {
    "unfinished.wav": wav_of_size(0),
    "piped.wav": wav_of_size(0xFFFFFFFF),
    "recorder.wav": wav_of_size(0x7FFFFFFF - 36),
    "early.wav": wav_of_size(32000),
    "with_list_behind.wav": WAV + b"LIST" + struct.pack("<I", 20000) + bytes(20000),
    "with_cover_behind.wav": WAV + chunk(b"id3 ", 64000),
    "with_tags_behind.wav": WAV + chunk(b"_PMX", 6000) + chunk(b"cue ", 6000),
    "slow.wav": WAV[:28] + struct.pack("<I", RATE) + WAV[32:],
    "slow_with_list_behind.wav": WAV[:28] + struct.pack("<I", RATE) + WAV[32:] + chunk(b"LIST", 64000),
    "unknown.flac": flac_of_samples(0),
    "early.flac": flac_of_samples(16000),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_lossless_files_do_not_matter(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HEADERS[name])
    audio, samples = read(tmp_path / name)
    expected, _ = soundfile.read(io.BytesIO(FLAC if name.endswith("flac") else WAV), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(samples, expected)
    assert not audio.missing_seconds(len(samples))
    believed = {"piped.wav", "recorder.wav"} | {one for one in HEADERS if "behind" in one or "slow" in one}
    assert (audio.libsndfile_problem == "") == (name in believed)


def test_length_of_packed_wav_is_exact(tmp_path: Path) -> None:
    """The bytes per second in its header are rounded, which would be 0.13 s here."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1200 * 8000), 8000, "IMA_ADPCM")
    audio, samples = read(tmp_path / "a.wav")
    assert audio.libsndfile_problem == ""
    assert 0 <= len(samples) - 1200 * 8000 < 1000  # the last block is filled with zeros
    assert not audio.missing_seconds(1200 * 8000)
    os.truncate(tmp_path / "a.wav", os.path.getsize(tmp_path / "a.wav") // 2)
    audio, samples = read(tmp_path / "a.wav")
    assert audio.missing_seconds(len(samples)) == pytest.approx(600, abs=0.2)


def test_joined_wav_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV + WAV)
    with pytest.raises(ValueError, match=r"a\.wav: a second WAV file follows the first: separate them"):
        open_audio(tmp_path / "a.wav")


def test_bits_are_kept(tmp_path: Path) -> None:
    data = encoded(tone(1.0), "FLAC", "PCM_24")
    (tmp_path / "a.flac").write_bytes(data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:])
    audio, samples = read(tmp_path / "a.flac")
    assert audio.bits == 24
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(samples, expected)


def id3(size: int) -> bytes:
    """A tag of an MP3 with a picture that looks like audio here and there."""
    picture = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    length = size + 10
    synchsafe = bytes(length >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + synchsafe + b"APIC" + struct.pack(">I", size) + b"\0\0" + picture


def test_mp3_without_a_frame_count(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(mp3_without_frame_count())
    assert abs(soundfile.info(tmp_path / "a.mp3").duration - 9) > 1  # otherwise this tests nothing
    audio, samples = read(tmp_path / "a.mp3")
    assert audio.declared is None
    assert 9 <= len(samples) / RATE < 9.4  # with the encoder's padding at the ends of both parts


@pytest.mark.parametrize("between", [b"", id3(300), b"TAG" + bytes(125)])
def test_joined_mp3_files(between: bytes, tmp_path: Path) -> None:
    """Also of another sample rate, and with tags between them."""
    for other in (encoded(tone(2.0), "MP3"), encoded(tone(2.0, 44100, 2), "MP3", rate=44100)):
        (tmp_path / "a.mp3").write_bytes(encoded(tone(3.0), "MP3") + between + other)
        audio, samples = read(tmp_path / "a.mp3")
        assert (audio.sample_rate, audio.num_channels) == (RATE, 1)
        # Beside the sound: the second file's first frame, and the encoder's padding
        assert 5.0 <= len(samples) / RATE < 5.25
        assert np.abs(samples[-RATE:]).max() > 0.1
        assert not audio.missing_seconds(len(samples))


def test_an_incomplete_last_frame_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(encoded(tone(3.0), "MP3")[:-1])
    audio, samples = read(tmp_path / "a.mp3")
    assert len(samples) / RATE == pytest.approx(3.0, abs=END_TOLERANCE)
    assert not audio.missing_seconds(len(samples))


@pytest.mark.parametrize(
    ("format", "subtype", "name"),
    [
        ("WAV", "PCM_16", "a.wav"),
        ("WAV", "PCM_U8", "a.wav"),
        ("WAV", "ULAW", "a.wav"),
        ("WAV", "GSM610", "a.wav"),
        ("RF64", "PCM_16", "a.wav"),
        ("W64", "PCM_16", "a.w64"),
        ("AIFF", "PCM_16", "a.aiff"),
        ("AU", "PCM_16", "a.au"),
        ("NIST", "PCM_16", "a.sph"),
        ("AIFF", "GSM610", "a.aiff"),
        ("AU", "G721_32", "a.au"),
        ("SVX", "PCM_16", "a.svx"),
        ("MAT4", "PCM_16", "a.mat"),
        ("VOC", "PCM_16", "a.voc"),
        ("VOC", "PCM_U8", "a.voc"),
        ("CAF", "PCM_16", "a.caf"),
        ("CAF", "ULAW", "a.caf"),
        ("CAF", "ALAC_16", "a.caf"),
        ("FLAC", "PCM_16", "a.flac"),
        ("MP3", "MPEG_LAYER_III", "a.mp3"),
    ],
)
def test_truncated_files_are_noticed(format: str, subtype: str, name: str, tmp_path: Path) -> None:
    data = encoded(tone(4.0), format, subtype)
    (tmp_path / name).write_bytes(data)
    audio, samples = read(tmp_path / name)
    assert (len(samples), audio.declared, audio.libsndfile_problem) == (
        pytest.approx(64000, abs=400),
        *[len(samples)],
        "",
    )
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    audio, samples = read(tmp_path / name)
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.35)
    assert audio.missing_seconds(len(samples)) == pytest.approx(4.0 - len(samples) / RATE, abs=0.02)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.aac", "aac"), ("a.webm", "libopus"), ("a.mka", "ac3")]
)
def test_formats_beyond_libsndfile(name: str, codec: str, tmp_path: Path) -> None:
    rate = 48000
    encode_with_ffmpeg(
        tmp_path / name, tone(3.0, rate), codec, rate, **({"movflags": "faststart"} if "m4a" in name else {})
    )
    audio, samples = read(tmp_path / name)
    assert audio.sample_rate == rate
    assert audio.libsndfile_problem
    assert len(samples) / rate == pytest.approx(3.0, abs=END_TOLERANCE)
    assert not audio.missing_seconds(len(samples))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    audio, samples = read(tmp_path / name)
    # A stream of AAC frames has no header, so its length is what is there.
    assert (audio.missing_seconds(len(samples)) > 0.5) == (name != "a.aac")


def test_compressed_aiff_is_not_taken_for_truncated(tmp_path: Path) -> None:
    (tmp_path / "a.aiff").write_bytes(encoded(tone(3.0), "AIFF", "GSM610"))
    audio, samples = read(tmp_path / "a.aiff")
    assert (len(samples), audio.missing_seconds(len(samples))) == (pytest.approx(48000, abs=400), 0)


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_joined_files_of_other_formats(format: str, subtype: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"".join(encoded(tone(seconds), format, subtype) for seconds in (3.0, 2.0)))
    audio, samples = read(tmp_path / "a")
    assert len(samples) / audio.sample_rate == pytest.approx(5.0, abs=END_TOLERANCE)


def damaged_at_half(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(1).integers(0, 256, 3000, np.uint8).tobytes() + data[middle + 3000 :]


@pytest.mark.parametrize("data", [FLAC, flac_of_samples(0)])
def test_damage_in_the_middle(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(damaged_at_half(data))
    with pytest.raises(ValueError, match=r"^damaged at [01]\.\d s: "):
        read(tmp_path / "a.flac")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def playlist(path: Path) -> None:
    """A file that makes FFmpeg open others."""
    (path.parent / "secret.wav").write_bytes(WAV)
    path.write_text(f"#EXTM3U\n#EXTINF:3,\n{path.parent}/secret.wav\n")


def silent_video(path: Path) -> None:
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=24, width=16, height=16)
        for some in [*stream.encode(av.VideoFrame(16, 16, "yuv420p")), *stream.encode(None)]:
            container.mux(some)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (folder, "a is a folder: give the audio files in it"),
        (pipe, "a is not an ordinary file"),
        (playlist, "a: .*restore the file, or convert it: ffmpeg"),
        (silent_video, "a: no audio"),
        (lambda path: path.write_bytes(b""), "a: .*restore the file, or convert it: ffmpeg"),
        (lambda path: path.write_bytes(b"RIFF"), "a: .*restore the file, or convert it: ffmpeg"),
    ],
)
def test_what_is_no_audio(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        open_audio(tmp_path / "a")


def test_permission_denied_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(ValueError, match=r"a\.wav: permission denied: make it readable with chmod"):
        open_audio(tmp_path / "a.wav")


def test_names_that_look_like_addresses_or_are_not_utf8(tmp_path: Path) -> None:
    for name in (b"http:x.flac", b"concat:a|b.flac", b"caf\xe9.flac"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        Path(path).write_bytes(flac_of_samples(0))
        assert len(read(Path(path))[1]) == round(3.3 * RATE)
