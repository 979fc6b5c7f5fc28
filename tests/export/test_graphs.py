"""The graphs that are exported, as modules, against the parts of the model."""

import pytest
import torch
from torch import nn

from summarymix.export.graphs import Decoder
from summarymix.predictor import StatelessPredictor


@pytest.mark.parametrize("context_size", [1, 2, 3])
def test_decoder_equals_predictor_and_projection(context_size: int) -> None:
    """For every context, also with no token in any place."""
    torch.manual_seed(0)
    predictor = StatelessPredictor(vocab_size=5, dim=8, context_size=context_size).double()
    projection = nn.Linear(8, 6).double()
    contexts = torch.cartesian_prod(*[torch.arange(-1, 5)] * context_size).view(-1, context_size)
    expected = projection(predictor.mix(contexts)[:, 0])
    torch.testing.assert_close(Decoder(predictor, projection)(contexts), expected, rtol=0, atol=1e-12)
