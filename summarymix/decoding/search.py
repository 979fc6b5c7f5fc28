"""Base classes of all searches, and their hypotheses.

A search reads the encoder frames of many streams in parallel, a whole utterance or a chunk per call. Between two calls,
it keeps one row of a :data:`~summarymix.state.State` and one :class:`Hypothesis` per stream. So the same operations run
whether the frames of an utterance arrive in one call or in many, and offline, simulated and streaming decoding cannot
drift apart.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from summarymix.lm.scorers import Scorers, TokenScorer
from summarymix.model import BLANK, TransducerParts
from summarymix.state import State, flatten


@dataclass(frozen=True, eq=False, slots=True)
class Emission:
    """An emitted token with its history. Hypotheses with a common prefix share its emissions."""

    token: int
    frame: int  # encoder frame
    log_prob: float  # given the history
    previous: "Emission | None" = field(repr=False)
    length: int  # number of tokens up to and including this one


@dataclass
class BeamPath:
    """A hypothesis in a beam."""

    end: Emission | None = None  # last emission, linked to the earlier ones
    # 64-bit hash of the tokens: collisions among the few paths of a beam are negligible.
    key: int = 0
    score: float = 0.0  # total score, summed over the alignments in the beam, as if the input ended here
    normalized_score: float = 0.0  # sort key of hypotheses; the greatest is best

    @property
    def length(self) -> int:
        """Number of tokens."""
        return 0 if self.end is None else self.end.length

    def begins_with(self, prefix: Emission | None) -> bool:
        """True if the path's first tokens are those up to and including ``prefix``."""
        own, length = self.end, 0 if prefix is None else prefix.length
        while own is not None and own.length > length:
            own = own.previous
        while own is not prefix:
            if own is None or prefix is None or (own.length, own.token) != (prefix.length, prefix.token):
                return False
            own, prefix = own.previous, prefix.previous
        return True

    def emit(self, token: int, frame: int, log_prob: float) -> tuple[Emission, int]:
        """Return the end and the key of the path extended by ``token``."""
        return Emission(token, frame, log_prob, self.end, self.length + 1), hash((self.key, token))


@dataclass
class Hypothesis:
    """Recognition result of one stream so far; in a beam search, its best hypothesis."""

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # encoder frame at which each token was emitted
    log_probs: list[float] = field(default_factory=list)  # of each token, given the history
    num_frames: int = 0  # encoder frames searched
    # Margin of the closest decision of each frame: the gap between two logits or scores. On request only.
    margins: list[float] = field(default_factory=list)
    # Beam searches only:
    score: float = 0.0  # of the best path
    paths: list[Any] = field(default_factory=list, repr=False, compare=False)  # unordered; BeamPath or a subclass
    memory: Any = field(default=None, repr=False, compare=False)  # further state of the search that is not a tensor
    alternatives: list["Hypothesis"] = field(default_factory=list, repr=False, compare=False)  # see finish()
    _emissions: list[Emission] = field(default_factory=list, repr=False, compare=False)  # emissions of ``tokens``

    def nbest(self, limit: int) -> list["Hypothesis"]:
        """Return up to ``limit`` hypotheses, best first, as if the input ended here."""
        if not self.paths:
            return [self]
        hypotheses = []
        for path in sorted(self.paths, key=lambda path: path.normalized_score, reverse=True)[:limit]:
            hypotheses.append(Hypothesis(num_frames=self.num_frames))
            hypotheses[-1].set_path(path)
        return hypotheses

    def finish(self, nbest: int = 0) -> None:
        """Keep up to ``nbest`` hypotheses as alternatives, best first, and drop what only further frames would need."""
        self.alternatives = self.nbest(nbest) if nbest else []
        if self.paths and self.margins:
            self.margins = [self.margin(0)] * len(self.margins)
        self.paths, self.memory, self._emissions = [], None, []
        for alternative in self.alternatives:
            alternative._emissions = []

    def margin(self, frame: int) -> float:
        """Return the margin of the closest decision that ``frame`` depends on.

        In a beam search, a frame depends on all decisions and on the choice of the best hypothesis.
        """
        if not self.paths:
            return self.margins[frame]
        best = sorted(path.normalized_score for path in self.paths)[-2:]
        return min([*self.margins, *(best[1:] and [best[1] - best[0]])])

    def prefix(self, length: int) -> Emission | None:
        """The emission that ends the first ``length`` tokens of a beam search's result."""
        return self._emissions[length - 1] if length else None

    def set_best_path(self) -> None:
        """Set the result to the path with the greatest normalised score."""
        self.set_path(max(self.paths, key=lambda path: path.normalized_score))

    def set_path(self, path: BeamPath) -> None:
        """Set tokens, frames, log_probs and score from ``path``. The time depends on the number of changed tokens."""
        tail = []
        emission = path.end
        while emission is not None and emission not in self._emissions[emission.length - 1 : emission.length]:
            tail.append(emission)
            emission = emission.previous
        common = path.length - len(tail)
        tail.reverse()
        self._emissions[common:] = tail
        self.tokens[common:] = [emission.token for emission in tail]
        self.frames[common:] = [emission.frame for emission in tail]
        self.log_probs[common:] = [emission.log_prob for emission in tail]
        self.score = path.score


@dataclass(frozen=True)
class Scaling:
    """Scaling of logits before log-softmax, as in icefall and sherpa-onnx.

    Args:
        blank_penalty: subtracted from the blank logit; above 0: fewer deletions, more insertions.
        temperature: divisor of the logits, penalty included; above 1, a beam keeps more alternatives.
    """

    blank_penalty: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be above 0, not {self.temperature}")

    def __call__(self, logits: Tensor) -> Tensor:
        """Scale logits or log-probabilities (…, V); the result is logits (…, V)."""
        if self.blank_penalty:
            logits = logits.clone()
            logits[..., BLANK] -= self.blank_penalty
        return logits if self.temperature == 1 else logits / self.temperature


UNSCALED = Scaling()


class Search(ABC):
    """A search over a batch of streams.

    ``<unk>`` counts as blank, as in icefall's and sherpa-onnx's searches.

    Args:
        model: transducer in evaluation mode.
        unk_id: id of ``<unk>``, None for tokens without ``<unk>``.
        record_margins: fill :attr:`Hypothesis.margins` (a little slower).
        scaling: scaling of the logits.
    """

    constant_state = True  # False if the search also keeps data of all earlier frames

    def __init__(
        self,
        model: TransducerParts,
        unk_id: int | None = None,
        record_margins: bool = False,
        scaling: Scaling = UNSCALED,
    ) -> None:
        self.model = model
        self.blank_ids = {BLANK} if unk_id is None else {BLANK, unk_id}
        self.scaling = scaling
        self.record_margins = record_margins

    def check_streaming(self) -> None:  # noqa: B027 -- most searches can stream
        """Check that the search accepts an utterance in parts.

        Raises:
            ValueError: the search needs whole utterances.
        """

    def settle(self, hypothesis: Hypothesis, count: int) -> None:  # noqa: B027 -- most searches never change a token
        """Make the first ``count`` tokens of a stream final. From here on, a beam search ranks its hypotheses by what
        follows, so that a long past does not weigh on it.
        """

    @abstractmethod
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return the state of ``batch_size`` streams at the start of an utterance."""

    @abstractmethod
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """Search further frames of every stream, and extend its hypothesis.

        Args:
            encoder_out: (N, T, D) the next encoder frames of N streams.
            lengths: (N,) int64, frames of each stream, at most T and best on the CPU; 0 is legal.
            state: from :meth:`init_state`, rows in the order of ``encoder_out``.
            hypotheses: N hypotheses in the same order; changed in place.

        Returns:
            The next state.
        """

    def decode(self, encoder_out: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Search whole utterances (N, T, D) with lengths (N,), and return N hypotheses."""
        hypotheses = [Hypothesis() for _ in range(encoder_out.size(0))]
        self(encoder_out, lengths, self.init_state(encoder_out.size(0), encoder_out.device), hypotheses)
        return hypotheses


class TransducerSearch(Search):
    """A search with predictor and joiner. Its state is the predictor's state and ``predictor_proj``, the predictor's
    last output projected for the joiner.
    """

    def with_model(self, model: TransducerParts) -> "TransducerSearch":
        """Return this search with another form of its model, such as an export of it."""
        other = copy(self)
        other.model = model
        return other

    @torch.inference_mode()
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """Return the state of ``batch_size`` streams at the start of an utterance: the predictor has read one blank."""
        state = self.model.predictor.init_state(batch_size, torch.device(device))
        blank = torch.full((batch_size,), BLANK, dtype=torch.int64, device=device)  # (N,)
        return self._advance(blank, state)

    def _advance(self, tokens: Tensor, predictor_state: State) -> State:
        """Feed ``tokens`` (E,) to the predictor, and return the next state of these E streams."""
        out, predictor_state = self.model.predictor.step(tokens, predictor_state)  # (E, P)
        return {
            "predictor_proj": self.model.joiner.predictor_proj(out),  # (E, J)
            **flatten({"predictor": predictor_state}),
        }


class BeamSearch(Search):
    """A search that keeps several hypotheses per stream.

    Args:
        beam_size: number of hypotheses per stream.
        scorers: scorers of tokens in addition to the model.
        model, unk_id, record_margins, scaling: see :class:`Search`.
    """

    def __init__(
        self,
        model: TransducerParts,
        beam_size: int = 4,
        unk_id: int | None = None,
        record_margins: bool = False,
        scaling: Scaling = UNSCALED,
        scorers: Sequence[TokenScorer] = (),
    ) -> None:
        super().__init__(model, unk_id, record_margins, scaling)
        if beam_size < 1:
            raise ValueError(f"beam_size must be 1 or more, not {beam_size}")
        self.beam_size = beam_size
        self.scorer = Scorers(scorers)


def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
