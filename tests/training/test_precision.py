"""Precision of GPUs' float32 arithmetic."""

from collections.abc import Iterator

import pytest
import torch

from summarymix.training.precision import set_tf32


@pytest.fixture
def settings() -> Iterator[None]:
    """Restore PyTorch's settings after the test."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("fp32", False), ("bf16", False)])
def test_tensorfloat_is_used_on_request_only(precision, allowed, settings) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not allowed
    set_tf32(precision)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
