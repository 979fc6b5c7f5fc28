"""Down- and up-sampling against their definitions, frame by frame."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from summarymix.chunking import ChunkConfig, ChunkGrid
from summarymix.encoder.resampling import Downsample, Upsample


@given(st.lists(st.integers(0, 24), min_size=1, max_size=3), st.integers(1, 5))
def test_a_slow_frame_is_the_weighted_mean_of_its_valid_fast_ones(lengths, factor):
    downsample = Downsample(factor).double()
    downsample.logits.data.normal_()
    weights = downsample.logits.exp()
    total = -(-max(*lengths, 1) // factor) * factor
    grid = ChunkGrid(torch.tensor(lengths), total, ChunkConfig())
    x = torch.randn(len(lengths), total, 3, dtype=torch.float64)
    slow = downsample(x, grid)
    assert slow.shape == (len(lengths), total // factor, 3)
    for n, length in enumerate(lengths):
        for t in range(total // factor):
            valid = [u for u in range(t * factor, (t + 1) * factor) if u < length]
            expected = torch.zeros(3, dtype=torch.float64)
            if valid:
                expected = sum(weights[u % factor] * x[n, u] for u in valid) / sum(weights[u % factor] for u in valid)
            torch.testing.assert_close(slow[n, t], expected, rtol=0, atol=1e-12)


def test_padding_that_is_not_finite_stays_in_the_padding():
    downsample, grid = Downsample(2), ChunkGrid(torch.tensor([3, 8]), 8, ChunkConfig(4))
    x = torch.randn(2, 8, 3)
    spoilt = x.clone()
    spoilt[0, 3:] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    expected = downsample(x, grid)
    assert torch.equal(downsample(spoilt, grid)[0, :2], expected[0, :2])
    assert torch.equal(downsample(spoilt, grid)[1], expected[1])


def test_a_fast_frame_is_its_slow_one_and_a_shift_of_its_place():
    upsample = Upsample(2, 3)
    upsample.shifts.data.normal_()
    x = torch.randn(2, 4, 2)
    fast = upsample(x)
    assert fast.shape == (2, 12, 2)
    for u in range(12):
        assert torch.equal(fast[:, u], x[:, u // 3] + upsample.shifts[u % 3])
