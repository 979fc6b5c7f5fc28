"""RNN language models: whole sentences against token by token, and their files."""

from pathlib import Path

import pytest
import torch

from summarymix.data.tokens import Tokenizer
from summarymix.lm.rnn import RnnLM, RnnLMConfig, load_rnn_lm, save_rnn_lm
from summarymix.model import BLANK
from summarymix.runs import save_checkpoint
from summarymix.state import select_slots


@pytest.fixture(scope="module")
def lm() -> RnnLM:
    torch.manual_seed(2)
    lm = RnnLM(RnnLMConfig(dim=6, num_layers=3, dropout=0.5, vocab_size=7)).double().eval()
    torch.nn.init.normal_(lm.bias)
    return lm


@torch.inference_mode()
def test_steps_are_the_whole(lm: RnnLM) -> None:
    tokens = torch.randint(7, (4, 9), generator=torch.Generator().manual_seed(1))
    whole = lm(tokens)  # (4, 9, 7)
    assert whole.exp().sum(-1) == pytest.approx(torch.ones(4, 9).double().numpy())
    state = lm.init_state(4)
    for u in range(9):
        log_probs, state = lm.step(tokens[:, u], state)
        torch.testing.assert_close(log_probs, whole[:, u], rtol=0, atol=1e-12)
        if u == 4:  # streams change places
            order = torch.tensor([2, 0, 3, 1])
            tokens, whole, state = tokens[order], whole[order], select_slots(state, order)


@torch.inference_mode()
def test_sentences_of_any_length(lm: RnnLM) -> None:
    """Log-probabilities are sums over steps, the end's included; of an empty sentence there is only the end."""
    sentences = [[3, 1, 4, 1, 5], [], [6], [2, 6, 5, 3, 5, 2, 2]]
    found = lm.sentence_log_probs([torch.tensor(sentence, dtype=torch.int32) for sentence in sentences])
    for sentence, log_prob in zip(sentences, found.tolist(), strict=True):
        expected, state, last = 0.0, lm.init_state(1), BLANK
        for token in [*sentence, BLANK]:
            log_probs, state = lm.step(torch.tensor([last]), state)
            expected += float(log_probs[0, token])
            last = token
        assert log_prob == pytest.approx(expected, abs=1e-12)


def make_file(path: Path, text: str) -> tuple[RnnLM, Tokenizer]:
    tokenizer = Tokenizer.train([text], 30, "char")
    config = RnnLMConfig(dim=4, num_layers=1, vocab_size=tokenizer.vocab_size)
    lm = RnnLM(config).eval()
    save_rnn_lm(path, config, lm.state_dict(), tokenizer)
    return lm, tokenizer


def test_files(tmp_path: Path) -> None:
    lm, tokenizer = make_file(tmp_path / "lm.pt", "abba cab")
    loaded = load_rnn_lm(tmp_path / "lm.pt", tokenizer.tokens)
    assert loaded.config == lm.config
    assert not loaded.training
    sentence = [torch.tensor(tokenizer.encode("a cab"))]
    assert torch.equal(loaded.sentence_log_probs(sentence), lm.sentence_log_probs(sentence))


def test_other_token_tables_are_refused(tmp_path: Path) -> None:
    _, tokenizer = make_file(tmp_path / "lm.pt", "abba cab")
    other = [*tokenizer.tokens[:4], "x", *tokenizer.tokens[5:]]
    with pytest.raises(ValueError, match=r"lm.pt was trained for another .*; token 4 is '.' there and 'x' here"):
        load_rnn_lm(tmp_path / "lm.pt", other)
    with pytest.raises(ValueError, match=r"it has 6 tokens, the model has 7\. Train one with the model's lang dir"):
        load_rnn_lm(tmp_path / "lm.pt", [*tokenizer.tokens, "x"])


def test_what_is_no_language_model(tmp_path: Path) -> None:
    path = tmp_path / "lm.pt"
    with pytest.raises(FileNotFoundError, match=r"No language model .*lm.pt: train it"):
        load_rnn_lm(path, [])
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"lm.pt is damaged or not a language model .* Train it again"):
        load_rnn_lm(path, [])
    save_checkpoint(path, {"model_config": {}})
    with pytest.raises(ValueError, match=r"lm.pt is not a language model"):
        load_rnn_lm(path, [])
    lm, tokenizer = make_file(path, "abba cab")
    save_rnn_lm(path, RnnLMConfig(dim=5, num_layers=1, vocab_size=6), lm.state_dict(), tokenizer)
    with pytest.raises(ValueError, match=r"lm.pt was written by summarymix .* and does not fit"):
        load_rnn_lm(path, tokenizer.tokens)
