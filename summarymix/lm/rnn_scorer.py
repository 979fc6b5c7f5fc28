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
    """What stands before the next token."""

    token: int  # the last one
    state: State  # of one stream, without its batch axis: (L, D) each. As long as the token is unread, that before it
    log_probs: Tensor | None = None  # (V,) on the CPU, of what may follow; None as long as the token is unread


class RnnLMScorer:
    """Adds the logarithm of a token's probability, given all tokens before it. It is a
    :class:`~summarymix.lm.scorers.BatchedScorer`; its state is a :class:`Context`.

    As with n-grams, the end of an utterance adds nothing.

    Args:
        lm: in evaluation mode, on the device to compute on.
        scale: of the logarithms.
    """

    def __init__(self, lm: RnnLM, scale: float) -> None:
        self._lm = lm
        self._scale = scale
        self.start = Context(BLANK, {name: tensor[0] for name, tensor in lm.init_state(1).items()})
        self.prepare([self.start])

    @torch.inference_mode()
    def prepare(self, states: Sequence[Context]) -> None:
        """Let the network read the last tokens, all at once, where it has not done so."""
        unread = [context for context in states if context.log_probs is None]  # M of them
        if not unread:
            return
        state = {name: torch.stack([context.state[name] for context in unread]) for name in unread[0].state}
        tokens = torch.tensor([context.token for context in unread], device=state["hidden"].device)  # (M,)
        log_probs, state = self._lm.step(tokens, state)  # (M, V)
        for i, (context, row) in enumerate(zip(unread, log_probs.cpu(), strict=True)):
            context.log_probs = row
            context.state = {name: tensor[i] for name, tensor in state.items()}

    def step(self, state: Context, token: int) -> tuple[float, Context]:
        """What reading ``token`` in ``state`` adds, and the state that follows."""
        self.prepare([state])
        assert state.log_probs is not None
        return self._scale * float(state.log_probs[token]), Context(token, state.state)

    def final(self, state: Context) -> float:
        """Nothing."""
        return 0.0
