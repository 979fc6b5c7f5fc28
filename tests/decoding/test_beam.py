"""Modified beam search against the sum over all alignments, and against itself in other batches and chunks."""

import copy
import math
import random
from collections import defaultdict
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import encoder_frames
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.decoding.beam import ModifiedBeamSearch, ScoredPath
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Emission, Hypothesis, Scaling
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.model import BLANK, Transducer
from summarymix.state import select_slots, write_slots

UNK = 1
TIE = 1e-4
ALL = 100_000  # a beam that nothing falls out of


class Bigrams:
    """A scorer for tests: its state is the last token."""

    start = 0

    def step(self, state: int, token: int) -> tuple[float, int]:
        return math.sin(7 * state + token), token

    def final(self, state: int) -> float:
        return math.sin(state)


def total(tokens: tuple[int, ...]) -> float:
    """What Bigrams add to a whole sequence."""
    return sum(math.sin(7 * a + b) for a, b in zip((0, *tokens), tokens, strict=False)) + math.sin((0, *tokens)[-1])


@torch.inference_mode()
def exhaustive(model: Transducer, frames: Tensor, scaling: Scaling) -> dict[tuple[int, ...], float]:
    """Probability of each token sequence: the sum over all alignments of frames (T, D) to a token or blank."""

    @cache
    def distributions(history: tuple[int, ...]) -> list[list[float]]:
        context = model.predictor(torch.tensor([[BLANK, *history]]))[0, -1]
        logits = model.joiner(model.joiner.encoder_proj(frames), model.joiner.decoder_proj(context)).clone()
        logits[:, BLANK] -= scaling.blank_penalty
        return (logits / scaling.temperature).softmax(-1).tolist()  # T × V

    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for alignment in product(range(model.config.vocab_size), repeat=frames.size(0)):
        history: tuple[int, ...] = ()
        probability = 1.0
        for t, token in enumerate(alignment):
            probability *= distributions(history)[t][token]
            if token not in (BLANK, UNK):
                history = (*history, token)
        sums[history] += probability
    return sums


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(blank_penalty=1.5, temperature=2.0)], ids=["plain", "scaled"])
@pytest.mark.parametrize("with_scorer", [False, True], ids=["alone", "scorer"])
def test_an_unlimited_beam_is_exact(model: Transducer, scaling: Scaling, with_scorer: bool) -> None:
    model = copy.deepcopy(model).double()
    frames = torch.randn(1, 4, model.config.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    scorers = [Bigrams()] if with_scorer else []
    search = ModifiedBeamSearch(model, ALL, UNK, scaling=scaling, scorers=scorers)
    [found] = search.decode(frames, torch.tensor([4]))

    expected = {
        tokens: math.log(probability) + (total(tokens) if with_scorer else 0.0)
        for tokens, probability in exhaustive(model, frames[0], scaling).items()
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
    a, b, late_b = Emission(2, 0, -0.5), Emission(3, 1, -0.7), Emission(3, 4, -0.2)
    hypothesis = Hypothesis(num_frames=4, paths=[ScoredPath((a,), carried=-1.0), ScoredPath((a, b), carried=-2.0)])
    values = [[-0.2, -0.9], [-0.1, -3.0]]  # a → ab: -1.2, a → a: -1.9; ab → ab: -2.1, ab → abc: -5.0
    kept = search._extend(hypothesis, values, [[3, BLANK], [BLANK, 4]])
    assert kept == [(0, 3), (0, BLANK)]
    assert [path.emissions for path in hypothesis.paths] == [(a, late_b), (a,)]
    merged = math.log(math.exp(-1.2) + math.exp(-2.1))
    assert [path.carried for path in hypothesis.paths] == pytest.approx([merged, -1.9])
    assert hypothesis.margins == pytest.approx([0.9])  # between the two times of b
    hypothesis.settle()
    assert (hypothesis.tokens, hypothesis.frames, hypothesis.num_settled) == ([2], [0], 1)
    assert [path.emissions for path in hypothesis.paths] == [(late_b,), ()]


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    """Equal, unless a decision was a tie."""
    assert one.num_frames == other.num_frames
    if (one.tokens, one.frames) != (other.tokens, other.frames):
        assert min(one.margin(0), other.margin(0)) < TIE, (one, other)
        return
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert one.score == pytest.approx(other.score, abs=1e-4)
    best, same = ({tuple(h.tokens): h.score for h in x.nbest(9)} for x in (one, other))
    if best.keys() == same.keys():
        assert best == pytest.approx(same, abs=1e-4)
    else:
        assert min(one.margin(0), other.margin(0)) < TIE


def make_search(model: Transducer) -> ModifiedBeamSearch:
    return ModifiedBeamSearch(model, 4, UNK, record_margins=True, scorers=[Bigrams()])


def test_ragged_batches_equal_single_utterances(model: Transducer) -> None:
    frames, lengths = encoder_frames(model)
    search = make_search(model)
    together = search.decode(frames, lengths)
    assert sum(len(h.tokens) for h in together) > 30
    assert all(len(h.paths) > 1 for h in together if h.num_frames)
    for row, length, hypothesis in zip(frames, lengths, together, strict=True):
        [alone] = search.decode(row[None, :length], length[None])
        assert_same(hypothesis, alone)
        assert len(hypothesis.margins) == length
    for row, length in zip(frames, lengths.tolist(), strict=True):
        row[length:] = 1e4  # nothing of it may be looked at
    for one, other in zip(search.decode(frames, lengths), together, strict=True):
        assert_same(one, other)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
@torch.inference_mode()
def test_slots_that_come_and_go_in_random_chunks(model: Transducer, seed: int) -> None:
    frames, lengths = encoder_frames(model)
    rng, search = random.Random(seed), make_search(model)
    expected = search.decode(frames, lengths)
    state = search.init_state(3)
    free, running, waiting = [0, 1, 2], dict[int, tuple[int, int, Hypothesis]](), list(range(len(lengths)))
    while waiting or running:
        while waiting and free and (not running or rng.random() < 0.6):
            slot = free.pop(rng.randrange(len(free)))
            write_slots(state, torch.tensor([slot]), search.init_state(1))
            running[slot] = waiting.pop(0), 0, Hypothesis()
        chosen = rng.sample(sorted(running), rng.randint(1, len(running)))
        slots = torch.tensor(chosen)
        sizes = [rng.randint(0, 9) for _ in chosen]
        chunks = torch.full((len(chosen), 9, frames.size(2)), 1e3)
        counts = []
        for row, slot, size in zip(chunks, chosen, sizes, strict=True):
            n, begin, _ = running[slot]
            part = frames[n, begin : min(begin + size, lengths[n])]
            row[: part.size(0)] = part
            counts.append(part.size(0))
        part_state = select_slots(state, slots)
        search(chunks, torch.tensor(counts), part_state, [running[slot][2] for slot in chosen])
        write_slots(state, slots, part_state)
        for slot, count in zip(chosen, counts, strict=True):
            n, begin, hypothesis = running.pop(slot)
            if begin + count == lengths[n]:
                assert_same(hypothesis, expected[n])
                free.append(slot)
            else:
                running[slot] = n, begin + count, hypothesis


@pytest.mark.parametrize("chunk", [ChunkConfig(1, 3), ChunkConfig(4, -1), ChunkConfig(16, 2)], ids=str)
def test_streaming_equals_simulation(any_model: Transducer, chunk: ChunkConfig) -> None:
    lengths = torch.tensor([150, 3, 90, 200, 35, 0, 77])
    features = torch.randn(7, 200, 16, generator=torch.Generator().manual_seed(4))
    search = make_search(any_model)
    with torch.inference_mode():
        simulated = search.decode(*any_model.encoder(features, lengths, chunk))
    recognizer = StreamingRecognizer(any_model, None, chunk, 3, search=search)  # type: ignore[arg-type]
    streamed = dict(recognizer.decode_all((n, features[n, :length]) for n, length in enumerate(lengths)))
    assert sum(len(h.tokens) for h in streamed.values()) > 20
    for n, hypothesis in enumerate(simulated):
        assert_same(streamed[n], hypothesis)


def test_the_best_result_can_be_read_after_every_chunk(model: Transducer) -> None:
    """It is that of the frames so far, and what has settled is not taken back."""
    frames, _ = encoder_frames(model)
    search = make_search(model)
    state, hypothesis, settled = search.init_state(1), Hypothesis(), list[int]()
    for end in range(5, 51, 5):
        search(frames[:1, end - 5 : end], torch.tensor([5]), state, [hypothesis])
        [whole] = search.decode(frames[:1, :end], torch.tensor([end]))
        assert_same(hypothesis, whole)
        assert hypothesis.tokens[: len(settled)] == settled
        settled = hypothesis.tokens[: hypothesis.num_settled]
        assert all(len(path.emissions) + len(settled) <= end for path in hypothesis.paths)
    assert settled


def test_a_beam_below_one_is_refused(stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match="beam_size must be 1 or more, not 0"):
        ModifiedBeamSearch(stateless_model, beam_size=0)
    with pytest.raises(ValueError, match="the temperature must be above 0, not 0"):
        Scaling(temperature=0)
