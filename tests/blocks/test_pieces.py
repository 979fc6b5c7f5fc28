"""Frame-by-frame functions in pieces against the same at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from summarymix.blocks import pieces
from summarymix.blocks.pieces import in_pieces


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_FRAMES", 7)
    monkeypatch.setattr(pieces, "LEAST_FRAMES", 1)


class Windows:
    """Sums of windows, row by row; it counts the frames that it is given at a time."""

    def __init__(self, stride=1, overlap=0):
        self.stride, self.size, self.given = stride, stride + overlap, []

    def __call__(self, x):
        sums = x.unfold(1, self.size, self.stride).sum(-1)  # (N, R, F)
        self.given.append(self.stride * sums.shape[:2].numel())
        return sums


@given(
    batch_size=st.integers(1, 4),
    num_rows=st.integers(1, 40),
    stride=st.integers(1, 4),
    overlap=st.integers(0, 3),
    rest=st.integers(0, 3),
    limit=st.integers(1, 30),
    least=st.integers(1, 10),
)
def test_pieces_make_the_same_rows_and_of_few_frames_at_a_time(
    batch_size, num_rows, stride, overlap, rest, limit, least
):
    x = torch.randn(batch_size, stride * num_rows + overlap + min(rest, stride - 1), 2, dtype=torch.float64)
    windows = Windows(stride, overlap)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(pieces, "PIECE_FRAMES", limit)
        patch.setattr(pieces, "LEAST_FRAMES", least)
        made = in_pieces(windows, x, stride, overlap)
    assert torch.equal(made, Windows(stride, overlap)(x))
    assert max(windows.given) <= max(limit, batch_size * max(stride, least))
    assert sum(windows.given) == batch_size * stride * num_rows


@pytest.mark.usefixtures("small_pieces")
def test_there_is_one_piece_where_gradients_are_kept():
    windows = Windows()
    in_pieces(windows, torch.randn(1, 20, 2))
    assert windows.given == [20]


@pytest.mark.usefixtures("small_pieces")
def test_pieces_are_not_frozen_into_a_graph():
    """A number of frames that is exported as any number must not become a number of pieces."""

    class Module(torch.nn.Module):
        def forward(self, x):
            return in_pieces(torch.sin, x)

    frames = torch.export.Dim("T")
    with torch.no_grad():
        graph = torch.export.export(Module(), (torch.randn(1, 20, 2),), dynamic_shapes=({1: frames},)).module()
        traced = torch.jit.trace(Module(), torch.randn(1, 20, 2))
    x = torch.randn(1, 45, 2)
    torch.testing.assert_close(graph(x), x.sin())
    torch.testing.assert_close(traced(x), x.sin())
