"""Greedy transducer search (A. Graves, arXiv 1211.3711), one implementation for every mode of decoding.

What a stream's search remembers between two calls is one row of a :data:`~summarymix.state.State` (the
predictor's state and its last output, projected) and one :class:`Hypothesis`. Feeding the frames of an
utterance in one call or in many therefore runs the same operations, and offline, simulated and streaming
decoding cannot drift apart.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from summarymix.model import BLANK, Transducer
from summarymix.state import State, add_prefix, select_slots, take_prefix, write_slots


@dataclass
class Hypothesis:
    """What one stream has been recognised as so far."""

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # encoder frame at which each token was emitted
    log_probs: list[float] = field(default_factory=list)  # of each token, given the history
    num_frames: int = 0  # encoder frames searched
    # For each frame, how far the best logit was ahead of the second at its closest decision. On request only.
    margins: list[float] = field(default_factory=list)


class GreedySearch:
    """Frame-synchronous greedy search over a batch of streams.

    Every stream starts from the predictor's initial state fed with blank, as training does. A frame emits its
    best token and, while that is a real one, asks again, at most ``max_symbols_per_frame`` times; the default
    of one is what sherpa-onnx does, so that figures carry over to deployment. ``<unk>`` counts as blank,
    there as here.

    Args:
        model: its predictor and joiner are used; it should be in evaluation mode.
        max_symbols_per_frame: upper limit of tokens emitted at one frame.
        unk_id: id of ``<unk>``, None if the tokens have none.
        record_margins: fill :attr:`Hypothesis.margins` (a little slower).
    """

    def __init__(
        self,
        model: Transducer,
        max_symbols_per_frame: int = 1,
        unk_id: int | None = None,
        record_margins: bool = False,
    ) -> None:
        if max_symbols_per_frame < 1:
            raise ValueError(f"max_symbols_per_frame must be 1 or more, not {max_symbols_per_frame}")
        self.model = model
        self.max_symbols_per_frame = max_symbols_per_frame
        self.silent = {BLANK} if unk_id is None else {BLANK, unk_id}
        self.record_margins = record_margins

    @torch.inference_mode()
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """The state of ``batch_size`` streams at the start of an utterance: the predictor has read one blank."""
        state = self.model.predictor.init_state(batch_size, torch.device(device))
        blank = torch.full((batch_size,), BLANK, dtype=torch.int64, device=device)  # (N,)
        return self._advance(blank, state)

    @torch.inference_mode()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> None:
        """Search further frames of every stream; ``state`` and ``hypotheses`` are updated in place.

        Args:
            encoder_out: (N, T, D) the next encoder frames of N streams.
            lengths: (N,) int64, how many of the T frames belong to each stream; 0 is legal.
            state: from :meth:`init_state`, rows in the order of ``encoder_out``.
            hypotheses: N of them, likewise.
        """
        frames = self.model.joiner.encoder_proj(encoder_out)  # (N, T, J)
        limits: list[int] = lengths.tolist()
        for t in range(max(limits, default=0)):
            pending = [n for n, limit in enumerate(limits) if t < limit]
            closest: dict[int, float] = {}
            for _ in range(self.max_symbols_per_frame):
                frame, context = frames[:, t], state["decoder_proj"]
                if len(pending) < len(limits):
                    rows = torch.tensor(pending, device=frames.device)  # (M,)
                    frame, context = frame[rows], context[rows]
                logits = self.model.joiner(frame, context)  # (M, V)
                best: list[int] = logits.argmax(1).tolist()
                if self.record_margins:
                    first, second = logits.topk(2, dim=1).values.unbind(1)
                    for n, margin in zip(pending, (first - second).tolist(), strict=True):
                        closest[n] = min(margin, closest.get(n, margin))
                emitting = [m for m, token in enumerate(best) if token not in self.silent]
                if not emitting:
                    break
                self._emit(pending, emitting, best, logits, t, state, hypotheses)
                pending = [pending[m] for m in emitting]
            for n, margin in closest.items():
                hypotheses[n].margins.append(margin)
        for hypothesis, limit in zip(hypotheses, limits, strict=True):
            hypothesis.num_frames += limit

    def decode(self, encoder_out: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Search whole utterances: (N, T, D) and (N,) to N hypotheses."""
        hypotheses = [Hypothesis() for _ in range(encoder_out.size(0))]
        self(encoder_out, lengths, self.init_state(encoder_out.size(0), encoder_out.device), hypotheses)
        return hypotheses

    def _emit(
        self,
        pending: list[int],
        emitting: list[int],
        best: list[int],
        logits: Tensor,
        t: int,
        state: State,
        hypotheses: list[Hypothesis],
    ) -> None:
        """Append the tokens of the rows ``emitting`` of ``logits`` and let their predictors read them."""
        log_probs = logits[emitting].log_softmax(1)  # (E, V)
        tokens = torch.tensor([best[m] for m in emitting], device=logits.device)  # (E,)
        chosen: list[float] = log_probs.gather(1, tokens[:, None]).flatten().tolist()
        for m, log_prob in zip(emitting, chosen, strict=True):
            hypothesis = hypotheses[pending[m]]
            hypothesis.tokens.append(best[m])
            hypothesis.frames.append(hypothesis.num_frames + t)
            hypothesis.log_probs.append(log_prob)
        slots = torch.tensor([pending[m] for m in emitting], device=logits.device)  # (E,)
        write_slots(state, slots, self._advance(tokens, take_prefix("predictor", select_slots(state, slots))))

    def _advance(self, tokens: Tensor, predictor_state: State) -> State:
        """Let the predictors read ``tokens`` (E,); the new state of these E streams."""
        out, predictor_state = self.model.predictor.step(tokens, predictor_state)  # (E, P)
        return {
            "decoder_proj": self.model.joiner.decoder_proj(out),  # (E, J)
            **add_prefix("predictor", predictor_state),
        }
