import pytest
import torch
from reference import dependencies

from summarymix.encoder.subsampling import ConvSubsampling, HalfSubsampling, features_needed, output_lengths


@pytest.mark.parametrize("num_features", [7, 8, 9, 10, 11, 40, 103])
def test_frame_t_sees_features_4t_to_4t_plus_6_and_the_formula_counts_the_frames(num_features):
    torch.manual_seed(0)
    front_end = ConvSubsampling(9, (2, 3), 5).double()
    moved = dependencies(front_end, torch.randn(1, num_features, 9).double())
    num_frames = output_lengths(num_features)
    assert moved.shape == (num_frames, num_features)
    for t in range(num_frames):
        assert moved[t].nonzero().flatten().tolist() == list(range(4 * t, 4 * t + 7))


def test_a_chunk_needs_what_its_frames_see():
    for num_frames in range(1, 40):
        assert output_lengths(features_needed(num_frames)) == num_frames
        assert output_lengths(features_needed(num_frames) - 1) == num_frames - 1
    assert output_lengths(torch.arange(12)).tolist() == [output_lengths(n) for n in range(12)]


@pytest.mark.parametrize("num_features", [7, 8, 9, 10, 11, 40, 103])
def test_a_pair_of_frames_at_50_hz_sees_what_one_at_25_hz_does(num_features):
    torch.manual_seed(0)
    front_end = HalfSubsampling(9, (2, 3, 4), 5).double()
    moved = dependencies(front_end, torch.randn(1, num_features, 9).double())
    assert moved.shape[0] // 2 == output_lengths(num_features)
    for u in range(moved.shape[0]):
        assert moved[u].nonzero().flatten().tolist() == list(range(2 * u, 2 * u + 5))
