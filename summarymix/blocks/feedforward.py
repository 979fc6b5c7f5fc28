"""The Conformer's feed-forward module."""

from torch import Tensor, nn

from summarymix.blocks.dropout import Dropout
from summarymix.blocks.pieces import in_pieces


class FeedForward(nn.Sequential):
    """LayerNorm, expansion, Swish, contraction, frame by frame: (N, T, D) to (N, T, D) (arXiv 2005.08100, figure 4)."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden_dim),
            nn.SiLU(),
            Dropout(dropout),
            nn.Linear(hidden_dim, dim),
            Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return in_pieces(super().forward, x)
