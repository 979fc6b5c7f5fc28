import pytest

from summarymix.data.config import DataConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_duration": -5}, r"--data\.max_duration -5 must be above 0"),
        ({"num_buckets": 0}, r"--data\.num_buckets 0 must be at least 1"),
        ({"num_workers": -1}, r"--data\.num_workers -1 must be at least 0"),
        ({"sample_rate": 0}, r"--data\.sample_rate 0 must be at least 1"),
        ({"num_mel_bins": 0}, r"--data\.num_mel_bins 0 must be at least 1"),
        ({"tail_frames": -1}, r"--data\.tail_frames -1 must be at least 0"),
        ({"min_seconds": -1.0}, r"--data\.min_seconds -1 must be 0 or more"),
        ({"min_seconds": 2.0, "max_seconds": 1.5}, r"--data\.max_seconds 1\.5 no less than it"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**options)
