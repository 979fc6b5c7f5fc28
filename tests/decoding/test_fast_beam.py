"""k2's fast beam search against the best of all alignments. What holds of every search is in test_searches.py."""

import copy
import math

import pytest
import torch
from search_cases import alignments, encoder_frames, tokens_of
from talking_models import make_model

from summarymix import optional_k2
from summarymix.chunking import ChunkConfig
from summarymix.decoding.evaluate import stream_state_bytes
from summarymix.decoding.fast_beam import FastBeamOptions, FastBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Scaling
from summarymix.decoding.streaming import StreamingRecognizer
from summarymix.model import BLANK, Transducer

UNK = 1
EVERYTHING = FastBeamOptions(beam=1e9, max_contexts=100_000, max_states=100_000)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(blank_penalty=1.5, temperature=2.0)], ids=["plain", "scaled"])
@pytest.mark.parametrize("context_size", [1, 2, 3])
def test_an_unlimited_beam_finds_the_best_alignment(context_size: int, scaling: Scaling) -> None:
    pytest.importorskip("k2")
    model = make_model("stateless", context_size).double()
    frames = torch.randn(3, 4, model.encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    lengths = torch.tensor([4, 1, 3])
    found = FastBeamSearch(model, EVERYTHING, unk_id=UNK, scaling=scaling).decode(frames, lengths)
    for row, length, hypothesis in zip(frames, lengths, found, strict=True):
        scores = alignments(model, row[:length], scaling)
        best = max(scores, key=scores.__getitem__)
        assert tuple(hypothesis.tokens) == tokens_of(best)
        assert hypothesis.frames == [t for t, token in enumerate(best) if token != BLANK]
        assert hypothesis.score == pytest.approx(scores[best], abs=1e-5)
        assert hypothesis.num_frames == length
    assert found[0].tokens
    assert any(h.frames[-1:] == [h.num_frames - 1] for h in found), "none ends in a token"


def test_drawn_hypotheses_have_the_sum_of_their_alignments(stateless_model: Transducer) -> None:
    pytest.importorskip("k2")
    model = copy.deepcopy(stateless_model).double()
    frames = torch.randn(2, 3, model.encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    options = FastBeamOptions(1e9, 100_000, 100_000, num_paths=3000, nbest_scale=0.3)
    found = FastBeamSearch(model, options, unk_id=UNK).decode(frames, torch.tensor([3, 2]))
    for row, length, hypothesis in zip(frames, (3, 2), found, strict=True):
        sums: dict[tuple[int, ...], float] = {}
        for alignment, score in alignments(model, row[:length], Scaling()).items():
            tokens = tokens_of(alignment)
            sums[tokens] = sums.get(tokens, 0.0) + math.exp(score)
        drawn = {tuple(h.tokens): h.score for h in hypothesis.nbest(10_000)}
        assert len(drawn) > 50
        assert drawn == pytest.approx({tokens: math.log(sums[tokens]) for tokens in drawn}, abs=1e-5)
        assert tuple(hypothesis.tokens) == max(sums, key=sums.__getitem__)


def test_its_state_has_no_size(stateless_model: Transducer) -> None:
    pytest.importorskip("k2")
    search = FastBeamSearch(stateless_model, FastBeamOptions())
    assert stream_state_bytes(search, ChunkConfig(4)) is None
    assert stream_state_bytes(GreedySearch(stateless_model), ChunkConfig(4))


def test_a_narrow_beam_keeps_one_history(stateless_model: Transducer) -> None:
    """One context and one state: at each frame the best way to go on, as greedy search, if no better one comes."""
    pytest.importorskip("k2")
    frames, lengths = encoder_frames(stateless_model)
    wide, narrow = (
        FastBeamSearch(stateless_model, options, unk_id=UNK).decode(frames, lengths)
        for options in (FastBeamOptions(), FastBeamOptions(max_contexts=1, max_states=1))
    )
    assert sum(h.score for h in narrow) < sum(h.score for h in wide)
    assert sum(len(h.tokens) for h in wide) > 30
    assert not any(UNK in h.tokens for h in wide)


def test_tokens_have_their_own_log_probabilities(stateless_model: Transducer) -> None:
    pytest.importorskip("k2")
    model = copy.deepcopy(stateless_model).double()
    frames, lengths = encoder_frames(model)
    search = FastBeamSearch(model, FastBeamOptions(), unk_id=UNK)
    for row, hypothesis in zip(
        model.joiner.encoder_proj(frames.double()), search.decode(frames.double(), lengths), strict=True
    ):
        for u, (token, t) in enumerate(zip(hypothesis.tokens, hypothesis.frames, strict=True)):
            context = model.predictor(torch.tensor([[BLANK, *hypothesis.tokens[:u]]]))[0, -1]
            log_probs = model.joiner(row[t], model.joiner.predictor_proj(context)).log_softmax(0)
            assert hypothesis.log_probs[u] == pytest.approx(log_probs[token].item(), abs=1e-5)


def test_models_and_machines_that_cannot(monkeypatch: pytest.MonkeyPatch, stateless_model: Transducer) -> None:
    with pytest.raises(ValueError, match=r"--method modified_beam_search"):
        FastBeamSearch(make_model("lstm"), FastBeamOptions())
    monkeypatch.setattr(optional_k2, "load", lambda: (None, "it is not installed"))
    with pytest.raises(ImportError, match=r"fast_beam_search needs k2, and it is not installed"):
        FastBeamSearch(stateless_model, FastBeamOptions())


def test_graphs_for_other_tokens_and_parts_of_utterances_are_refused(stateless_model: Transducer) -> None:
    k2 = pytest.importorskip("k2")
    for bad in (11, 0):
        graph = k2.Fsa(torch.tensor([[0, 0, bad, 0], [0, 1, -1, 0]], dtype=torch.int32))
        with pytest.raises(ValueError, match=r"labels from .* to .*, and the model tokens from 1 to 10"):
            FastBeamSearch(stateless_model, FastBeamOptions(), graph)
    search = FastBeamSearch(stateless_model, FastBeamOptions(), k2.trivial_graph(10))
    frames = torch.randn(1, 4, stateless_model.encoder.dim)
    hypotheses = search.decode(frames, torch.tensor([4]))
    message = r"whole utterances: use --mode offline or simulated"
    with pytest.raises(ValueError, match=message):
        search(frames, torch.tensor([4]), {}, hypotheses)
    with pytest.raises(ValueError, match=message):
        StreamingRecognizer(search, ChunkConfig(4))


def test_an_utterance_that_is_too_short_for_the_graph(stateless_model: Transducer) -> None:
    """What has been heard of it is shown, with a score as if it might end there."""
    k2 = pytest.importorskip("k2")
    model = copy.deepcopy(stateless_model).double()
    frames = torch.randn(2, 4, model.encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    lengths = torch.tensor([4, 2])
    sequence = (2, 3, 4)
    search = FastBeamSearch(model, EVERYTHING, k2.linear_fsa([*sequence]), unk_id=UNK)
    for row, length, hypothesis in zip(frames, lengths, search.decode(frames, lengths), strict=True):
        allowed = [sequence] if length == 4 else [sequence[:n] for n in range(3)]
        scores = {a: s for a, s in alignments(model, row[:length], Scaling()).items() if tokens_of(a) in allowed}
        best = max(scores, key=scores.__getitem__)
        assert tuple(hypothesis.tokens) == tokens_of(best)
        assert hypothesis.score == pytest.approx(scores[best], abs=1e-3)
