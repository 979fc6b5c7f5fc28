"""Graphs of words against the best of all alignments that spell them, language model included."""

import copy
import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from search_cases import alignments, tokens_of

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.fast_beam import FastBeamOptions, FastBeamSearch
from summarymix.decoding.search import Scaling
from summarymix.lm.lg import compile_lg, read_lg, write_lg
from summarymix.lm.ngram import read_arpa, write_ngrams
from summarymix.model import Transducer

k2 = pytest.importorskip("k2")
SENTENCES = ["A AB", "AB A", "ABA", "B A A", "B", "BAB A", "A"]
NEVER = -math.inf


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Blank, <unk>, the space, and letters: 7 tokens of the model's 11."""
    return Tokenizer.train(["ABCD AB", *SENTENCES], 11, "char")


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    write_ngrams(path, [*map(str.split, SENTENCES), ["É", "A"]], [], 2)
    return path


class Grammar:
    """Scores of sentences. Backing off is a second way where a pair of words has a probability; the better counts."""

    def __init__(self, arpa: Path) -> None:
        self.scores, self.backoffs = read_arpa(arpa, str)

    def word(self, history: str, word: str) -> float:
        backed_off = self.backoffs.get((history,), 0.0) + self.scores.get((word,), NEVER)
        return max(self.scores.get((history, word), NEVER), backed_off) * math.log(10)

    def sentence(self, words: list[str]) -> float:
        history, total = "<s>", 0.0
        for word in [*words, "</s>"]:
            total += self.word(history, word)
            history = word
        return total


@pytest.mark.parametrize("scale", [0.0, 0.7, 3.0])
def test_the_best_alignment_that_spells_words(
    tmp_path: Path, stateless_model: Transducer, tokenizer: Tokenizer, arpa: Path, scale: float
) -> None:
    model = copy.deepcopy(stateless_model).double()
    graph, left_out = compile_lg(arpa, tokenizer)
    assert left_out == ["É"]
    write_lg(tmp_path / "LG.pt", graph, tokenizer.tokens)
    graph = read_lg(tmp_path / "LG.pt", tokenizer.tokens, scale)
    grammar, words = Grammar(arpa), {word for sentence in SENTENCES for word in sentence.split()}

    @cache
    def score(tokens: tuple[int, ...]) -> float:
        text = "".join(tokenizer.tokens[token] if token < len(tokenizer.tokens) else "?" for token in tokens)
        spelled = text.split("\u2581")[1:]
        if not re.fullmatch(r"(\u2581[A-Z]+)*", text) or not words.issuperset(spelled):
            return NEVER
        return scale * grammar.sentence(spelled)

    frames = torch.randn(4, 5, model.encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([5, 5, 4, 2])
    options = FastBeamOptions(1e9, 100_000, 100_000)
    found = FastBeamSearch(model, options, graph, unk_id=1).decode(frames, lengths)
    for row, length, hypothesis in zip(frames, lengths, found, strict=True):
        scores = {a: value + score(tokens_of(a)) for a, value in alignments(model, row[:length], Scaling(), 7).items()}
        best = max(scores, key=scores.__getitem__)
        assert tuple(hypothesis.tokens) == tokens_of(best)
        assert hypothesis.score == pytest.approx(scores[best], abs=1e-4)
    assert any(h.tokens for h in found)


def test_graphs_of_icefall_and_mistakes(tmp_path: Path, tokenizer: Tokenizer, arpa: Path) -> None:
    graph, _ = compile_lg(arpa, tokenizer)
    path = tmp_path / "LG.pt"
    graph.aux_labels = k2.RaggedTensor([[1]] * graph.num_arcs)
    torch.save(graph.as_dict(), path)
    read = read_lg(path, tokenizer.tokens, 0.5)
    assert torch.equal(read.scores, graph.scores * 0.5)
    assert torch.equal(read.labels, graph.labels)

    write_lg(path, graph, tokenizer.tokens)
    with pytest.raises(ValueError, match="compiled for other tokens than the model's"):
        read_lg(path, [*tokenizer.tokens[:-1], "x"], 1.0)
    path.write_text("LG")
    with pytest.raises(ValueError, match=r"LG\.pt is damaged or not a graph \(.{,80}\)\. Compile it"):
        read_lg(path, tokenizer.tokens, 1.0)
    torch.save({"model": {}}, path)
    with pytest.raises(ValueError, match="is not a graph: it has no arcs"):
        read_lg(path, tokenizer.tokens, 1.0)
    with pytest.raises(FileNotFoundError, match=r"No graph .*: make it with local/compile_lg\.py"):
        read_lg(tmp_path / "none.pt", tokenizer.tokens, 1.0)
    path.write_text("\\1-grams:\n-1 É\n")
    with pytest.raises(ValueError, match="no words that the tokens can spell"):
        compile_lg(path, tokenizer)
    path.write_text("\\1-grams:\n-1 AB\n")
    with pytest.raises(ValueError, match=r"LG\.pt has no </s>"):
        compile_lg(path, tokenizer)


def test_the_program(run, tmp_path: Path, tokenizer: Tokenizer, arpa: Path) -> None:
    tokenizer.write(tmp_path / "lang")
    done = run("local/compile_lg.py", "--lang-dir", "lang", "--arpa", arpa, "--out", "LG.pt")
    assert done.code == 0
    graph, _ = compile_lg(arpa, tokenizer)
    assert done.out == f"LG.pt: {graph.shape[0]} states, {graph.num_arcs} arcs\n"
    assert "1 words have characters without a token and are left out: É" in done.err
    assert torch.equal(read_lg(tmp_path / "LG.pt", tokenizer.tokens, 1.0).labels, graph.labels)
