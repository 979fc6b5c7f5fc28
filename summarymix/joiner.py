"""The joiner: scores of the next token from one encoder frame and one predictor output."""

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """Joiner: logits = W tanh(encoder_proj(e) + predictor_proj(d)) + b.

    The projections are applied outside :meth:`forward`: before pruning in training, once per frame and once per
    token in decoding, rather than once per pair.
    """

    def __init__(self, encoder_dim: int, predictor_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = nn.Linear(encoder_dim, joiner_dim)
        self.predictor_proj = nn.Linear(predictor_dim, joiner_dim)
        self.out = nn.Linear(joiner_dim, vocab_size)

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Map projected frames and predictor outputs, (…, J) each, broadcastable, to logits (…, V)."""
        return self.out(torch.tanh(encoder + decoder))
