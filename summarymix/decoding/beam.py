"""Modified beam search: a beam of hypotheses that emit at most one token per frame, as in icefall and sherpa-onnx."""

import heapq
import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from summarymix.decoding.search import BeamPath, BeamSearch, Hypothesis, TransducerSearch, log_add
from summarymix.state import State, copy_state, nest, select_slots, write_slots


@dataclass
class ScoredPath(BeamPath):
    """A beam path with its running score and the scorers' states."""

    score_without_final: float = 0.0  # score so far, without the scorers' final scores
    scorer_state: tuple[Any, ...] = ()
    greatest: float = 0.0  # greatest of the scores that were merged in the last frame; the times are from it
    num_settled: int = 0  # tokens that the score does not count, see settle()


class ModifiedBeamSearch(BeamSearch, TransducerSearch):
    """Beam search over a batch of streams, a frame at a time.

    Each frame extends each hypothesis by blank or one token and keeps the ``beam_size`` best extensions of each stream.
    The scorers' scores are added after this pruning, so they count from the next frame on. Hypotheses with equal tokens
    are merged: their probabilities are added, and the times of the better one are kept. The best hypothesis has the
    greatest score per token, where the predictor's initial context counts as tokens. icefall and sherpa-onnx do the
    same.

    Row b of a stream's state belongs to path b of its hypothesis: state tensors are (N, beam_size, …).
    """

    @torch.inference_mode()
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return the state of ``batch_size`` streams at the start of an utterance; only path 0 is in use."""
        state = super().init_state(batch_size * self.beam_size, device)
        return {name: tensor.unflatten(0, (batch_size, self.beam_size)) for name, tensor in state.items()}

    @torch.inference_mode()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """See :meth:`Search.__call__ <summarymix.decoding.search.Search.__call__>`."""
        frames = self.model.joiner.encoder_proj(encoder_out)  # (N, T, J)
        rows = {name: tensor.flatten(0, 1) for name, tensor in copy_state(state).items()}  # (N·B, …)
        limits: list[int] = lengths.tolist()
        for hypothesis in hypotheses:
            if not hypothesis.paths:
                hypothesis.paths = [ScoredPath(scorer_state=self.scorer.start)]
        for t in range(max(limits, default=0)):
            self._search_frame(frames[:, t], [n for n, limit in enumerate(limits) if t < limit], rows, hypotheses)
        for hypothesis in hypotheses:
            self._rank(hypothesis)
            hypothesis.set_best_path()
        return {name: tensor.unflatten(0, (-1, self.beam_size)) for name, tensor in rows.items()}

    def _search_frame(self, frame: Tensor, streams: list[int], rows: State, hypotheses: list[Hypothesis]) -> None:
        """Search one frame (N, J) of the given streams."""
        # The stream and the state row of each of the M paths in these streams.
        owners = [n for n in streams for _ in hypotheses[n].paths]
        sources = [n * self.beam_size + b for n in streams for b in range(len(hypotheses[n].paths))]
        contexts = rows["predictor_proj"][torch.tensor(sources, device=frame.device)]  # (M, J)
        logits = self.model.joiner(frame[torch.tensor(owners, device=frame.device)], contexts)  # (M, V)
        log_probs = self.scaling(logits).log_softmax(1)
        # A stream's best extensions are among the beam_size best of each path; one more gives the margin.
        best = log_probs.topk(min(self.beam_size + 1, log_probs.size(1)), dim=1)
        values, tokens = best.values.tolist(), best.indices.tolist()  # M × (beam_size + 1)

        moved: list[tuple[int, int]] = []  # (source row, target row) of paths extended by blank
        read: list[tuple[int, int, int]] = []  # (source row, target row, token) of the other paths
        m = 0
        for n in streams:
            hypothesis, first = hypotheses[n], n * self.beam_size
            size = len(hypothesis.paths)
            kept = self._extend(hypothesis, values[m : m + size], tokens[m : m + size])
            for b, (parent, token) in enumerate(kept):
                if token not in self.blank_ids:
                    read.append((first + parent, first + b, token))
                elif parent != b:
                    moved.append((first + parent, first + b))
            hypothesis.num_frames += 1
            m += size
        self._follow(rows, moved, read)
        if read:
            self.scorer.prepare([path.scorer_state for n in streams for path in hypotheses[n].paths])

    def _extend(
        self, hypothesis: Hypothesis, values: list[list[float]], tokens: list[list[int]]
    ) -> list[tuple[int, int]]:
        """Replace a stream's paths by their best extensions, and return the parent's index and the token of each.

        Args:
            hypothesis: the stream's hypothesis.
            values: log-probabilities of the best tokens of each path.
            tokens: ids of these tokens.
        """
        candidates = [
            (path.score_without_final + value, b, token, value)
            for b, path in enumerate(hypothesis.paths)
            if path.score_without_final > -math.inf  # see settle()
            for value, token in zip(values[b], tokens[b], strict=True)
        ]
        ordered = heapq.nlargest(self.beam_size + 1, candidates, key=itemgetter(0))
        best, others = ordered[: self.beam_size], ordered[self.beam_size :]
        margin = min((best[-1][0] - other[0] for other in others), default=math.inf)

        extended: dict[int, ScoredPath] = {}  # by key
        kept: list[tuple[int, int]] = []
        for score, parent, token, value in best:
            path = hypothesis.paths[parent]
            end, key, state, settled = path.end, path.key, path.scorer_state, path.num_settled
            if token not in self.blank_ids:
                end, key = path.emit(token, hypothesis.num_frames, value)
                added, state = self.scorer.step(state, token)
                score += added
            if same := extended.get(key):
                margin = min(margin, abs(same.greatest - score))  # decides which times are kept
                same.score_without_final = log_add(same.score_without_final, score)
                if score > same.greatest:
                    same.greatest, same.end = score, end
            else:
                extended[key] = ScoredPath(
                    end, key, score_without_final=score, scorer_state=state, greatest=score, num_settled=settled
                )
                kept.append((parent, token))
        hypothesis.paths = list(extended.values())
        if self.record_margins:
            hypothesis.margins.append(margin)
        return kept

    def _follow(self, rows: State, moved: list[tuple[int, int]], read: list[tuple[int, int, int]]) -> None:
        """Reorder the state rows (N·B, …) for the new paths, and feed the emitted tokens to the predictor."""
        device = rows["predictor_proj"].device
        changes = []
        if moved:
            sources, targets = torch.tensor(moved, device=device).unbind(1)
            changes.append((targets, select_slots(rows, sources)))
        if read:
            sources, targets, tokens = torch.tensor(read, device=device).unbind(1)
            changes.append((targets, self._advance(tokens, nest(select_slots(rows, sources))["predictor"])))
        for targets, part in changes:  # after both reads: a source of one may be a target of the other
            write_slots(rows, targets, part)

    def settle(self, hypothesis: Hypothesis, count: int) -> None:
        """See :meth:`Search.settle <summarymix.decoding.search.Search.settle>`. Scores begin again at zero."""
        if not hypothesis.paths:
            return
        prefix = hypothesis.prefix(count)
        for path in hypothesis.paths:
            if path.begins_with(prefix):
                path.num_settled = count
            else:  # it keeps its row of the state until the next frame
                path.score_without_final = -math.inf
        best = max(path.score_without_final for path in hypothesis.paths)
        for path in hypothesis.paths:
            path.score_without_final -= best
        self._rank(hypothesis)

    def _rank(self, hypothesis: Hypothesis) -> None:
        for path in hypothesis.paths:
            path.score = path.score_without_final + self.scorer.final(path.scorer_state)
            length = self.model.predictor.context_size + path.length - path.num_settled
            path.normalized_score = path.score / length
