"""Modified beam search against the sum over all alignments, and against itself in other batches and chunks."""

import copy
import math

import pytest
import torch
from search_cases import Bigrams, encoder_frames, exhaustive_transducer, total

from summarymix.decoding.beam import ModifiedBeamSearch, ScoredPath
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Hypothesis, Scaling
from summarymix.model import BLANK, Transducer

UNK = 1
TIE = 1e-4
ALL = 100_000  # a beam that nothing falls out of


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(blank_penalty=1.5, temperature=2.0)], ids=["plain", "scaled"])
@pytest.mark.parametrize("with_scorer", [False, True], ids=["alone", "scorer"])
def test_an_unlimited_beam_is_exact(model: Transducer, scaling: Scaling, with_scorer: bool) -> None:
    model = copy.deepcopy(model).double()
    frames = torch.randn(1, 4, model.encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    scorers = [Bigrams()] if with_scorer else []
    search = ModifiedBeamSearch(model, ALL, UNK, scaling=scaling, scorers=scorers)
    [found] = search.decode(frames, torch.tensor([4]))

    expected = {
        tokens: math.log(probability) + (total(tokens) if with_scorer else 0.0)
        for tokens, probability in exhaustive_transducer(model, frames[0], scaling).items()
    }
    scores = {tuple(h.tokens): h.score for h in found.nbest(ALL)}
    assert scores == pytest.approx(expected, abs=1e-9)
    start = model.config.context_size if model.config.predictor == "stateless" else 1
    ranked = sorted(expected, key=lambda tokens: expected[tokens] / (len(tokens) + start), reverse=True)
    assert [tuple(h.tokens) for h in found.nbest(10)] == ranked[:10]
    assert tuple(found.tokens) == ranked[0]


def test_one_path_is_greedy_search(model: Transducer) -> None:
    """With a beam of one nothing is merged, so the path is the one of the best tokens."""
    frames, lengths = encoder_frames(model)
    for scaling in (Scaling(), Scaling(0.7, 1.3)):
        beam = ModifiedBeamSearch(model, 1, UNK, scaling=scaling).decode(frames, lengths)
        greedy = GreedySearch(model, unk_id=UNK, scaling=scaling).decode(frames, lengths)
        for one, other in zip(beam, greedy, strict=True):
            assert (one.tokens, one.frames) == (other.tokens, other.frames)
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    assert sum(len(h.tokens) for h in beam) > 30


def test_a_blank_penalty_makes_it_talk_more(stateless_model: Transducer) -> None:
    frames, lengths = encoder_frames(stateless_model)
    for search in (ModifiedBeamSearch, GreedySearch):
        counts = [
            sum(len(h.tokens) for h in search(stateless_model, scaling=Scaling(p)).decode(frames, lengths))
            for p in (-2.0, 0.0, 2.0)
        ]
        assert counts[0] < counts[1] < counts[2]


def test_merging_by_hand(stateless_model: Transducer) -> None:
    """Paths a and ab: blank after ab and b after a are the same tokens."""
    search = ModifiedBeamSearch(stateless_model, beam_size=3, record_margins=True)
    start = ScoredPath(score_without_final=-1.0)
    path_a = ScoredPath(*start.emit(2, 0, -0.5), score_without_final=-1.0)
    path_ab = ScoredPath(*path_a.emit(3, 1, -0.7), score_without_final=-2.0)
    hypothesis = Hypothesis(num_frames=4, paths=[path_a, path_ab])
    values = [[-0.2, -0.9], [-0.1, -3.0]]  # a → ab: -1.2, a → a: -1.9; ab → ab: -2.1, ab → abc: -5.0
    kept = search._extend(hypothesis, values, [[3, BLANK], [BLANK, 4]])
    assert kept == [(0, 3), (0, BLANK)]
    search._rank(hypothesis)
    ab, a = hypothesis.nbest(3)
    assert (ab.tokens, ab.frames, ab.log_probs) == ([2, 3], [0, 4], [-0.5, -0.2])
    assert (a.tokens, a.frames) == ([2], [0])
    assert (ab.score, a.score) == pytest.approx((math.log(math.exp(-1.2) + math.exp(-2.1)), -1.9))
    assert hypothesis.margins == pytest.approx([0.9])  # between the two times of b


def test_times_are_those_of_the_better_path_with_scorers_too(stateless_model: Transducer) -> None:
    """Paths a and ab as above: without the scorer, b after a is the better one."""

    class Costly:
        start = 0

        def step(self, state: int, token: int) -> tuple[float, int]:
            return -2.0, token

        def final(self, state: int) -> float:
            return 0.0

    search = ModifiedBeamSearch(stateless_model, beam_size=2, scorers=[Costly()])
    path_a = ScoredPath(*ScoredPath().emit(2, 0, -0.5), score_without_final=-1.0, scorer_state=(2,))
    path_ab = ScoredPath(*path_a.emit(3, 1, -0.7), score_without_final=-1.5, scorer_state=(3,))
    hypothesis = Hypothesis(num_frames=4, paths=[path_a, path_ab])
    search._extend(hypothesis, [[-0.2], [-0.1]], [[3], [BLANK]])  # -1.2 and -2.0 for b; -1.6 for the blank
    search._rank(hypothesis)
    hypothesis.set_best_path()
    assert (hypothesis.tokens, hypothesis.frames) == ([2, 3], [0, 1])
    assert hypothesis.score == pytest.approx(math.log(math.exp(-3.2) + math.exp(-1.6)))


def test_settled_tokens_do_not_count_in_the_ranking(stateless_model: Transducer) -> None:
    """a and abbb: in a long silence each frame costs a little, and a cost per token favours the longer one."""
    search = ModifiedBeamSearch(stateless_model, beam_size=3)
    silent = ScoredPath(*ScoredPath().emit(2, 0, -0.5), score_without_final=-1.0)
    noisy = silent
    for frame in (1, 2, 3):
        noisy = ScoredPath(*noisy.emit(3, frame, -0.7), score_without_final=-3.4)
    other = ScoredPath(*ScoredPath().emit(3, 0, -0.6), score_without_final=-1.1)
    hypothesis = Hypothesis(num_frames=4, paths=[silent, noisy, other])

    def best(extensions: list[float]) -> list[int]:
        search._extend(hypothesis, [[value] for value in extensions], [[BLANK]] * len(extensions))
        search._rank(hypothesis)
        hypothesis.set_best_path()
        return hypothesis.tokens

    context = stateless_model.config.context_size
    assert best([-0.1, -0.1, -0.1]) == [2]
    search.settle(hypothesis, 1)
    assert [path.normalized_score for path in hypothesis.paths] == pytest.approx([0, -math.inf, -2.4 / (context + 3)])
    assert best([-1.5, -1.5, -1.5]) == [2]  # without it, -2.6 / 3 and -5.0 / 6
    assert [path.score for path in hypothesis.paths[:2]] == pytest.approx([-1.5, -3.9])


def test_the_shown_path_is_settled_also_if_another_one_has_become_better(stateless_model: Transducer) -> None:
    """a and abb: the longer one is shown because of its cost per token."""
    search = ModifiedBeamSearch(stateless_model, beam_size=3)
    short = ScoredPath(*ScoredPath().emit(2, 0, -0.5), score_without_final=-3.0)
    shown = short
    for frame in (1, 2):
        shown = ScoredPath(*shown.emit(3, frame, -0.7), score_without_final=-4.9)
    hypothesis = Hypothesis(num_frames=4, paths=[short, shown])
    search._rank(hypothesis)
    hypothesis.set_best_path()
    assert hypothesis.tokens == [2, 3, 3]
    search.settle(hypothesis, 0)
    search.settle(hypothesis, 3)
    for _ in range(2):
        search._extend(hypothesis, [[-0.1]] * len(hypothesis.paths), [[BLANK]] * len(hypothesis.paths))
        search._rank(hypothesis)
        hypothesis.set_best_path()
        assert hypothesis.tokens == [2, 3, 3]
    assert len(hypothesis.paths) == 1


def test_a_beam_below_one_is_refused(stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match="beam_size must be 1 or more, not 0"):
        ModifiedBeamSearch(stateless_model, beam_size=0)
    with pytest.raises(ValueError, match="the temperature must be above 0, not 0"):
        Scaling(temperature=0)


def test_the_closest_decision_of_a_frame_is_its_margin(stateless_model: Transducer) -> None:
    frames, lengths = encoder_frames(stateless_model)
    beam = ModifiedBeamSearch(stateless_model, 1, UNK, record_margins=True).decode(frames, lengths)
    greedy = GreedySearch(stateless_model, unk_id=UNK, record_margins=True).decode(frames, lengths)
    for one, other in zip(beam, greedy, strict=True):
        assert one.margins == pytest.approx(other.margins, abs=1e-4)
    search = ModifiedBeamSearch(stateless_model, beam_size=3, record_margins=True)
    path_a = ScoredPath(*ScoredPath().emit(2, 0, -0.5), score_without_final=-1.0)
    path_ab = ScoredPath(*path_a.emit(3, 1, -0.7), score_without_final=-2.0)
    hypothesis = Hypothesis(num_frames=4, paths=[path_a, path_ab])
    search._extend(hypothesis, [[-0.2, -0.9], [-0.1, -0.3]], [[3, BLANK], [BLANK, 4]])
    assert hypothesis.margins == pytest.approx([0.2])  # abc, -2.3, falls out; between the two times of b it is 0.9


def test_a_search_leaves_the_given_state_as_it_is(stateless_model: Transducer) -> None:
    frames, lengths = encoder_frames(stateless_model)
    for search in (GreedySearch(stateless_model), ModifiedBeamSearch(stateless_model)):
        state = search.init_state(len(lengths))
        before = {name: tensor.clone() for name, tensor in state.items()}
        search(frames, lengths, state, [Hypothesis() for _ in lengths])
        assert all(torch.equal(state[name], before[name]) for name in state)
