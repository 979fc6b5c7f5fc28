"""Greedy transducer search (A. Graves, arXiv 1211.3711), one implementation for every decoding mode."""

import torch
from torch import Tensor

from summarymix.chunking import to_device
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
        # Of each token, in order. Log-probabilities are computed together at the end: a GPU is waited for once a frame.
        emitted: list[Hypothesis] = []
        decided: list[tuple[Tensor, Tensor]] = []  # logits (E, V) and tokens (E,)
        for t in range(max(limits, default=0)):
            pending = [n for n, limit in enumerate(limits) if t < limit]
            closest: dict[int, float] = {}
            for _ in range(self.max_symbols_per_frame):
                frame, context = frames[:, t], state["predictor_proj"]
                if len(pending) < len(limits):
                    rows = to_device(torch.tensor(pending), frames.device)  # (M,)
                    frame, context = frame[rows], context[rows]
                logits = self.scaling(self.model.joiner(frame, context))  # (M, V)
                best = logits.argmax(1)  # (M,)
                tokens: list[int] = best.tolist()
                if self.record_margins:
                    first, second = logits.topk(2, dim=1).values.unbind(1)
                    for n, margin in zip(pending, (first - second).tolist(), strict=True):
                        closest[n] = min(margin, closest.get(n, margin))
                emitting = [m for m, token in enumerate(tokens) if token not in self.blank_ids]
                if not emitting:
                    break
                for m in emitting:
                    hypothesis = hypotheses[pending[m]]
                    hypothesis.tokens.append(tokens[m])
                    hypothesis.frames.append(hypothesis.num_frames + t)
                    emitted.append(hypothesis)
                pending = [pending[m] for m in emitting]
                if len(pending) == len(limits):
                    state = self._advance(best, nest(state)["predictor"])
                else:
                    rows, slots = to_device(torch.tensor([emitting, pending]), frames.device)  # (E,) each
                    logits, best = logits[rows], best[rows]
                    write_slots(state, slots, self._advance(best, nest(select_slots(state, slots))["predictor"]))
                decided.append((logits, best))
            for n, margin in closest.items():
                hypotheses[n].margins.append(margin)
        if decided:
            logits, best = (torch.cat(parts) for parts in zip(*decided, strict=True))  # (E, V), (E,)
            scores = logits.log_softmax(1).gather(1, best[:, None])[:, 0]
            for hypothesis, score in zip(emitted, scores.tolist(), strict=True):
                hypothesis.log_probs.append(score)
        for hypothesis, limit in zip(hypotheses, limits, strict=True):
            hypothesis.num_frames += limit
        return state
