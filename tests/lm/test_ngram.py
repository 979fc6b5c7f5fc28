"""N-gram language models against the recursion that defines back-off."""

import gzip
import math
import random
import re
from functools import cache
from pathlib import Path

import pytest
from lhotse import SupervisionSegment, SupervisionSet
from search_cases import encoder_frames

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.methods import SearchOptions
from summarymix.lm.ngram import END, OTHER, NgramLM, read_arpa, write_ngrams
from summarymix.model import Transducer

TOKENS = ["<blk>", "<unk>", "a", "b", "▁c", "d"]
BIGRAMS = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.4\ta\t-0.3
-0.6\tb
-0.7\t</s>

\\2-grams:
-0.1\t<s> a
-0.2\ta b

\\end\\
"""


def test_bigrams_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "2gram.arpa"
    path.write_text(BIGRAMS)
    model = NgramLM(path, TOKENS, math.log10(math.e))  # so that the file's numbers come back
    added, state = model.step(model.start, 2)
    assert (added, state) == (pytest.approx(-0.1), (2,))
    assert model.step(state, 3)[0] == pytest.approx(-0.2)
    assert model.step(state, 2)[0] == pytest.approx(-0.3 - 0.4)
    assert model.step(state, 5)[0] == pytest.approx(-0.3 - 1.0)  # <unk>
    assert model.step(model.start, 3)[0] == pytest.approx(-0.5 - 0.6)
    assert model.final(state) == 0
    natural = NgramLM(path, TOKENS, -2.0)
    assert natural.step(natural.start, 2)[0] == pytest.approx(0.2 * math.log(10))


def test_an_incomplete_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "2gram.arpa"
    lines = BIGRAMS.splitlines(keepends=True)
    path.write_text("".join(lines[:-3]))
    with pytest.raises(ValueError, match=r"2gram.arpa is incomplete, its last line \\end\\ is missing: copy it again"):
        NgramLM(path, TOKENS, 1.0)
    path.write_text("".join(line for line in lines if "a b" not in line))
    with pytest.raises(ValueError, match=r"2gram.arpa has 1 of 2 2-grams: copy it again"):
        NgramLM(path, TOKENS, 1.0)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_back_off_is_the_recursion(tmp_path: Path, order: int) -> None:
    rng = random.Random(order)
    words = ["a", "b", "▁c", "<s>"]
    table: dict[tuple[str, ...], tuple[float, float]] = {}
    for size in range(1, order + 1):
        for _ in range(4 if size == 1 else 25):
            ngram = tuple(rng.choice(words) for _ in range(size)) if size > 1 else (words[_],)
            table[ngram] = rng.uniform(-3, 0), rng.choice([0.0, rng.uniform(-1, 0)])
    lines = ["\\data\\"]
    for size in range(1, order + 1):
        lines.append(f"\n\\{size}-grams:")
        for ngram, (score, backoff) in table.items():
            if len(ngram) == size:
                lines.append(f"{score}\t{' '.join(ngram)}" + (f"\t{backoff}" if backoff else ""))
    with gzip.open(tmp_path / "lm.arpa.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*lines, "", "\\end\\", ""]))
    model = NgramLM(tmp_path / "lm.arpa.gz", TOKENS, 0.5)

    def log10(history: tuple[str, ...], word: str) -> float:
        if (*history, word) in table:
            return table[(*history, word)][0]
        if not history:
            return min(score for ngram, (score, _) in table.items() if len(ngram) == 1 and ngram != ("<s>",))
        return table.get(history, (0.0, 0.0))[1] + log10(history[1:], word)

    history, state = ("<s>",), model.start
    for _ in range(300):
        token = rng.randint(2, 5)  # d is not in the model
        added, state = model.step(state, token)
        kept = history[max(len(history) - order + 1, 0) :] if order > 1 else ()
        assert added == pytest.approx(0.5 * math.log(10) * log10(kept, TOKENS[token]))
        history = (*history, TOKENS[token])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_estimates_are_those_of_kneser_and_ney(tmp_path: Path, order: int) -> None:
    """By the formulas, which look through the corpus for every number; and all add up to one."""
    rng = random.Random(order)
    corpus = [rng.choices("aab", k=rng.randint(0, 6)) for _ in range(20)]
    tokens = ["<unk>", "a", "b", "▁c"]
    path = tmp_path / "lm.arpa"
    write_ngrams(path, corpus, tokens, order)
    sentences = [("<s>", *sentence, "</s>") for sentence in corpus]

    def occurrences(ngram: tuple[str, ...]) -> list[str | None]:
        """What stands before each of them."""
        size = len(ngram)
        return [s[i - 1] if i else None for s in sentences for i in range(len(s)) if s[i : i + size] == ngram]

    @cache
    def count(ngram: tuple[str, ...]) -> int:
        found = occurrences(ngram)
        return len(found) if len(ngram) == order or ngram[0] == "<s>" else len(set(found))

    @cache
    def discount(size: int) -> float:
        ngrams = {s[i : i + size] for s in sentences for i in range(len(s) - size + 1)} - {("<s>",)}
        ones, twos = (sum(count(ngram) == n for ngram in ngrams) for n in (1, 2))
        return ones / (ones + 2 * twos) if ones else 0.5

    words = [*tokens, "</s>"]

    def probability(history: tuple[str, ...], word: str) -> float:
        shorter = probability(history[1:], word) if history else 1 / len(words)
        counts = [count((*history, w)) for w in words]
        if not sum(counts):
            return shorter
        d = discount(len(history) + 1)
        own = max(count((*history, word)) - d, 0) / sum(counts)
        return own + d * sum(n > 0 for n in counts) / sum(counts) * shorter

    numbers = {word: i for i, word in enumerate(TOKENS)} | {"<unk>": OTHER, "</s>": END}
    model = NgramLM(path, TOKENS, 1.0)
    history, state = ("<s>",), model.start
    for _ in range(40):
        added = {word: model.step(state, numbers[word])[0] for word in words}
        kept = history[max(len(history) - order + 1, 0) :] if order > 1 else ()
        assert sum(map(math.exp, added.values())) == pytest.approx(1, abs=1e-4)
        expected = {word: math.log(probability(kept, word)) for word in words}
        assert added == pytest.approx(expected, abs=1e-4)
        word = rng.choice("aabb▁")
        word = "▁c" if word == "▁" else word
        history, state = (*history, word), model.step(state, numbers[word])[1]


def test_the_program(run, tmp_path: Path) -> None:
    """From manifests and text to a model that a search can use."""
    texts = ["GOOD DAY", "DAY BY DAY"]
    tokenizer = Tokenizer.train(texts, 20, "char")
    tokenizer.write(tmp_path / "lang")
    SupervisionSet.from_segments([SupervisionSegment("a", "a", 0, 1, text=texts[0])]).to_file(tmp_path / "s.jsonl.gz")
    with gzip.open(tmp_path / "text.gz", "wt") as file:
        file.write(texts[1] + "\n\n")
    program = "local/train_ngram.py"
    options = ["--lang-dir", "lang", "--supervisions", "s.jsonl.gz", "--text", "text.gz", "--order", "3", "--out", "lm"]
    assert run(program, *options).code == 0
    expected = tmp_path / "expected"
    write_ngrams(expected, [[tokenizer.tokens[i] for i in tokenizer.encode(t)] for t in texts], tokenizer.tokens[1:], 3)
    assert (tmp_path / "lm").read_bytes() == expected.read_bytes()
    NgramLM(expected, tokenizer.tokens, 1.0)

    options[:2] = ["--words"]
    assert run(program, *options).code == 0
    scores, _ = read_arpa(tmp_path / "lm", str)
    assert {ngram for ngram in scores if len(ngram) == 1} == {("<s>",), ("GOOD",), ("DAY",), ("BY",), ("</s>",)}
    assert ("DAY", "BY", "DAY") in scores

    # Words in the form of the model's transcripts.
    Tokenizer.train(texts, 20, "char", "upper", "remove").write(tmp_path / "lang")
    (tmp_path / "form.txt").write_text("Day, by day!\n")
    options = ["--words", "--lang-dir", "lang", "--text", "form.txt", "--order", "3", "--out", "lm"]
    assert run(program, *options).code == 0
    scores, _ = read_arpa(tmp_path / "lm", str)
    assert ("DAY", "BY", "DAY") in scores
    failed = run(program, "--out", "lm")
    assert (failed.code, "give --lang-dir, --words, or both" in failed.err) == (2, True)


def test_no_transcripts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no transcripts"):
        write_ngrams(tmp_path / "lm.arpa", [], ["a"], 2)


def test_what_is_likely_is_preferred(tmp_path: Path, model: Transducer) -> None:
    """A model of 'aa' makes more of them, and the same one below 0 fewer."""
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\1-grams:\n-2\t<unk>\n-2\t<s>\n-0.5\tt2\n-0.5\tt5\n\\2-grams:\n-0.01\tt2 t2\n-0.01\tt5 t5\n\\end\\\n"
    )
    frames, lengths = encoder_frames(model)
    counts = []
    for scale in (-1.0, 0.0, 1.0):
        scorers = [NgramLM(path, [f"t{i}" for i in range(11)], scale)]
        found = ModifiedBeamSearch(model, 4, scorers=scorers).decode(frames, lengths)
        counts.append(sum(h.tokens.count(2) + h.tokens.count(5) for h in found) / sum(len(h.tokens) for h in found))
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\\1-grams:\n-1 a\n-1 HELLO\n", "line 3: 'HELLO' is not a token of the model: .* split into these tokens"),
        ("\\1-grams:\n-1 a\n\\2-grams:\n-1 a\n", "line 4 is not a 2-gram"),
        ("\\1-grams:\nx a\n", "line 2 is not a 1-gram"),
        ("\\1-grams:\n-1 a b a\n", "line 2 is not a 1-gram"),
        ("HELLO", "has no n-grams"),
        ("\\1-grams:\n-1 <s>\n\\end\\", "has no 1-grams of tokens"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        NgramLM(path, TOKENS, 1.0)


def test_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def label(*paths: str) -> str:
        for path in map(Path, paths):
            path.parent.mkdir(exist_ok=True)
            path.write_text(str(path))
        return SearchOptions("modified_beam_search", ngram_lm=tuple(map(Path, paths)), ngram_lm_scale=(0.3,)).label

    assert re.fullmatch("beam-size-4-ngram-lm-4gram-[0-9a-f]{6}-ngram-lm-scale-0.3", label("x/4gram.arpa.gz"))
    paths = ("small/lm.pt", "large/lm.pt", "lm.v1.pt", "lm.v2.pt", "lm-0.1.arpa", "lm-0.3.arpa")
    assert len({label(path) for path in paths}) == len(paths)
    long = label(*(f"{'a' * 100}-{i}.arpa" for i in range(9)))
    assert len(long) <= 120
    assert long != label(*(f"{'a' * 100}-{i}.arpa" for i in range(8)))


def test_more_ngrams_than_announced_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-0.1\ta\n-0.2\tb\n\n\\end\\\n")
    with pytest.raises(ValueError, match="has 2 of 1 1-grams"):
        NgramLM(path, ["<blk>", "a", "b"], 1.0)
