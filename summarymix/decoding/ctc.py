"""Searches with the auxiliary CTC head instead of predictor and joiner (A. Graves et al., ICML 2006)."""

import heapq
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from summarymix.chunking import length_mask, to_device
from summarymix.decoding.search import BeamPath, BeamSearch, Emission, Hypothesis, Search, log_add
from summarymix.model import BLANK, Transducer
from summarymix.state import State


class CTCSearch(Search):
    """A search over the token distribution of each frame."""

    model: Transducer

    def log_probs(self, encoder_out: Tensor) -> Tensor:
        """Map encoder frames (N, T, D) to scaled CTC log-probabilities (N, T, V); ``<unk>`` is added to blank."""
        log_probs = self.scaling(self.model.ctc_log_probs(encoder_out)).log_softmax(-1)
        blank_ids = list(self.blank_ids)
        blank = log_probs[..., blank_ids].logsumexp(-1)
        log_probs[..., blank_ids] = -math.inf
        log_probs[..., BLANK] = blank
        return log_probs


class CTCGreedySearch(CTCSearch):
    """Greedy search: the best token of each frame, without repetitions and blanks. The state is the last frame's token.

    A token is emitted at the first frame of its run.
    """

    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return the state of ``batch_size`` streams at the start of an utterance, as after a blank."""
        return {"last": torch.full((batch_size,), BLANK, dtype=torch.int64, device=device)}

    @torch.inference_mode()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """See :meth:`Search.__call__ <summarymix.decoding.search.Search.__call__>`."""
        log_probs, tokens = self.log_probs(encoder_out).topk(2, dim=2)  # (N, T, 2)
        best = torch.cat([state["last"][:, None], tokens[..., 0]], dim=1)  # (N, 1 + T)
        valid = length_mask(lengths, best.size(1) - 1, best.device)  # (N, T)
        emitting = valid & (best[:, 1:] != BLANK) & (best[:, 1:] != best[:, :-1])  # (N, T)
        rows, columns = emitting.nonzero(as_tuple=True)  # (E,) each
        chosen = tokens[rows, columns, 0].tolist(), log_probs[rows, columns, 0].tolist()
        for n, t, token, log_prob in zip(rows.tolist(), columns.tolist(), *chosen, strict=True):
            hypothesis = hypotheses[n]
            hypothesis.tokens.append(token)
            hypothesis.frames.append(hypothesis.num_frames + t)
            hypothesis.log_probs.append(log_prob)
        limits: list[int] = lengths.tolist()
        if self.record_margins:
            for hypothesis, row, limit in zip(hypotheses, log_probs, limits, strict=True):
                hypothesis.margins += (row[:limit, 0] - row[:limit, 1]).tolist()
        for hypothesis, limit in zip(hypotheses, limits, strict=True):
            hypothesis.num_frames += limit
        return {"last": best.gather(1, to_device(lengths, best.device)[:, None])[:, 0]}


@dataclass
class Prefix(BeamPath):
    """A hypothesis with separate scores of the alignments that end in blank and in its last token."""

    blank: float = -math.inf  # log-probability of the alignments that end in blank
    token: float = -math.inf  # log-probability of the alignments that end in the last token
    greatest: float = -math.inf  # greatest part added so far; the times are from it
    gap: float = math.inf  # smallest gap between the greatest part and a part with other times
    acoustic: float = -math.inf  # log-sum of blank and token
    score_without_final: float = -math.inf  # acoustic + added
    added: float = 0.0  # the scorers' scores so far
    scorer_state: tuple[Any, ...] = ()

    @property
    def last(self) -> int:
        """The last token, blank if there is none."""
        return BLANK if self.end is None else self.end.token

    def add(self, part: float, end: Emission | None, ends_in_blank: bool) -> None:
        """Add alignments of these tokens with log-probability ``part``."""
        if ends_in_blank:
            self.blank = log_add(self.blank, part)
        else:
            self.token = log_add(self.token, part)
        self.acoustic = log_add(self.blank, self.token)
        self.score_without_final = self.acoustic + self.added
        if end is not self.end:
            self.gap = min(self.gap, abs(part - self.greatest))
        if part > self.greatest:
            self.greatest, self.end = part, end


class CTCPrefixBeamSearch(BeamSearch, CTCSearch):
    """Prefix beam search, which sums the probabilities of all alignments in the beam.

    As in icefall, each frame extends the hypotheses by its ``beam_size`` best tokens, blank or not, and keeps the
    ``beam_size`` token sequences with the greatest scores. The hypotheses hold everything; the state is empty.
    """

    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return an empty state."""
        return {}

    @torch.inference_mode()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """See :meth:`Search.__call__ <summarymix.decoding.search.Search.__call__>`."""
        log_probs = self.log_probs(encoder_out)  # (N, T, V)
        best = log_probs.topk(min(self.beam_size + 1, log_probs.size(2)), dim=2)
        values, tokens = best.values.tolist(), best.indices.tolist()  # N × T × (beam_size + 1)
        limits: list[int] = lengths.tolist()
        for hypothesis in hypotheses:
            if not hypothesis.paths:
                start = Prefix(scorer_state=self.scorer.start)
                start.add(0.0, None, ends_in_blank=True)
                hypothesis.paths = [start]
        for t in range(max(limits, default=0)):
            streams = [n for n, limit in enumerate(limits) if t < limit]
            for n in streams:
                self._search_frame(hypotheses[n], list(zip(values[n][t], tokens[n][t], strict=True)))
            self.scorer.prepare([path.scorer_state for n in streams for path in hypotheses[n].paths])
        for hypothesis in hypotheses:
            for path in hypothesis.paths:
                path.score = path.normalized_score = path.score_without_final + self.scorer.final(path.scorer_state)
            hypothesis.set_best_path()
        return state

    def settle(self, hypothesis: Hypothesis, count: int) -> None:
        """See :meth:`Search.settle <summarymix.decoding.search.Search.settle>`. Scores are not divided by lengths, so
        they go on.
        """
        if hypothesis.paths:
            prefix = hypothesis.prefix(count)
            hypothesis.paths = [path for path in hypothesis.paths if path.begins_with(prefix)]

    def _search_frame(self, hypothesis: Hypothesis, best: list[tuple[float, int]]) -> None:
        """Search a frame, given as (log-probability, token) of its ``beam_size + 1`` best tokens."""
        size = self.beam_size
        extended: dict[int, Prefix] = {}  # by key

        for path in hypothesis.paths:
            for value, token in best[:size]:
                same = (path.acoustic if token == BLANK else path.token) + value
                if token in (BLANK, path.last) and same > -math.inf:
                    if path.key not in extended:
                        extended[path.key] = Prefix(key=path.key, added=path.added, scorer_state=path.scorer_state)
                    extended[path.key].add(same, path.end, ends_in_blank=token == BLANK)
                # A repetition is a new token only after a blank.
                longer = (path.blank if token == path.last else path.acoustic) + value
                if token != BLANK and longer > -math.inf:
                    end, key = path.emit(token, hypothesis.num_frames, value)
                    if key not in extended:
                        added, state = self.scorer.step(path.scorer_state, token)
                        extended[key] = Prefix(key=key, added=path.added + added, scorer_state=state)
                    extended[key].add(longer, end, ends_in_blank=False)
        ordered = heapq.nlargest(size + 1, extended.values(), key=lambda path: path.score_without_final)
        hypothesis.paths = ordered[:size]
        if self.record_margins:
            gaps = [path.gap for path in hypothesis.paths]
            gaps += [ordered[size - 1].score_without_final - other.score_without_final for other in ordered[size:]]
            gaps += [best[size - 1][0] - value for value, _ in best[size:]]
            hypothesis.margins.append(min(gaps))
        hypothesis.num_frames += 1
