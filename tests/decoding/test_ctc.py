"""Searches of the CTC head against its definition: the sum over all alignments."""

import math

import pytest
import torch
from search_cases import Bigrams, collapse, encoder_frames, exhaustive_ctc, total

from summarymix.decoding.ctc import CTCGreedySearch, CTCPrefixBeamSearch, Prefix
from summarymix.decoding.search import Emission, Hypothesis, Scaling
from summarymix.model import BLANK, Transducer

UNK = 1
ALL = 100_000


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(1.5, 2.0)], ids=["plain", "scaled"])
@pytest.mark.parametrize("with_scorer", [False, True], ids=["alone", "scorer"])
def test_an_unlimited_beam_is_exact(stateless_model: Transducer, scaling: Scaling, with_scorer: bool) -> None:
    frames = 3 * torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(3))
    expected = exhaustive_ctc(stateless_model, frames[0], scaling)
    if with_scorer:
        expected = {tokens: score + total(tokens) for tokens, score in expected.items()}
    scorers = [Bigrams()] if with_scorer else []
    search = CTCPrefixBeamSearch(stateless_model, ALL, UNK, scaling=scaling, scorers=scorers)
    [found] = search.decode(frames, torch.tensor([4]))
    best = found.nbest(ALL)
    assert {tuple(h.tokens): h.score for h in best} == pytest.approx(expected, abs=1e-4)
    assert best[0].score == max(h.score for h in best) == found.score
    assert best[0].tokens == found.tokens
    for hypothesis in best:
        assert sorted(set(hypothesis.frames)) == hypothesis.frames  # one token a frame


def test_greedy_search_by_definition(stateless_model: Transducer) -> None:
    frames, lengths = encoder_frames(stateless_model)
    frames *= 5
    found = CTCGreedySearch(stateless_model, UNK, scaling=Scaling(0.5)).decode(frames, lengths)
    with torch.inference_mode():
        logits = stateless_model.ctc_head(frames)
        logits[..., BLANK] -= 0.5
        probabilities = logits.softmax(-1)
        probabilities[..., BLANK] += probabilities[..., UNK]
        probabilities[..., UNK] = 0
    for hypothesis, row, length in zip(found, probabilities, lengths.tolist(), strict=True):
        best = row[:length].argmax(-1).tolist()
        assert tuple(hypothesis.tokens) == collapse(tuple(best))
        starts = [t for t in range(length) if best[t] != BLANK and (t == 0 or best[t] != best[t - 1])]
        assert hypothesis.frames == starts
        values = [math.log(float(row[t, best[t]])) for t in starts]
        assert hypothesis.log_probs == pytest.approx(values, abs=1e-4)
    assert sum(len(h.tokens) for h in found) > 30
    assert any(len(h.tokens) < h.num_frames for h in found)


def test_a_token_repeats_only_behind_a_blank(stateless_model: Transducer) -> None:
    search = CTCPrefixBeamSearch(stateless_model, 3, record_margins=True)
    a = Emission(5, 0, -0.1, None, 1)
    path = Prefix()
    path.add(-2.0, a, ends_in_blank=True)
    path.add(-1.0, a, ends_in_blank=False)
    hypothesis = Hypothesis(num_frames=2, paths=[path])
    search._search_frame(hypothesis, [(-0.2, 5), (-3.0, BLANK)])
    # Nothing more, of the token's own part and of blank; or once more, of blank's part.
    same, again = hypothesis.paths
    assert (same.end, again.end and again.end.previous) == (a, a)
    assert (same.token, same.blank) == pytest.approx((-1.2, path.acoustic - 3.0))
    assert (again.token, again.blank) == (-2.2, -math.inf)
    assert (again.end.token, again.end.frame) == (5, 2)


def test_without_blank_among_the_best_the_token_has_to_go_on(stateless_model: Transducer) -> None:
    """A path behind a blank, and a frame that knows neither blank nor anything but its last token: only 5 5 is left."""
    search = CTCPrefixBeamSearch(stateless_model, 1)
    path = Prefix()
    path.add(-2.0, Emission(5, 0, -0.1, None, 1), ends_in_blank=True)
    hypothesis = Hypothesis(num_frames=2, paths=[path])
    search._search_frame(hypothesis, [(-0.2, 5), (-3.0, BLANK)])
    [longer] = hypothesis.paths
    assert (longer.length, longer.token, longer.blank) == (2, -2.2, -math.inf)


def test_a_beam_below_one_is_refused(stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match="beam_size must be 1 or more, not 0"):
        CTCPrefixBeamSearch(stateless_model, beam_size=0)


def test_margins_by_hand(stateless_model: Transducer) -> None:
    search = CTCPrefixBeamSearch(stateless_model, 2, record_margins=True)
    start = Prefix()
    start.add(0.0, None, ends_in_blank=True)
    hypothesis = Hypothesis(paths=[start])
    search._search_frame(hypothesis, [(-0.2, 5), (-0.9, 6), (-1.0, 7)])
    assert hypothesis.margins == pytest.approx([0.1])  # between the tokens 6 and 7
    end, key = start.emit(5, 0, -0.1)
    five = Prefix(key=key)
    five.add(-1.0, end, ends_in_blank=False)
    late = Prefix()
    late.add(-2.0, None, ends_in_blank=True)
    hypothesis = Hypothesis(num_frames=1, paths=[five, late])
    search._search_frame(hypothesis, [(-0.2, 5)])
    assert hypothesis.margins == pytest.approx([1.0])  # between the two times of 5
