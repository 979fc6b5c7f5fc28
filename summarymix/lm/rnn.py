"""RNN language model of tokens, and its file. ``local/train_rnn_lm.py`` trains it; beam searches use it through
:mod:`summarymix.lm.rnn_scorer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from summarymix.chunking import length_mask
from summarymix.configs import plain
from summarymix.data.tokens import Tokenizer
from summarymix.model import BLANK
from summarymix.runs import read_file, save_checkpoint
from summarymix.state import State


@dataclass
class RnnLMConfig:
    """Sizes of the network.

    Args:
        dim: width of the embeddings and of the LSTM.
        num_layers: number of LSTM layers.
        dropout: dropout probability of the embeddings, between layers, and before the output.
        vocab_size: number of tokens, blank included.
    """

    dim: int = 512
    num_layers: int = 2
    dropout: float = 0.1
    vocab_size: int = 0


class RnnLM(nn.Module):
    """LSTM language model whose embeddings are also the weights of the output (arXiv 1608.05859).

    Blank, which does not occur in sentences, marks the start and the end of a sentence.
    """

    def __init__(self, config: RnnLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)  # as output weights, they give logits of order 1
        self.dropout = nn.Dropout(config.dropout)
        between = config.dropout if config.num_layers > 1 else 0.0
        self.lstm = nn.LSTM(config.dim, config.dim, config.num_layers, dropout=between, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map sentences after a blank, (N, U) int64, to log-probabilities (N, U, V) of the token after each token."""
        return self._log_probs(self.lstm(self.dropout(self.embedding(tokens)))[0])

    def sentence_log_probs(self, sentences: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities (N,) of whole sentences, ends included.

        Args:
            sentences: N sentences (U_n,), integers without blanks; U_n = 0 is legal.
        """
        device = self.bias.device
        blank = torch.tensor([BLANK])
        marked = [torch.cat([blank, sentence, blank]) for sentence in sentences]
        padded = pad_sequence(marked, batch_first=True).long().to(device)  # (N, U + 2)
        lengths = torch.tensor([len(sentence) + 1 for sentence in sentences], device=device)  # (N,)
        log_probs = self(padded[:, :-1]).gather(2, padded[:, 1:, None])[..., 0]  # (N, U + 1)
        return (log_probs * length_mask(lengths, log_probs.size(1))).sum(1)

    def init_state(self, batch_size: int) -> State:
        """Return the initial hidden and cell state, zeros (N, L, D) each; the leading blank is still unread."""
        zeros = self.bias.new_zeros(batch_size, self.config.num_layers, self.config.dim)
        return {"hidden": zeros, "cell": zeros.clone()}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next token (N,) int64 of each stream; return log-probabilities (N, V) and the next state."""
        layers_first = tuple(state[name].transpose(0, 1).contiguous() for name in ("hidden", "cell"))
        out, (hidden, cell) = self.lstm(self.dropout(self.embedding(tokens[:, None])), layers_first)
        return self._log_probs(out[:, 0]), {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}

    def _log_probs(self, out: Tensor) -> Tensor:
        """Map LSTM outputs (…, D) to log-probabilities (…, V)."""
        return nn.functional.linear(self.dropout(out), self.embedding.weight, self.bias).log_softmax(-1)


def save_rnn_lm(path: Path, config: RnnLMConfig, weights: State, tokenizer: Tokenizer, **more: Any) -> None:
    """Write a language model with its sizes and tokens, and with ``more``, which :func:`load_rnn_lm` ignores.

    Raises:
        OSError: the file could not be written; the message names it and, for a full disk, the remedy.
    """
    save_checkpoint(path, {"rnn_lm": weights, "rnn_lm_config": plain(config), "tokens": tokenizer.state(), **more})


def read_rnn_lm(path: Path) -> dict[str, Any]:
    """Read a file of :func:`save_rnn_lm`, to the CPU.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, or not a language model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No language model {path}: train it with local/train_rnn_lm.py")
    content = read_file(path, "a language model", "Train it again with local/train_rnn_lm.py")
    if not isinstance(content, dict) or "rnn_lm_config" not in content:
        raise ValueError(f"{path} is not a language model from local/train_rnn_lm.py: it has no rnn_lm_config")
    return content


def load_rnn_lm(path: Path, tokens: Sequence[str]) -> RnnLM:
    """Load a language model, in evaluation mode on the CPU.

    Args:
        path: the file.
        tokens: the transducer's tokens.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_rnn_lm`; or it has other tokens, or its weights do not fit.
    """
    content = read_rnn_lm(path)
    own = content["tokens"]["tokens"]
    if own != list(tokens):
        first = next((i for i, pair in enumerate(zip(own, tokens, strict=False)) if pair[0] != pair[1]), None)
        example = "" if first is None else f"; token {first} is {own[first]!r} there and {tokens[first]!r} here"
        raise ValueError(
            f"{path} was trained for another token table: it has {len(own)} tokens, the model has "
            f"{len(tokens)}{example}. Train one with the model's lang dir: local/train_rnn_lm.py --lang-dir"
        )
    try:
        lm = RnnLM(RnnLMConfig(**content["rnn_lm_config"]))
        lm.load_state_dict(content["rnn_lm"])
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} was written by summarymix {content['summarymix_version']} and does not fit the language model of "
            f"this version: {error}"
        ) from error
    return lm.eval()
