import sys
import warnings

import lhotse
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from summarymix.data import check_features
from summarymix.data import features as features_module
from summarymix.data.check_features import SETTINGS, TOLERANCE, difference_to_lhotse, generated_audio
from summarymix.data.features import FbankExtractor, FbankOptions

EXTRACTOR = FbankExtractor()
REFERENCE = lhotse.Fbank(lhotse.FbankConfig(num_mel_bins=80))


def audio(num_samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(num_samples) * level).astype(np.float32)


@pytest.mark.parametrize("num_samples", [200, 279, 280, 16000, 16079, 16080, 40001])
def test_equals_lhotse(num_samples: int) -> None:
    samples = audio(num_samples)
    features = EXTRACTOR.extract(samples)
    assert features.dtype == torch.float32
    assert features.shape == ((num_samples + 80) // 160, 80)
    np.testing.assert_allclose(features.numpy(), REFERENCE.extract(samples, 16000), atol=1e-5)


@pytest.mark.parametrize(("num_samples", "frames"), [(0, 0), (1, 0), (79, 0), (80, 1), (119, 1), (199, 1)])
def test_audio_too_short_for_lhotse(num_samples: int, frames: int) -> None:
    features = EXTRACTOR.extract(audio(num_samples))
    assert features.shape == (frames, 80)
    assert torch.isfinite(features).all()


@settings(max_examples=80)
@given(
    num_samples=st.integers(0, 3000) | st.integers(0, 500),
    blocks=st.lists(st.integers(0, 700) | st.integers(1, 5), min_size=1, max_size=60),
    level=st.sampled_from([1e-5, 0.1, 1.0]),
    tail=st.sampled_from([0, 0, 5]),
)
def test_any_blocks_equal_whole_file(num_samples: int, blocks: list[int], level: float, tail: int) -> None:
    """L4: features pushed in arbitrary block sizes equal those of the whole file, and the tail follows them."""
    samples = audio(num_samples, seed=num_samples, level=level)
    extractor = FbankExtractor(FbankOptions(tail_frames=tail))
    stream = extractor.online()
    parts, position = [], 0
    for block in blocks:
        parts.append(stream.accept(samples[position : position + block]))
        position = min(position + block, num_samples)
    parts.append(stream.accept(samples[position:]))
    parts.append(stream.finish())
    whole = extractor.extract(samples)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    silence = EXTRACTOR.extract(np.zeros(160 * tail, np.float32))
    torch.testing.assert_close(whole, torch.cat([EXTRACTOR.extract(samples), silence]))
    assert len(whole) == extractor.options.num_frames(num_samples)


def test_frames_come_as_soon_as_their_window_is_there() -> None:
    samples = audio(16000)
    stream = EXTRACTOR.online()
    counts = [len(stream.accept(samples[i : i + 160])) for i in range(0, 16000, 160)]
    # The first window ends at sample 280, in the second block; from then on one frame for each block of 10 ms.
    assert counts == [0, 1] + [1] * 98
    assert len(stream.finish()) == 1


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(0, 500) | st.integers(0, 5000), min_size=1, max_size=6))
def test_many_streams_together_equal_each_alone(lengths: list[int]) -> None:
    """Blocks of any sizes, also too short for a window; each result has its own memory."""
    blocks = [torch.from_numpy(audio(length, seed)) for seed, length in enumerate(lengths)]
    together = EXTRACTOR.whole_windows(blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lhotse warns of snip_edges=True
        reference = lhotse.Fbank(lhotse.FbankConfig(num_mel_bins=80, snip_edges=True))
    for block, features in zip(blocks, together, strict=True):
        assert features.shape == (max((len(block) - 240) // 160, 0), 80)
        if len(features):
            expected = reference.extract(block, 16000)
            torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
        assert features.untyped_storage().nbytes() == 4 * features.numel()


def test_a_stream_does_not_share_the_memory_of_its_input() -> None:
    samples = audio(4000)
    stream, buffer = EXTRACTOR.online(), np.empty(100, np.float32)
    for i in range(0, 4000, 100):
        buffer[:] = samples[i : i + 100]
        stream.push(buffer)
    parts = [*EXTRACTOR.whole_windows([stream.take()]), stream.finish()]
    torch.testing.assert_close(torch.cat(parts), EXTRACTOR.extract(samples), atol=1e-5, rtol=0)


def test_streams_do_not_share_state() -> None:
    one, other = EXTRACTOR.online(), EXTRACTOR.online()
    samples = audio(1000)
    one.accept(audio(500, seed=1))
    torch.testing.assert_close(torch.cat([other.accept(samples), other.finish()]), EXTRACTOR.extract(samples))


@pytest.fixture(params=["kaldifeat", "kaldi-native-fbank"])
def backend(request) -> str:
    if request.param == "kaldifeat":
        pytest.importorskip("kaldifeat", reason="kaldifeat is not installed: tools/install_kaldifeat.sh")
    return request.param


@pytest.mark.parametrize(("sample_rate", "num_mel_bins"), SETTINGS)
def test_backends_agree(backend: str, sample_rate: int, num_mel_bins: int) -> None:
    """With lhotse, on whole recordings and in streams: sounds and silence, and audio of any short length."""
    options = FbankOptions(sample_rate, num_mel_bins, backend)
    assert difference_to_lhotse(generated_audio(3, sample_rate), options) <= TOLERANCE
    for num_samples in [options.shift // 2, options.shift, options.window - 1, options.window, options.window + 1]:
        assert difference_to_lhotse(torch.from_numpy(audio(num_samples)), options) <= TOLERANCE
    assert FbankExtractor(options).extract(np.zeros(options.shift // 2 - 1, np.float32)).shape == (0, num_mel_bins)


def test_long_recordings_are_computed_in_pieces(monkeypatch) -> None:
    samples = audio(160 * 25)
    whole = EXTRACTOR.extract(samples)
    for at_once in [1, 7, 25]:
        monkeypatch.setattr(features_module, "_FRAMES_AT_ONCE", at_once)
        torch.testing.assert_close(EXTRACTOR.extract(samples), whole, atol=1e-5, rtol=0)


def test_a_missing_kaldifeat_names_its_installer(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldifeat", None)
    with pytest.raises(ImportError, match=r"'kaldifeat' cannot be used.*tools/install_kaldifeat\.sh"):
        FbankExtractor(FbankOptions(backend="kaldifeat"))


def test_the_check_fails_on_wrong_features(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["check_features", "kaldi-native-fbank"])
    check_features.main()
    assert capsys.readouterr().out.count("largest difference to lhotse") == len(SETTINGS)

    # The classic mistake: Kaldi's own default, up to the Nyquist frequency.
    monkeypatch.setattr(features_module, "_HIGH_FREQUENCY", 0.0)
    lhotse_config = lhotse.FbankConfig
    monkeypatch.setattr(lhotse, "FbankConfig", lambda **options: lhotse_config(**{**options, "high_freq": -400.0}))
    with pytest.raises(SystemExit, match="kaldi-native-fbank is wrong"):
        check_features.main()


@pytest.mark.parametrize("num_mel_bins", [40, 80])
def test_eight_kilohertz_equals_lhotse(num_mel_bins: int) -> None:
    samples = audio(8000)
    config = lhotse.FbankConfig(num_mel_bins=num_mel_bins, sampling_rate=8000)
    features = FbankExtractor(FbankOptions(8000, num_mel_bins)).extract(samples)
    np.testing.assert_allclose(features.numpy(), lhotse.Fbank(config).extract(samples, 8000), atol=1e-5)


def test_empty_mel_bins_are_refused() -> None:
    FbankOptions(8000, 90)
    FbankOptions(16000, 124)
    with pytest.raises(ValueError, match=r"of 91 mel bins are empty at 8000 Hz.*40 at 8000 Hz"):
        FbankOptions(8000, 91)
    with pytest.raises(ValueError, match="of 125 mel bins are empty at 16000 Hz"):
        FbankOptions(16000, 125)
    with pytest.raises(ValueError, match="at least 4, not 3"):
        FbankOptions(16000, 3)


def test_refuses_two_channels() -> None:
    with pytest.raises(ValueError, match=r"one channel.*\(2, 1000\)"):
        EXTRACTOR.extract(np.zeros((2, 1000), np.float32))
