"""Audio read and resampled in blocks is that of the whole recording, as lhotse loads it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import Recording

from summarymix.data.audio import AudioReader, Resampler, to_mono
from summarymix.data.audio_file import BLOCK_SECONDS

RATES = (8000, 11025, 16000, 22050, 44100, 48000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", [8000, 16000])
def test_blocks_resample_to_what_lhotse_makes_of_the_whole(tmp_path: Path, rate: int, target: int) -> None:
    rng = np.random.default_rng(rate)
    for length in (1, 17, rate // 3, 2 * rate + 7):
        samples = rng.uniform(-0.9, 0.9, length).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
        recording = Recording.from_file(tmp_path / "a.wav").resample(target)
        expected = recording.load_audio()[0] if recording.num_samples else np.zeros(0)
        resampler = Resampler(rate, target)
        cuts = np.sort(rng.integers(0, length + 1, 7))
        blocks = [resampler.accept(torch.from_numpy(block)) for block in np.split(samples, cuts)]
        out = torch.cat([*blocks, resampler.finish()])
        assert len(out) == len(expected)
        np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [4001, 8001, 44101, 383_999])
@pytest.mark.parametrize("target", [8000, 16000])
def test_any_sample_rate(rate: int, target: int) -> None:
    """Even rates that divide by no common number, of which lhotse's filter would take gigabytes."""
    length = rate + 7
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(length, dtype=torch.float64) / rate).float()
    resampler = Resampler(rate, target)
    out = torch.cat(
        [*map(resampler.accept, tone.split([17, rate // 3, 0, length - 17 - rate // 3])), resampler.finish()]
    )
    assert len(out) == round(length * target / rate)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(out), dtype=torch.float64) / target)
    np.testing.assert_allclose(out[100:-100], expected[100:-100], atol=2e-3)
    assert len(resampler._samples) < 2000


def test_both_ways_of_resampling_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    for rate in RATES:
        outputs = []
        for max_filter in (1 << 20, 0):
            monkeypatch.setattr("summarymix.data.audio.MAX_FILTER", max_filter)
            resampler = Resampler(rate, 12000)
            outputs.append(torch.cat([*map(resampler.accept, samples.split(700)), resampler.finish()]))
        torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 400), max_size=8), st.sampled_from(RATES), st.sampled_from([8000, 16000]))
def test_block_sizes_do_not_matter(sizes: list[int], rate: int, target: int) -> None:
    samples = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))

    def resampled(blocks: tuple[torch.Tensor, ...]) -> torch.Tensor:
        resampler = Resampler(rate, target)
        return torch.cat([*map(resampler.accept, blocks), resampler.finish()])

    torch.testing.assert_close(resampled(samples.split(sizes)), resampled((samples,)), atol=1e-6, rtol=0)


def test_a_resampler_keeps_little() -> None:
    resampler = Resampler(44100, 16000)
    for _ in range(20):
        resampler.accept(torch.zeros(44100))
        assert len(resampler._samples) < 600


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_formats_and_channels(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    time = np.arange(3 * 16000 + 11) / 16000
    samples = np.stack([0.3 * np.sin(2 * np.pi * f * time) for f in (200, 330, 470)][: 2 if suffix == "mp3" else 3], 1)
    opus = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, 16000, **opus)
    expected, rate = soundfile.read(path, dtype="float32")  # in one
    read = soundfile.SoundFile.read

    def in_blocks(file: soundfile.SoundFile, frames: int = -1, *args: object, **kwargs: object) -> np.ndarray:
        assert 0 < frames <= BLOCK_SECONDS * rate  # never the whole
        return read(file, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", in_blocks)
    for channel in (None, 0, 1):
        reader = AudioReader(path, channel)
        assert reader.sample_rate == rate
        blocks = list(reader.blocks())
        assert len(blocks) >= 4
        one = expected.mean(1) if channel is None else expected[:, channel]
        np.testing.assert_allclose(torch.cat(blocks), one, atol=1e-6)


def test_channels_of_opposite_phase(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000)
    soundfile.write(tmp_path / "a.wav", np.stack([samples, -samples], 1), 16000)
    with pytest.raises(ValueError, match=r"a\.wav: the channels are of opposite phase.* give --channel 0"):
        list(AudioReader(tmp_path / "a.wav").blocks())
    assert len(torch.cat([*AudioReader(tmp_path / "a.wav", 0).blocks()])) == 40_000
    for silent in (np.zeros((40_000, 2)), np.stack([samples, 0 * samples], 1)):
        soundfile.write(tmp_path / "b.wav", silent, 16000)
        assert len(torch.cat([*AudioReader(tmp_path / "b.wav").blocks()])) == 40_000


def test_integers_have_the_range_of_their_type() -> None:
    assert to_mono(np.array([-32768, 16384, 0], np.int16)).tolist() == [-1, 0.5, 0]
    assert to_mono(np.array([0, 192, 128, 255], np.uint8)).tolist() == [-1, 0.5, 0, 127 / 128]
    assert to_mono(np.array([0, 49152, 32768], np.uint16)).tolist() == [-1, 0.5, 0]
    assert to_mono(torch.tensor([[0.5, 0.0], [0.0, 0.25]])).tolist() == [0.25, 0.125]
    assert to_mono(np.zeros((5, 2), np.float64), 1).dtype == torch.float32


def test_bad_audio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    with pytest.raises(FileNotFoundError, match=r"a.flac: no such file"):
        AudioReader(path)
    path.write_text("no audio")
    with pytest.raises(ValueError, match=r"a.flac: .*ffmpeg -i IN OUT.flac"):
        AudioReader(path)
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-1, 1, 64000), 16000)
    with pytest.raises(ValueError, match=r"a.flac: no channel 1: the audio has 1, counted from 0"):
        AudioReader(path, 1)
    for channel in (2, -1):
        with pytest.raises(ValueError, match=rf"no channel {channel}: the audio has 2, counted from 0"):
            to_mono(np.zeros((5, 2)), channel)
    with pytest.raises(ValueError, match=r"no channel 1: the audio has 1"):
        to_mono(np.zeros(5), 1)
    for suffix in ("flac", "mp3"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, rng.uniform(-0.5, 0.5, 160_000), 16000)
        path.write_bytes(path.read_bytes()[:-30_000])
        with pytest.raises(ValueError, match=rf"a.{suffix}: damaged"):
            list(AudioReader(path).blocks())
    soundfile.write(tmp_path / "short.wav", rng.uniform(-0.5, 0.5, 160_000), 16000)
    (tmp_path / "short.wav").write_bytes((tmp_path / "short.wav").read_bytes()[:-32_000])
    with pytest.raises(ValueError, match=r"short\.wav: damaged, ends after 9\.0 of 10\.0 s: restore the file, or if"):
        list(AudioReader(tmp_path / "short.wav").blocks())
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(ValueError, match=r"empty\.wav: no samples"):
        list(AudioReader(tmp_path / "empty.wav").blocks())
    soundfile.write(tmp_path / "a.wav", np.array([0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a.wav: some samples are infinite or NaN"):
        list(AudioReader(tmp_path / "a.wav").blocks())
    with pytest.raises(ValueError, match=r"got \(2, 3, 4\)"):
        to_mono(np.zeros((2, 3, 4)))


def test_a_single_sample_has_channels() -> None:
    assert to_mono(torch.zeros(1, 2)).shape == (1,)
