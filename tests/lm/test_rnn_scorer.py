"""RNN language models in beam searches against sums over all alignments, and how often they are asked."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from search_cases import Bigrams, encoder_frames, exhaustive_ctc, exhaustive_transducer, tiny_lm, total

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCPrefixBeamSearch
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.search import BeamSearch, Scaling
from summarymix.lm.rnn import RnnLM, RnnLMConfig, save_rnn_lm
from summarymix.lm.rnn_scorer import RnnLMScorer
from summarymix.model import BLANK, Transducer

UNK = 1
ALL = 100_000  # a beam that nothing falls out of
SCALE = 0.7
SEARCHES = [ModifiedBeamSearch, CTCPrefixBeamSearch]


@torch.inference_mode()
def without_end(lm: RnnLM, tokens: tuple[int, ...]) -> float:
    """The log-probability of tokens at the start of a sentence."""
    log_probs = lm(torch.tensor([[BLANK, *tokens]]))[0]
    return sum(float(log_probs[u, token]) for u, token in enumerate(tokens))


@pytest.mark.parametrize("search", SEARCHES)
def test_an_unlimited_beam_is_exact(search: type[BeamSearch], stateless_model: Transducer) -> None:
    """Probability of the tokens by all alignments, the language model's power, and another scorer's."""
    model, lm = copy.deepcopy(stateless_model).double(), tiny_lm().double()
    frames = 2 * torch.randn(1, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    if search is ModifiedBeamSearch:
        sums = exhaustive_transducer(model, frames[0], Scaling())
        acoustic = {tokens: math.log(probability) for tokens, probability in sums.items()}
    else:
        acoustic = exhaustive_ctc(model, frames[0], Scaling())
    tolerance = 1e-9 if search is ModifiedBeamSearch else 1e-5  # the CTC head's distribution is in float32
    expected = {t: score + SCALE * without_end(lm, t) + total(t) for t, score in acoustic.items()}
    [found] = search(model, ALL, UNK, scorers=[RnnLMScorer(lm, SCALE), Bigrams()]).decode(frames, torch.tensor([3]))
    assert {tuple(h.tokens): h.score for h in found.nbest(ALL)} == pytest.approx(expected, abs=tolerance)


def test_it_counts_behind_the_choice_of_a_frame(stateless_model: Transducer) -> None:
    """In modified beam search, what a token adds does not change whether it is among the best of its frame."""
    frames, _ = encoder_frames(stateless_model)
    alone, fused = (
        ModifiedBeamSearch(stateless_model, 4, UNK, scorers=scorers).decode(frames[:1, :1], torch.tensor([1]))[0]
        for scorers in ([], [RnnLMScorer(tiny_lm(), -20.0)])
    )
    first, second = ({tuple(h.tokens): h.score for h in found.nbest(4)} for found in (alone, fused))
    assert first.keys() == second.keys()
    assert first != second


@pytest.mark.parametrize("search", SEARCHES)
def test_one_step_a_frame_for_all_that_is_new(search: type[BeamSearch], stateless_model: Transducer) -> None:
    lm = tiny_lm()
    sizes: list[int] = []
    step = lm.step
    lm.step = lambda tokens, state: sizes.append(len(tokens)) or step(tokens, state)  # type: ignore[assignment]
    scorer = RnnLMScorer(lm, -SCALE)  # below 0 for many tokens
    assert sizes == [1]  # the start of all sentences
    frames, lengths = encoder_frames(stateless_model)
    found = search(stateless_model, 4, UNK, scorers=[scorer]).decode(frames, lengths)
    assert sum(len(h.tokens) for h in found) > 30
    assert len(sizes) <= 1 + max(lengths)
    assert max(sizes) > 8  # of several streams
    assert max(sizes) <= 4 * len(lengths)  # of paths that are left
    before = len(sizes)
    scorer.prepare([path.scorer_state[0] for hypothesis in found for path in hypothesis.paths])
    assert len(sizes) == before  # all of them have been read


def test_an_unprepared_state_is_read_when_it_is_needed() -> None:
    lm = tiny_lm()
    scorer, tokens = RnnLMScorer(lm, SCALE), (4, 4, 2, 9)
    state, added = scorer.start, 0.0
    for token in tokens:
        more, state = scorer.step(state, token)
        added += more
    assert added + scorer.final(state) == pytest.approx(SCALE * without_end(lm, tokens), abs=1e-5)


def test_a_state_keeps_no_other_alive() -> None:
    """In a beam, states live for different times."""
    lm = tiny_lm()
    scorer = RnnLMScorer(lm, SCALE)
    states = [scorer.step(scorer.start, token)[1] for token in range(2, 10)]
    scorer.prepare(states)
    for tensor in (states[3].log_probs, *states[3].state.values()):
        assert tensor is not None
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_options(tmp_path: Path, stateless_model: Transducer) -> None:
    tokenizer = Tokenizer.train(["HELLO WORLD"], 30, "char")
    config = RnnLMConfig(dim=4, num_layers=1, vocab_size=tokenizer.vocab_size)
    lm = RnnLM(config).eval()
    path = tmp_path / "lm.pt"
    save_rnn_lm(path, config, lm.state_dict(), tokenizer)
    h, e = tokenizer.encode("HE")[-2:]
    for options, scale in (({}, 0.3), ({"rnn_lm_scale": 0.6}, 0.6)):
        search = SearchOptions("ctc_prefix_beam_search", rnn_lm=path, **options)
        scale_label = "-rnn-lm-scale-0.6" if options else ""
        assert re.fullmatch("beam-size-4-rnn-lm-lm-[0-9a-f]{6}" + scale_label, search.label)
        [scorer] = search.build(stateless_model, tokenizer).scorer.scorers  # type: ignore[attr-defined]
        added, state = scorer.step(scorer.start, h)
        assert added + scorer.step(state, e)[0] == pytest.approx(scale * without_end(lm, (h, e)), abs=1e-5)
    with pytest.raises(ValueError, match="another token table"):
        SearchOptions("modified_beam_search", rnn_lm=path).build(stateless_model, Tokenizer.train(["AB"], 30, "char"))
