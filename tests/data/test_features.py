import lhotse
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    np.testing.assert_array_equal(EXTRACTOR.lhotse().extract(samples[None], 16000), features.numpy())


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
)
def test_any_blocks_equal_whole_file(num_samples: int, blocks: list[int], level: float) -> None:
    """L4: features pushed in arbitrary block sizes equal those of the whole file."""
    samples = audio(num_samples, seed=num_samples, level=level)
    stream = EXTRACTOR.online()
    parts, position = [], 0
    for block in blocks:
        parts.append(stream.accept(samples[position : position + block]))
        position = min(position + block, num_samples)
    parts.append(stream.accept(samples[position:]))
    parts.append(stream.finish())
    torch.testing.assert_close(torch.cat(parts), EXTRACTOR.extract(samples), atol=1e-5, rtol=0)


def test_frames_come_as_soon_as_their_window_is_there() -> None:
    samples = audio(16000)
    stream = EXTRACTOR.online()
    counts = [len(stream.accept(samples[i : i + 160])) for i in range(0, 16000, 160)]
    # The first window ends at sample 280, in the second block; from then on one frame for each block of 10 ms.
    assert counts == [0, 1] + [1] * 98
    assert len(stream.finish()) == 1


def test_streams_do_not_share_state() -> None:
    one, other = EXTRACTOR.online(), EXTRACTOR.online()
    samples = audio(1000)
    one.accept(audio(500, seed=1))
    torch.testing.assert_close(torch.cat([other.accept(samples), other.finish()]), EXTRACTOR.extract(samples))


def test_kaldi_native_fbank_agrees() -> None:
    samples = audio(32000)
    fast = FbankExtractor(FbankOptions(backend="kaldi-native-fbank"))
    torch.testing.assert_close(fast.extract(samples), EXTRACTOR.extract(samples), atol=2e-3, rtol=0)
    stream = fast.online()
    parts = [stream.accept(samples[:777]), stream.accept(samples[777:]), stream.finish()]
    torch.testing.assert_close(torch.cat(parts), fast.extract(samples), atol=1e-5, rtol=0)


def test_eight_kilohertz() -> None:
    options = FbankOptions(sample_rate=8000)
    samples = audio(8000)
    reference = lhotse.Fbank(lhotse.FbankConfig(num_mel_bins=80, sampling_rate=8000)).extract(samples, 8000)
    np.testing.assert_allclose(FbankExtractor(options).extract(samples).numpy(), reference, atol=1e-5)


def test_refuses_two_channels_and_other_sample_rates() -> None:
    with pytest.raises(ValueError, match=r"one channel.*\(2, 1000\)"):
        EXTRACTOR.extract(np.zeros((2, 1000), np.float32))
    with pytest.raises(ValueError, match="16000 Hz, but the audio has 8000"):
        EXTRACTOR.lhotse().extract(audio(1000), 8000)
