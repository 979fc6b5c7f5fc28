"""What holds of every search: other batches, other chunks and other slots change nothing."""

import copy
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import Bigrams, encoder_frames, tiny_lm

from summarymix.chunking import ChunkConfig
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCGreedySearch, CTCPrefixBeamSearch
from summarymix.decoding.fast_beam import FastBeamOptions, FastBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import BeamSearch, Hypothesis, Search
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.lm.rnn_scorer import RnnLMScorer
from summarymix.model import Transducer
from summarymix.predictor import LSTMPredictor
from summarymix.state import select_slots, write_slots

UNK = 1
TIE = 1e-4
MakeSearch = Callable[[Transducer], Search]


def with_lm(kind: type[BeamSearch], model: Transducer) -> Search:
    return kind(model, 4, UNK, True, scorers=[RnnLMScorer(tiny_lm(), 0.2), Bigrams()])


def fast_beam(model: Transducer) -> Search:
    pytest.importorskip("k2")
    if isinstance(model.predictor, LSTMPredictor):
        pytest.skip("k2's lattice has short histories only")
    return FastBeamSearch(model, FastBeamOptions(), unk_id=UNK, record_margins=True)


SEARCHES: list[MakeSearch] = [
    pytest.param(lambda model: GreedySearch(model, 2, UNK, True), id="greedy"),
    pytest.param(lambda model: ModifiedBeamSearch(model, 4, UNK, True, scorers=[Bigrams()]), id="beam"),
    pytest.param(lambda model: CTCGreedySearch(model, UNK, record_margins=True), id="ctc_greedy"),
    pytest.param(lambda model: CTCPrefixBeamSearch(model, 4, UNK, True, scorers=[Bigrams()]), id="ctc_prefix"),
    pytest.param(fast_beam, id="fast_beam"),
    pytest.param(partial(with_lm, ModifiedBeamSearch), id="beam_lm"),
    pytest.param(partial(with_lm, CTCPrefixBeamSearch), id="ctc_prefix_lm"),
]  # type: ignore[list-item]


def closest(hypothesis: Hypothesis) -> float:
    return min([*hypothesis.margins, hypothesis.margin(0)])


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    """Equal, unless a decision was a tie."""
    assert one.num_frames == other.num_frames
    if (one.tokens, one.frames) != (other.tokens, other.frames):
        assert min(closest(one), closest(other)) < TIE, (one, other)
        return
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert len(one.margins) == one.num_frames
    assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-4)
    best, same = ({tuple(h.tokens): h.score for h in x.nbest(9)} for x in (one, other))
    if best.keys() == same.keys():
        assert best == pytest.approx(same, rel=1e-5, abs=1e-4)
    else:
        assert min(closest(one), closest(other)) < TIE


@pytest.mark.parametrize("make", SEARCHES)
def test_ragged_batches_equal_single_utterances(make: MakeSearch, model: Transducer) -> None:
    frames, lengths = encoder_frames(model)
    search = make(model)
    together = search.decode(frames, lengths)
    assert sum(len(h.tokens) for h in together) > 30
    for row, length, hypothesis in zip(frames, lengths, together, strict=True):
        [alone] = search.decode(row[None, :length], length[None])
        assert_same(hypothesis, alone)
    for row, length in zip(frames, lengths.tolist(), strict=True):
        row[length:] = 1e4  # nothing of it may be looked at
    for one, other in zip(search.decode(frames, lengths), together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("make", SEARCHES)
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
@torch.inference_mode()
def test_slots_that_come_and_go_in_random_chunks(make: MakeSearch, model: Transducer, seed: int) -> None:
    frames, lengths = encoder_frames(model)
    rng, search = random.Random(seed), make(model)
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
        part_state = search(chunks, torch.tensor(counts), part_state, [running[slot][2] for slot in chosen])
        write_slots(state, slots, part_state)
        for slot, count in zip(chosen, counts, strict=True):
            n, begin, hypothesis = running.pop(slot)
            if begin + count == lengths[n]:
                assert_same(hypothesis, expected[n])
                free.append(slot)
            else:
                running[slot] = n, begin + count, hypothesis


@pytest.mark.parametrize("make", SEARCHES)
@pytest.mark.parametrize("chunk", [ChunkConfig(1, 3), ChunkConfig(4, -1), ChunkConfig(16, 2)], ids=str)
def test_streaming_equals_simulation(make: MakeSearch, any_model: Transducer, chunk: ChunkConfig) -> None:
    lengths = torch.tensor([150, 3, 90, 200, 35, 0, 77])
    features = torch.randn(7, 200, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    model = copy.deepcopy(any_model).double()  # random layers blow rounding up
    search = make(model)
    with torch.inference_mode():
        simulated = search.decode(*model.encoder(features, lengths, chunk))
    recognizer = StreamingRecognizer(search, chunk, 3)
    streamed = dict(recognizer.decode_all((n, features[n, :length]) for n, length in enumerate(lengths)))
    assert sum(len(h.tokens) for h in streamed.values()) > 5
    for n, hypothesis in enumerate(simulated):
        assert_same(streamed[n], hypothesis)


@pytest.mark.parametrize("make", SEARCHES)
def test_the_best_result_can_be_read_after_every_chunk(make: MakeSearch, model: Transducer) -> None:
    """It is that of the frames so far."""
    frames, _ = encoder_frames(model)
    search = make(model)
    state, hypothesis = search.init_state(1), Hypothesis()
    for end in range(5, 51, 5):
        state = search(frames[:1, end - 5 : end], torch.tensor([5]), state, [hypothesis])
        [whole] = search.decode(frames[:1, :end], torch.tensor([end]))
        assert_same(hypothesis, whole)
        [best] = hypothesis.nbest(1)
        assert (hypothesis.tokens, hypothesis.frames, hypothesis.score) == (best.tokens, best.frames, best.score)
