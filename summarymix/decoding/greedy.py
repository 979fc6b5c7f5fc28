"""Greedy transducer search (A. Graves, arXiv 1211.3711), one implementation for every decoding mode."""

import torch
from torch import Tensor

from summarymix.decoding.search import UNSCALED, Hypothesis, Scaling, TransducerSearch
from summarymix.model import TransducerParts
from summarymix.state import State, copy_state, nest, select_slots, write_slots


class GreedySearch(TransducerSearch):
    """Frame-synchronous greedy search over a batch of streams.

    Every stream starts with the predictor state after one blank, as in training. A frame emits its best token until
    that is blank, at most ``max_symbols_per_frame`` times. The default of one is sherpa-onnx's, so error rates carry
    over to deployment.

    Args:
        max_symbols_per_frame: maximum number of tokens emitted at one frame.
        model, unk_id, record_margins, scaling: see :class:`~summarymix.decoding.search.Search`.
    """

    def __init__(
        self,
        model: TransducerParts,
        max_symbols_per_frame: int = 1,
        unk_id: int | None = None,
        record_margins: bool = False,
        scaling: Scaling = UNSCALED,
    ) -> None:
        super().__init__(model, unk_id, record_margins, scaling)
        if max_symbols_per_frame < 1:
            raise ValueError(f"max_symbols_per_frame must be 1 or more, not {max_symbols_per_frame}")
        self.max_symbols_per_frame = max_symbols_per_frame

    @torch.inference_mode()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """See :meth:`Search.__call__ <summarymix.decoding.search.Search.__call__>`."""
        frames = self.model.joiner.encoder_proj(encoder_out)  # (N, T, J)
        limits: list[int] = lengths.tolist()
        state = copy_state(state)
        for t in range(max(limits, default=0)):
            pending = [n for n, limit in enumerate(limits) if t < limit]
            closest: dict[int, float] = {}
            for _ in range(self.max_symbols_per_frame):
                frame, context = frames[:, t], state["predictor_proj"]
                if len(pending) < len(limits):
                    rows = torch.tensor(pending, device=frames.device)  # (M,)
                    frame, context = frame[rows], context[rows]
                logits = self.scaling(self.model.joiner(frame, context))  # (M, V)
                best: list[int] = logits.argmax(1).tolist()
                if self.record_margins:
                    first, second = logits.topk(2, dim=1).values.unbind(1)
                    for n, margin in zip(pending, (first - second).tolist(), strict=True):
                        closest[n] = min(margin, closest.get(n, margin))
                emitting = [m for m, token in enumerate(best) if token not in self.blank_ids]
                if not emitting:
                    break
                self._emit(pending, emitting, best, logits, t, state, hypotheses)
                pending = [pending[m] for m in emitting]
            for n, margin in closest.items():
                hypotheses[n].margins.append(margin)
        for hypothesis, limit in zip(hypotheses, limits, strict=True):
            hypothesis.num_frames += limit
        return state

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
        """Append the tokens of the rows ``emitting`` of ``logits``, and advance these predictors in ``state``."""
        log_probs = logits[emitting].log_softmax(1)  # (E, V)
        tokens = torch.tensor([best[m] for m in emitting], device=logits.device)  # (E,)
        chosen: list[float] = log_probs.gather(1, tokens[:, None]).flatten().tolist()
        for m, log_prob in zip(emitting, chosen, strict=True):
            hypothesis = hypotheses[pending[m]]
            hypothesis.tokens.append(best[m])
            hypothesis.frames.append(hypothesis.num_frames + t)
            hypothesis.log_probs.append(log_prob)
        slots = torch.tensor([pending[m] for m in emitting], device=logits.device)  # (E,)
        write_slots(state, slots, self._advance(tokens, nest(select_slots(state, slots))["predictor"]))
