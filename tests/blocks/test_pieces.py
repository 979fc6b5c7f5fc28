"""Frame-by-frame functions in blocks against the same at once."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from summarymix.blocks import pieces as blocks
from summarymix.blocks.pieces import in_blocks, padded_slice


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_FRAMES", 7)
    monkeypatch.setattr(blocks, "LEAST_FRAMES", 1)


class Windows:
    """Sums of windows, row by row, times a number of each row, some frames of each, plus a number of each of these; it
    counts the frames that it is given at a time."""

    def __init__(self, stride, overlap, times=1):
        self.stride, self.size, self.times, self.given = stride, stride + overlap, times, []

    def __call__(self, x, factors, terms):
        sums = x.unfold(1, self.size, self.stride).sum(-1) * factors  # (N, R, F)
        self.given.append(self.stride * sums.shape[:2].numel())
        return sums.repeat_interleave(self.times, 1) + terms


@given(
    batch_size=st.integers(1, 4),
    num_rows=st.integers(1, 40),
    stride=st.integers(1, 4),
    overlap=st.integers(0, 3),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    rest=st.integers(0, 3),
    times=st.integers(1, 3),
    limit=st.integers(1, 30),
    least=st.integers(1, 10),
)
def test_blocks_make_the_same_rows_and_of_few_frames_at_a_time(
    batch_size, num_rows, stride, overlap, padding, rest, times, limit, least
):
    num_frames = stride * num_rows + overlap + min(rest, stride - 1) - sum(padding)
    assume(num_frames > 0)
    x = torch.randn(batch_size, num_frames, 2, dtype=torch.float64)
    factors = torch.randn(batch_size, num_rows, 1, dtype=torch.float64)
    terms = torch.randn(batch_size, times * num_rows, 1, dtype=torch.float64)
    windows = Windows(stride, overlap, times)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(blocks, "BLOCK_FRAMES", limit)
        patch.setattr(blocks, "LEAST_FRAMES", least)
        made = in_blocks(windows, x, factors, terms, stride=stride, overlap=overlap, padding=padding)
    padded = torch.nn.functional.pad(x, (0, 0, *padding))
    torch.testing.assert_close(made, Windows(stride, overlap, times)(padded, factors, terms), rtol=0, atol=0)
    assert max(windows.given) <= max(limit, batch_size * max(stride, least))
    assert sum(windows.given) == batch_size * stride * num_rows


def test_slices_beyond_the_ends_have_zeros():
    x = torch.arange(1.0, 5.0).view(1, 4, 1)
    padded = torch.nn.functional.pad(x, (0, 0, 6, 6))
    for start in range(-6, 10):
        for stop in range(start + 1, 11):
            assert torch.equal(padded_slice(x, start, stop), padded[:, start + 6 : stop + 6])


@pytest.mark.usefixtures("small_blocks")
def test_there_are_no_blocks_where_gradients_are_kept():
    windows = Windows(1, 0)
    in_blocks(windows, torch.randn(1, 20, 2), torch.ones(1, 20, 1), torch.ones(1, 20, 1))
    assert windows.given == [20]


@pytest.mark.usefixtures("small_blocks")
def test_blocks_are_not_frozen_into_a_graph():
    """A number of frames that is exported as any number must not become a number of blocks."""

    class Module(torch.nn.Module):
        def forward(self, x):
            return in_blocks(torch.sin, x)

    frames = torch.export.Dim("T")
    with torch.no_grad():
        graph = torch.export.export(Module(), (torch.randn(1, 20, 2),), dynamic_shapes=({1: frames},)).module()
        traced = torch.jit.trace(Module(), torch.randn(1, 20, 2))
    x = torch.randn(1, 45, 2)
    torch.testing.assert_close(graph(x), x.sin())
    torch.testing.assert_close(traced(x), x.sin())
