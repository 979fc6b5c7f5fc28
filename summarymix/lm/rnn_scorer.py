"""An RNN language model in a beam search (shallow fusion)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from summarymix.lm.rnn import RnnLM
from summarymix.model import BLANK
from summarymix.state import State


@dataclass(eq=False, slots=True)
class Context:
    """History of the next token."""

    token: int  # the last token
    state: State  # without batch axis: (L, D) each; while ``token`` is unread, the state before it
    log_probs: Tensor | None = None  # (V,) of the next token, on the CPU; None while ``token`` is unread


class RnnLMScorer:
    """A :class:`~summarymix.lm.scorers.BatchedScorer` with the log-probability of a token given all previous tokens.
    Its state is a :class:`Context`.

    As with n-grams, the end of an utterance scores 0.

    Args:
        lm: language model in evaluation mode, on the device to compute on.
        scale: scale of the log-probabilities.
    """

    def __init__(self, lm: RnnLM, scale: float) -> None:
        self._lm = lm
        self._scale = scale
        self.start = Context(BLANK, {name: tensor[0] for name, tensor in lm.init_state(1).items()})
        self.prepare([self.start])

    @torch.inference_mode()
    def prepare(self, states: Sequence[Context]) -> None:
        """Feed all last tokens that are unread to the network, in one batch."""
        unread = [context for context in states if context.log_probs is None]  # M of them
        if not unread:
            return
        state = {name: torch.stack([context.state[name] for context in unread]) for name in unread[0].state}
        tokens = torch.tensor([context.token for context in unread], device=state["hidden"].device)  # (M,)
        log_probs, state = self._lm.step(tokens, state)  # (M, V)
        for i, (context, row) in enumerate(zip(unread, log_probs.cpu(), strict=True)):
            # In memory of their own: contexts live for different times, and views would keep the whole batch.
            context.log_probs = row.clone()
            context.state = {name: tensor[i].clone() for name, tensor in state.items()}

    def step(self, state: Context, token: int) -> tuple[float, Context]:
        """Return the score of ``token`` in ``state``, and the next state."""
        self.prepare([state])
        assert state.log_probs is not None
        return self._scale * float(state.log_probs[token]), Context(token, state.state)

    def final(self, state: Context) -> float:
        """Return 0."""
        return 0.0
