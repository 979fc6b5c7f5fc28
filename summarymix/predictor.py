"""Predictors: the transducer's model of the tokens emitted so far.

Output u depends on tokens 0…u. An utterance begins with blank, after an empty history: :meth:`forward` on
[blank, y_1, …] in training and :meth:`step` from :meth:`init_state` in decoding give the same numbers.

``context_size`` is the number of tokens before an utterance's first token, blank included. Beam search counts them
when it divides scores by lengths.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.state import State


class StatelessPredictor(nn.Module):
    """Embeddings of the last ``context_size`` tokens, weighted per channel (arXiv 2109.07513; icefall's decoder).

    Positions before the utterance's start have embedding zero, like token -1 in sherpa-onnx.
    """

    def __init__(self, vocab_size: int, dim: int, context_size: int) -> None:
        super().__init__()
        if dim > 4 and dim % 4:
            raise ValueError(f"--model.predictor_dim {dim} must be a multiple of 4")
        self.context_size = context_size
        self.embedding = nn.Embedding(vocab_size, dim)
        # Groups of four channels, as in icefall: nearly per-channel weights at a negligible cost.
        self.conv = nn.Conv1d(dim, dim, context_size, groups=max(dim // 4, 1), bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, U) int64, -1 for no token, to (N, U, P)."""
        return self.mix(F.pad(tokens, (self.context_size - 1, 0), value=-1))

    def init_state(self, batch_size: int, device: torch.device | None = None) -> State:
        """See :func:`init_history`."""
        return init_history(batch_size, self.context_size, device)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Map the next token (N,) int64 of each stream to (N, P); also return the next state."""
        context, state = append_tokens(tokens, state)
        return self.mix(context)[:, 0], state

    def mix(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, U + context_size - 1) to (N, U, P)."""
        return F.relu(self.weighted(tokens))

    def weighted(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, U + context_size - 1) to the weighted sums of their embeddings (N, U, P)."""
        embedded = self.embedding(tokens.clamp(min=0)) * (tokens >= 0)[..., None]
        return self.conv(embedded.transpose(1, 2)).transpose(1, 2)


def init_history(batch_size: int, context_size: int, device: torch.device | None = None) -> State:
    """Make the state of a stateless predictor: the last tokens (N, context_size - 1), each plus one, so that 0 stands
    for no token."""
    return {"history": torch.zeros(batch_size, context_size - 1, dtype=torch.int64, device=device)}


def append_tokens(tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Append the next token (N,) of each stream: the last tokens (N, context_size), -1 for none, and the next state."""
    history = torch.cat([state["history"], tokens[:, None] + 1], dim=1)
    return history - 1, {"history": history[:, 1:]}


class LSTMPredictor(nn.Module):
    """Embedding and one LSTM layer: the predictor of the paper's recipes (arXiv 2409.07165)."""

    context_size = 1

    def __init__(self, vocab_size: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, U) int64 to (N, U, P)."""
        zeros = self.init_state(tokens.size(0), tokens.device)
        return self.run(tokens, zeros)[0]

    def init_state(self, batch_size: int, device: torch.device | None = None) -> State:
        """Hidden and cell state, (N, P) each, initially zeros."""
        zeros = self.embedding.weight.new_zeros(batch_size, self.lstm.hidden_size, device=device)
        return {"hidden": zeros, "cell": zeros.clone()}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Map the next token (N,) int64 of each stream to (N, P); also return the next state."""
        out, state = self.run(tokens[:, None], state)
        return out[:, 0], state

    def run(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Map the next tokens (N, U) int64 to (N, U, P); also return the next state."""
        embedded = self.dropout(self.embedding(tokens))  # (N, U, P)
        # Under autocast to bfloat16 cuDNN's LSTM would compute in float16, whose range the loss does not protect.
        with torch.autocast(tokens.device.type, enabled=False):
            out, (hidden, cell) = self.lstm(embedded, (state["hidden"][None], state["cell"][None]))
        return self.dropout(out), {"hidden": hidden[0], "cell": cell[0]}
