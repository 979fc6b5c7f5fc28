"""Sums over chunks against their definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from summarymix.blocks.seen_chunks import decayed_sum, sliding_sum


@given(st.integers(1, 40), st.integers(1, 12))
def test_sliding_sum_is_the_sum_of_the_window(num_chunks, width):
    x = torch.randn(2, num_chunks, 3, dtype=torch.float64)
    expected = torch.stack([x[:, max(k - width + 1, 0) : k + 1].sum(1) for k in range(num_chunks)], dim=1)
    torch.testing.assert_close(sliding_sum(x, width), expected, rtol=0, atol=1e-12)


def test_sliding_sum_does_not_lose_digits_as_time_goes_on():
    """A difference of float32 prefix sums would be off by the rounding of the whole past."""
    x = torch.full((1, 100_000, 1), 0.1)
    torch.testing.assert_close(sliding_sum(x, 4)[0, -1], torch.tensor([0.4]), rtol=0, atol=1e-7)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.0, 1.0))
def test_decayed_sum_is_the_weighted_sum_of_the_window(num_chunks, width, decay):
    width = min(width, num_chunks)
    x = torch.randn(2, num_chunks, 3, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for k in range(num_chunks):
        for i in range(min(width, k + 1)):
            expected[:, k] += decay**i * x[:, k - i]
    torch.testing.assert_close(decayed_sum(x, width, decay), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_decayed_sum_is_sound_over_a_day(decay):
    """135,000 chunks of 640 ms in float32, against the recurrence in float64: no power overflows, nothing cancels."""
    x = torch.rand(1, 135_000, 1)
    expected, total = [], 0.0
    for value in x.flatten().tolist():
        total = decay * total + value
        expected.append(total)
    got = decayed_sum(x, x.size(1), decay).flatten()
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-6, atol=0)
