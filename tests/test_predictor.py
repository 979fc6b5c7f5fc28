import pytest
import torch

from summarymix.model import BLANK
from summarymix.predictor import LSTMPredictor, StatelessPredictor


def make(kind: str):
    torch.manual_seed(0)
    predictor = {
        "stateless1": lambda: StatelessPredictor(7, 8, 1),
        "stateless2": lambda: StatelessPredictor(7, 8, 2),
        "stateless3": lambda: StatelessPredictor(7, 8, 3),
        "lstm": lambda: LSTMPredictor(7, 8, dropout=0.1),
    }[kind]()
    return predictor.double().eval()


KINDS = ["stateless1", "stateless2", "stateless3", "lstm"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_decoding_see_the_same_context_from_the_first_token_on(kind):
    """Training feeds [blank, y…] at once, decoding blank and then a token at a time, from the initial state."""
    predictor = make(kind)
    tokens = torch.tensor([[BLANK, 3, 3, 6, 1], [BLANK, 1, 5, 2, 4]])
    at_once = predictor(tokens)  # (N, U, P)
    state = predictor.init_state(2)
    assert state
    assert not any(tensor.any() for tensor in state.values())
    for u in range(5):
        out, state = predictor.step(tokens[:, u], state)
        torch.testing.assert_close(out, at_once[:, u], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_depends_on_no_later_token(kind):
    predictor = make(kind)
    tokens = torch.tensor([[BLANK, 3, 2, 6, 1]])
    changed = tokens.clone()
    changed[0, 3:] = 5
    torch.testing.assert_close(predictor(changed)[:, :3], predictor(tokens)[:, :3], rtol=0, atol=0)
    assert not torch.equal(predictor(changed)[:, 3], predictor(tokens)[:, 3])


def test_the_stateless_context_is_that_many_tokens_and_silence_before_them():
    predictor = make("stateless2")
    long = predictor(torch.tensor([[BLANK, 3, 2, 6]]))
    torch.testing.assert_close(predictor(torch.tensor([[2, 6]]))[:, 1], long[:, 3], rtol=0, atol=1e-12)
    # Before the start there is nothing: not blank, not token 0, whose embeddings are not zero.
    assert not torch.equal(
        predictor(torch.tensor([[-1, BLANK]]))[:, 1], predictor(torch.tensor([[BLANK, BLANK]]))[:, 1]
    )
    torch.testing.assert_close(predictor(torch.tensor([[-1, BLANK]]))[:, 1], long[:, 0], rtol=0, atol=1e-12)


def test_lstm_computes_in_float32_under_autocast():
    predictor = make("lstm").float()
    tokens = torch.tensor([[BLANK, 3, 2, 6, 1]])
    expected = predictor(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        out = predictor(tokens)
        first, state = predictor.step(tokens[:, 0], predictor.init_state(1))
    assert {out.dtype, *(tensor.dtype for tensor in state.values())} == {torch.float32}
    assert torch.equal(out, expected)
    torch.testing.assert_close(first, expected[:, 0])
