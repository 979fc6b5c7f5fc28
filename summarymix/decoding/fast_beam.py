"""Fast beam search with k2, as in icefall: a lattice over a decoding graph, at most one token per frame."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from summarymix import optional_k2
from summarymix.decoding.search import UNSCALED, BeamPath, Hypothesis, Scaling, Search
from summarymix.model import BLANK, Transducer
from summarymix.predictor import StatelessPredictor
from summarymix.state import State

PARTIAL = -1e4  # added to the score of paths that have not reached the graph's end, so that complete paths are better


@dataclass(frozen=True)
class FastBeamOptions:
    """Pruning of the lattice, and sampling of hypotheses from it; names and meanings are icefall's.

    Args:
        beam: states of a frame that score this far below the best one are dropped.
        max_contexts: maximum number of histories (the predictor's last tokens) per stream and frame.
        max_states: maximum number of pairs of a history and a graph state per stream and frame.
        num_paths: number of paths sampled from the lattice to find the best hypotheses; 0: only the best path.
        nbest_scale: scale of the scores for sampling; smaller values give more diverse hypotheses.
    """

    beam: float = 20.0
    max_contexts: int = 8
    max_states: int = 64
    num_paths: int = 0
    nbest_scale: float = 0.5


@dataclass
class Lattice:
    """The k2 lattice of a stream."""

    stream: Any  # k2.RnntDecodingStream
    frames: list[int] = field(default_factory=list)  # encoder frame of each lattice frame; see _close


class FastBeamSearch(Search):
    """Search over a batch of streams with ``k2.RnntDecodingStreams``.

    The best path of the lattice is the best alignment of frames to tokens (Viterbi), not the most probable token
    sequence. With ``num_paths``, token sequences are sampled from the lattice, and the scores of each one's alignments
    are summed; this is icefall's ``fast_beam_search_nbest``, and with a ``graph`` its ``fast_beam_search_nbest_LG``.

    Every call reads the whole lattice so far, so its time grows: use it for utterances, not for hours of audio.

    Args:
        model: transducer with a stateless predictor.
        options: pruning and sampling.
        graph: ``k2.Fsa`` of the allowed token sequences with their scores, such as :func:`read_lg` returns; requires
            whole utterances. By default any sequence is allowed.
        unk_id: id of ``<unk>``, which is never emitted.
        record_margins, scaling: see :class:`~summarymix.decoding.search.Search`.

    Raises:
        ValueError: k2 is missing, the predictor is not stateless, or the graph does not fit the model.
    """

    model: Transducer
    constant_state = False  # the lattice grows

    def __init__(
        self,
        model: Transducer,
        options: FastBeamOptions,
        graph: Any = None,
        unk_id: int | None = None,
        record_margins: bool = False,
        scaling: Scaling = UNSCALED,
    ) -> None:
        super().__init__(model, unk_id, record_margins, scaling)
        if not isinstance(model.predictor, StatelessPredictor):
            raise ValueError(
                "fast beam search needs a stateless predictor (--model.predictor stateless), which this model does not "
                "have: use --method modified_beam_search"
            )
        self.predictor = model.predictor
        self.k2 = optional_k2.require("--method fast_beam_search")
        self.options = options
        self.whole_utterances = graph is not None
        vocab_size = model.config.vocab_size
        self.end = vocab_size  # one more token, for the end of a graph
        with torch.inference_mode(False):  # see __call__
            self.graph = self.k2.Fsa(self._any_sequence() if graph is None else self._with_end(graph))
            self.graph.graph_scores = self.graph.scores.clone()  # copied to the lattice, to separate the model's scores
        self._config = self.k2.RnntDecodingConfig(
            vocab_size=vocab_size + 1,
            decoder_history_len=self.predictor.context_size,
            beam=options.beam,
            max_contexts=options.max_contexts,
            max_states=options.max_states,
        )

    def _any_sequence(self) -> Tensor:
        """Return the graph of all token sequences, with one state; arcs (A, 4), int32.

        k2 requires a final state, but no path reaches it: k2 treats paths that can end differently from others, and
        here all paths are alike.
        """
        tokens = torch.tensor([i for i in range(self.model.config.vocab_size) if i not in self.blank_ids])
        arcs = torch.zeros(len(tokens) + 1, 4, dtype=torch.int32)  # from, to, label, score
        arcs[:-1, 2] = tokens
        arcs[-1, :3] = torch.tensor([1, 2, -1])
        return arcs

    def _with_end(self, graph: Any) -> Tensor:
        """Return ``graph`` with an end token on its final arcs; arcs (A, 4), int32.

        k2 drops the scores of final arcs from the lattice, and these may hold much of the last word's score.
        """
        arcs: Tensor = graph.arcs.values()[:, :4].cpu().clone()  # the last column holds the scores' bits
        labels = arcs[:, 2]
        if bool((labels == 0).any()) or labels.max() >= self.end:
            raise ValueError(
                f"the graph has labels from {int(labels[labels >= 0].min())} to {int(labels.max())}, and the model "
                f"tokens from 1 to {self.end - 1}: compile the graph for the model's tokens, without epsilons"
            )
        labels[labels == -1] = self.end
        last = graph.shape[0] - 1
        return torch.cat([arcs, torch.tensor([[last, last + 1, -1, 0]], dtype=torch.int32)])

    def check_streaming(self) -> None:
        """See :meth:`Search.check_streaming <summarymix.decoding.search.Search.check_streaming>`."""
        if self.whole_utterances:
            raise ValueError("a search with a graph (--lg) needs whole utterances: use --mode offline or simulated")

    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return an empty state: the hypotheses hold the lattices."""
        return {}

    # k2 reads the versions of its tensors, which inference mode does not keep; callers may be in inference mode.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """See :meth:`Search.__call__ <summarymix.decoding.search.Search.__call__>`.

        Raises:
            ValueError: an utterance searched with a graph arrives in parts.
        """
        frames = self.model.joiner.encoder_proj(encoder_out)  # (N, T, J)
        limits: list[int] = lengths.tolist()
        if self.graph.device != frames.device:
            self.graph = self.graph.to(frames.device)
        for hypothesis, limit in zip(hypotheses, limits, strict=True):
            if limit and hypothesis.num_frames:
                self.check_streaming()
            if hypothesis.memory is None:
                hypothesis.memory = Lattice(self.k2.RnntDecodingStream(self.graph))
        begin = 0
        for end in sorted(set(limits) - {0}):  # the lengths of the streams, shortest first
            rows = [n for n, limit in enumerate(limits) if limit >= end]
            self._search([hypotheses[n] for n in rows], frames[rows, begin:end])
            begin = end
        heard = [hypothesis for hypothesis, limit in zip(hypotheses, limits, strict=True) if limit]
        if heard:
            self._show_best(heard, self._close(heard))
        return state

    def _search(self, hypotheses: list[Hypothesis], frames: Tensor) -> None:
        """Search frames (M, t, J) of M streams."""
        streams = self._streams(hypotheses)
        for frame in frames.unbind(1):
            shape, contexts = streams.get_contexts()  # contexts (C, context_size) of all streams, int32
            owners = shape.row_ids(1).long()  # (C,)
            logits = self.model.joiner(frame[owners], self._contexts(contexts))  # (C, V)
            log_probs = self.scaling(logits).log_softmax(1).float()
            streams.advance(F.pad(log_probs, (0, 1), value=-math.inf))
        streams.terminate_and_flush_to_streams()
        for hypothesis in hypotheses:
            first, hypothesis.num_frames = hypothesis.num_frames, hypothesis.num_frames + frames.size(1)
            hypothesis.memory.frames += range(first, hypothesis.num_frames)
            # k2 does not report margins: no difference counts as a tie.
            hypothesis.margins += [math.inf] * frames.size(1) if self.record_margins else []

    def _contexts(self, contexts: Tensor) -> Tensor:
        """Return the predictor's output for histories (C, context_size), projected for the joiner: (C, J).

        k2 fills an utterance's start with blanks; the predictor expects a single blank with padding before it.
        """
        tokens = contexts.long()
        tokens[:, :-1].masked_fill_(tokens[:, 1:] == BLANK, -1)
        return self.model.joiner.predictor_proj(self.predictor.mix(tokens)[:, 0])

    def _streams(self, hypotheses: list[Hypothesis]) -> Any:
        return self.k2.RnntDecodingStreams([hypothesis.memory.stream for hypothesis in hypotheses], self._config)

    def _close(self, hypotheses: list[Hypothesis]) -> Any:
        """Return the lattices of all frames so far, a ``k2.Fsa`` of M.

        k2 turns the lattice's last frame into final arcs without labels and scores. So one more frame is appended, at
        which blank is certain; it changes no score and adds no state. With a graph, a frame for the end token precedes
        it.
        """
        streams = self._streams(hypotheses)
        closing = [{self.end: 0.0, BLANK: PARTIAL}] if self.whole_utterances else []
        for tokens in [*closing, {BLANK: 0.0}]:
            _, contexts = streams.get_contexts()
            log_probs = torch.full((contexts.size(0), self.end + 1), -math.inf, device=contexts.device)
            for token, log_prob in tokens.items():
                log_probs[:, token] = log_prob
            streams.advance(log_probs)
            for hypothesis in hypotheses:
                hypothesis.memory.frames.append(hypothesis.num_frames)
        streams.terminate_and_flush_to_streams()
        return streams.format_output([len(h.memory.frames) for h in hypotheses], allow_partial=True)

    def _show_best(self, hypotheses: list[Hypothesis], lattice: Any) -> None:
        draw = self.options.num_paths > 0
        owners, lattice = self._draw(lattice) if draw else (list(range(len(hypotheses))), lattice)
        best = self.k2.shortest_path(lattice, use_double_scores=True)
        summed = lattice if draw else best  # the score of a sampled sequence is the sum over its alignments
        totals = summed.get_tot_scores(use_double_scores=True, log_semiring=True).tolist()
        ends = [0, *((best.labels == -1).nonzero().flatten() + 1).tolist()]  # bounds of each path's arcs
        labels = best.labels.tolist()
        log_probs = (best.scores - best.graph_scores).tolist()
        for hypothesis in hypotheses:
            hypothesis.paths = []
        for owner, (begin, end), total in zip(owners, pairwise(ends), totals, strict=True):
            path, frames = BeamPath(), hypotheses[owner].memory.frames
            for frame, token, log_prob in zip(frames, labels[begin:end], log_probs[begin:end], strict=True):
                if BLANK < token < self.end:
                    path.end, _ = path.emit(token, frame, log_prob)
            partial = self.whole_utterances and self.end not in labels[begin:end]
            path.score = path.normalized_score = total - PARTIAL if partial else total
            hypotheses[owner].paths.append(path)
        for hypothesis in hypotheses:
            hypothesis.set_best_path()

    def _draw(self, lattice: Any) -> tuple[list[int], Any]:
        """Sample token sequences from M lattices, and return each one's stream and the lattice of its alignments."""
        k2 = self.k2
        scores = lattice.scores.clone()
        lattice.scores *= self.options.nbest_scale
        paths = k2.random_paths(lattice, num_paths=self.options.num_paths, use_double_scores=True)
        lattice.scores = scores
        tokens = k2.ragged.index(lattice.labels.contiguous(), paths).remove_values_leq(0)  # [stream][path][token]
        sequences = [sorted(set(map(tuple, drawn))) for drawn in tokens.tolist()]
        owners = [n for n, drawn in enumerate(sequences) for _ in drawn]
        linear = k2.linear_fsa([list(s) for drawn in sequences for s in drawn], device=lattice.device)
        alignments = k2.intersect_device(
            k2.arc_sort(lattice),
            k2.add_epsilon_self_loops(linear),
            b_to_a_map=torch.tensor(owners, dtype=torch.int32, device=lattice.device),
            sorted_match_a=True,
        )
        return owners, k2.top_sort(k2.connect(alignments))
