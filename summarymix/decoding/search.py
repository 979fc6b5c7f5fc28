"""What all searches have in common: hypotheses, and how a search is called.

A search is fed with encoder frames, all of an utterance's or a chunk's at a time, of many streams side by side. What
it remembers of a stream between two calls is one row of a :data:`~summarymix.state.State` and one
:class:`Hypothesis`. Feeding the frames of an utterance in one call or in many therefore runs the same operations, and
offline, simulated and streaming decoding cannot drift apart.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from summarymix.lm.scorers import Scorers, TokenScorer
from summarymix.model import BLANK, Transducer
from summarymix.state import State, flatten


@dataclass(frozen=True, eq=False, slots=True)
class Emission:
    """A token as it was emitted. Hypotheses that begin alike share their emissions."""

    token: int
    frame: int  # encoder frame
    log_prob: float  # given the history
    previous: "Emission | None" = field(repr=False)
    length: int  # number of tokens up to and including this one


@dataclass
class BeamPath:
    """One of the hypotheses in a beam."""

    end: Emission | None = None  # the last token, and with it those before
    # Equal tokens have equal keys. That different ones have is a matter of 64 bits, and of a beam's few paths.
    key: int = 0
    score: float = 0.0  # all that counts, summed over the alignments in the beam, as if the input ended here
    normalized_score: float = 0.0  # what hypotheses are sorted by, the best having the greatest

    @property
    def length(self) -> int:
        """Number of tokens."""
        return 0 if self.end is None else self.end.length

    def emit(self, token: int, frame: int, log_prob: float) -> tuple[Emission, int]:
        """The end and the key of the path that has one token more."""
        return Emission(token, frame, log_prob, self.end, self.length + 1), hash((self.key, token))


@dataclass
class Hypothesis:
    """What one stream has been recognised as so far; of a beam search, the best of its hypotheses."""

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # encoder frame at which each token was emitted
    log_probs: list[float] = field(default_factory=list)  # of each token, given the history
    num_frames: int = 0  # encoder frames searched
    # For each frame the margin of the closest decision: the gap between two logits or two scores. On request only.
    margins: list[float] = field(default_factory=list)
    # Of a beam search only:
    score: float = 0.0  # of the best path
    paths: list[Any] = field(
        default_factory=list, repr=False, compare=False
    )  # the beam: the search's own kind of BeamPath, in no order
    memory: Any = field(default=None, repr=False, compare=False)  # what else the search keeps, if it is no tensor
    _emissions: list[Emission] = field(default_factory=list, repr=False, compare=False)  # those of the tokens above

    def nbest(self, limit: int) -> list["Hypothesis"]:
        """Up to ``limit`` hypotheses, the best first, as they would be if the input ended here."""
        if not self.paths:
            return [self]
        hypotheses = []
        for path in sorted(self.paths, key=lambda path: path.normalized_score, reverse=True)[:limit]:
            hypotheses.append(Hypothesis(num_frames=self.num_frames))
            hypotheses[-1].set_path(path)
        return hypotheses

    def margin(self, frame: int) -> float:
        """The margin of the closest decision that ``frame`` depends on.

        In a beam these are all, and the choice of the best hypothesis.
        """
        if not self.paths:
            return self.margins[frame]
        best = sorted(path.normalized_score for path in self.paths)[-2:]
        return min([*self.margins, *(best[1:] and [best[1] - best[0]])])

    def set_best_path(self) -> None:
        """Show the path of the greatest rank."""
        self.set_path(max(self.paths, key=lambda path: path.normalized_score))

    def set_path(self, path: BeamPath) -> None:
        """Let tokens, frames, log_probs and score be those of ``path``. Takes as long as there are changes."""
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
    """What is done to logits before they become log-probabilities, as in icefall and sherpa-onnx.

    Args:
        blank_penalty: subtracted from blank's logit; above 0, fewer tokens are deleted and more inserted.
        temperature: logits are divided by it, the penalty included; above 1, a beam keeps more alternatives.
    """

    blank_penalty: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be above 0, not {self.temperature}")

    def __call__(self, logits: Tensor) -> Tensor:
        """(…, V) to (…, V), also for log-probabilities, which become logits."""
        if self.blank_penalty:
            logits = logits.clone()
            logits[..., BLANK] -= self.blank_penalty
        return logits if self.temperature == 1 else logits / self.temperature


UNSCALED = Scaling()


class Search(ABC):
    """A search over a batch of streams.

    ``<unk>`` counts as blank, as in icefall's and sherpa-onnx's searches.

    Args:
        model: should be in evaluation mode.
        unk_id: id of ``<unk>``, None if the tokens have none.
        record_margins: fill :attr:`Hypothesis.margins` (a little slower).
        scaling: of the logits.
    """

    constant_state = True  # whether it keeps nothing of earlier frames but its state and the hypotheses

    def __init__(
        self, model: Transducer, unk_id: int | None = None, record_margins: bool = False, scaling: Scaling = UNSCALED
    ) -> None:
        self.model = model
        self.blank_ids = {BLANK} if unk_id is None else {BLANK, unk_id}
        self.scaling = scaling
        self.record_margins = record_margins

    def check_streaming(self) -> None:  # noqa: B027 -- most can
        """Refuse to be fed with an utterance in parts.

        Raises:
            ValueError: this search is for whole utterances.
        """

    @abstractmethod
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """The state of ``batch_size`` streams at the start of an utterance."""

    @abstractmethod
    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        """Search further frames of every stream, and extend its hypothesis.

        Args:
            encoder_out: (N, T, D) the next encoder frames of N streams.
            lengths: (N,) int64, how many of the T frames belong to each stream; 0 is legal.
            state: from :meth:`init_state`, rows in the order of ``encoder_out``.
            hypotheses: N of them, in the same order; changed in place.

        Returns:
            The state that follows.
        """

    def decode(self, encoder_out: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Search whole utterances: (N, T, D) and (N,) to N hypotheses."""
        hypotheses = [Hypothesis() for _ in range(encoder_out.size(0))]
        self(encoder_out, lengths, self.init_state(encoder_out.size(0), encoder_out.device), hypotheses)
        return hypotheses


class TransducerSearch(Search):
    """A search with predictor and joiner. Its state is the predictor's and ``predictor_proj``, its last output,
    projected for the joiner.
    """

    @torch.inference_mode()
    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """The state of ``batch_size`` streams at the start of an utterance: the predictor has read one blank."""
        state = self.model.predictor.init_state(batch_size, torch.device(device))
        blank = torch.full((batch_size,), BLANK, dtype=torch.int64, device=device)  # (N,)
        return self._advance(blank, state)

    def _advance(self, tokens: Tensor, predictor_state: State) -> State:
        """Let the predictors read ``tokens`` (E,); the new state of these E streams."""
        out, predictor_state = self.model.predictor.step(tokens, predictor_state)  # (E, P)
        return {
            "predictor_proj": self.model.joiner.predictor_proj(out),  # (E, J)
            **flatten({"predictor": predictor_state}),
        }


class BeamSearch(Search):
    """A search that keeps several hypotheses of a stream.

    Args:
        beam_size: so many.
        scorers: what else adds to the scores of tokens.
        model, unk_id, record_margins, scaling: see :class:`Search`.
    """

    def __init__(
        self,
        model: Transducer,
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
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
