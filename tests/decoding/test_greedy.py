"""Greedy search against a reference that has no state: it reads the whole history again for every decision."""

import pytest
import torch
from search_cases import encoder_frames
from torch import Tensor

from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.model import BLANK, Transducer
from summarymix.predictor import StatelessPredictor

UNK = 1


@torch.inference_mode()
def naive_search(model: Transducer, frames: Tensor, max_symbols: int) -> Hypothesis:
    """The definition, for one utterance (T, D): the predictor is run over [blank, y_1 …] as training runs it."""
    hypothesis = Hypothesis(num_frames=frames.size(0))
    for t, frame in enumerate(frames):
        for _ in range(max_symbols):
            history = torch.tensor([[BLANK, *hypothesis.tokens]])
            context = model.predictor(history)[0, -1]
            logits = model.joiner(model.joiner.encoder_proj(frame), model.joiner.predictor_proj(context))
            token = int(logits.argmax())
            if token in (BLANK, UNK):
                break
            hypothesis.tokens.append(token)
            hypothesis.frames.append(t)
            hypothesis.log_probs.append(float(logits.log_softmax(0)[token]))
    return hypothesis


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    assert one.tokens == other.tokens
    assert one.frames == other.frames
    assert one.num_frames == other.num_frames
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@pytest.mark.parametrize("max_symbols", [1, 3])
def test_batched_equals_reference(model: Transducer, max_symbols: int) -> None:
    frames, lengths = encoder_frames(model)
    hypotheses = GreedySearch(model, max_symbols, UNK).decode(frames, lengths)
    assert sum(len(h.tokens) for h in hypotheses) > 30  # else the comparison says little
    assert any(len(h.tokens) < h.num_frames * max_symbols for h in hypotheses)
    for hypothesis, row, length in zip(hypotheses, frames, lengths.tolist(), strict=True):
        assert_same(hypothesis, naive_search(model, row[:length], max_symbols))


def test_what_stands_behind_the_end_does_not_matter(model: Transducer) -> None:
    frames, lengths = encoder_frames(model)
    search = GreedySearch(model)
    expected = search.decode(frames, lengths)
    for row, length in zip(frames, lengths.tolist(), strict=True):
        row[length:] = 1e4
    for one, other in zip(search.decode(frames, lengths), expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("sizes", [[1] * 50, [50], [7, 0, 20, 23], [49, 1]])
def test_any_partition_of_the_frames_gives_the_same(model: Transducer, sizes: list[int]) -> None:
    frames, lengths = encoder_frames(model)
    search = GreedySearch(model, max_symbols_per_frame=2, record_margins=True)
    expected = search.decode(frames, lengths)
    state = search.init_state(len(lengths))
    hypotheses = [Hypothesis() for _ in lengths]
    begin = 0
    for size in sizes:
        part = (lengths - begin).clamp(0, size)
        state = search(frames[:, begin : begin + size], part, state, hypotheses)
        begin += size
    for one, other in zip(hypotheses, expected, strict=True):
        assert_same(one, other)
        assert one.margins == pytest.approx(other.margins, abs=1e-4)


@pytest.mark.parametrize("context_size", [1, 2, 4])
def test_context_at_the_start_is_that_of_training(model: Transducer, context_size: int) -> None:
    """Decoding must begin where training begins: [blank] after an empty history."""
    predictor = model.predictor
    if isinstance(predictor, StatelessPredictor):
        predictor = StatelessPredictor(11, 8, context_size)
    with torch.inference_mode():
        trained = predictor(torch.tensor([[BLANK]]))[:, 0]
        decoded, _ = predictor.step(torch.tensor([BLANK]), predictor.init_state(1, torch.device("cpu")))
    torch.testing.assert_close(decoded, trained)
    with torch.inference_mode():
        expected = model.joiner.predictor_proj(model.predictor(torch.tensor([[BLANK]]))[:, 0])
    torch.testing.assert_close(GreedySearch(model).init_state(1)["predictor_proj"], expected)


def test_margin_is_the_gap_of_the_closest_decision(model: Transducer) -> None:
    frames, lengths = encoder_frames(model)
    search = GreedySearch(model, max_symbols_per_frame=1, record_margins=True)
    hypotheses = search.decode(frames, lengths)
    assert [len(h.margins) for h in hypotheses] == lengths.tolist()
    state = search.init_state(len(lengths))
    with torch.inference_mode():
        logits = model.joiner(model.joiner.encoder_proj(frames[:, 0]), state["predictor_proj"])  # (N, V)
    for hypothesis, row in zip(hypotheses, logits.tolist(), strict=True):
        if hypothesis.margins:
            best, second = sorted(row)[-1], sorted(row)[-2]
            assert hypothesis.margins[0] == pytest.approx(best - second, abs=1e-5)


def test_a_symbol_limit_below_one_is_refused(stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match="max_symbols_per_frame must be 1 or more, not 0"):
        GreedySearch(stateless_model, max_symbols_per_frame=0)


def test_of_several_decisions_at_a_frame_the_closest_counts(stateless_model: Transducer) -> None:
    frames, lengths = encoder_frames(stateless_model)
    one, two = (
        GreedySearch(stateless_model, limit, record_margins=True).decode(frames[:, :1], lengths.clamp(max=1))
        for limit in (1, 2)
    )
    pairs = [(a.margins[0], b.margins[0]) for a, b in zip(one, two, strict=True) if a.margins]
    assert all(b <= a + 1e-5 for a, b in pairs)
    assert any(b < a - 1e-3 for a, b in pairs)
