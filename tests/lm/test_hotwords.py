"""Hot words against a scorer that looks at all phrases at every token."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import encoder_frames

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.methods import SearchOptions
from summarymix.lm.hotwords import ContextGraph, read_hotwords
from summarymix.model import Transducer

Phrases = list[tuple[list[int], float]]
strings = st.lists(st.integers(2, 4), max_size=12)  # of three letters, so that phrases overlap
phrase_lists = st.lists(st.tuples(st.lists(st.integers(2, 4), min_size=1, max_size=5), st.integers(1, 5)), max_size=6)


def naive(phrases: Phrases, tokens: list[int]) -> list[float]:
    """What has been added in all, after each token."""

    def worth(prefix: list[int]) -> float:
        """A token has the highest score of the phrases that are the same up to it."""
        return sum(
            max(score for phrase, score in phrases if phrase[:k] == prefix[:k]) for k in range(1, len(prefix) + 1)
        )

    totals, completed = [], 0.0
    segment: list[int] = []  # behind the last match
    for token in tokens:
        segment.append(token)
        endings = [segment[i:] for i in range(len(segment))]  # the longest first
        whole = [ending for ending in endings if any(ending == phrase for phrase, _ in phrases)]
        begun = [ending for ending in endings if any(ending == phrase[: len(ending)] for phrase, _ in phrases)]
        if whole:
            completed += worth(whole[0])
            segment = []
            totals.append(completed)
        else:
            totals.append(completed + worth(begun[0] if begun else []))
    return totals


@given(phrase_lists, strings)
def test_sums_are_those_of_the_definition(phrases: Phrases, tokens: list[int]) -> None:
    graph = ContextGraph(phrases)
    state, total, totals = graph.start, 0.0, []
    for token in tokens:
        added, state = graph.step(state, token)
        total += added
        totals.append(total)
    assert totals == pytest.approx(naive(phrases, tokens))
    # At the end only phrases that are complete count.
    closed = naive(phrases, [*tokens, 99])[-1]
    assert total + graph.final(state) == pytest.approx(closed)


def test_a_match_by_hand() -> None:
    graph = ContextGraph([([2, 3, 4], 1.5), ([3, 5], 2.0)])
    added, state = graph.step(graph.start, 2)
    assert added == 1.5
    added, state = graph.step(state, 3)
    assert (added, graph.final(state)) == (1.5, -3.0)
    assert graph.step(state, 4) == (1.5, graph.start)  # complete
    assert graph.step(state, 5) == (1.0, graph.start)  # 2 · 2.0 for the other one, and 3.0 back
    assert graph.step(state, 9) == (-3.0, graph.start)


def test_a_hot_word_is_preferred(model: Transducer) -> None:
    """Words of second-best hypotheses, when they are hot, are in the best ones; with a score of 0 nothing changes."""
    frames, lengths = encoder_frames(model)
    plain = ModifiedBeamSearch(model, 4).decode(frames, lengths)
    changed = 0
    for n, hypothesis in enumerate(plain):
        best, second = (h.tokens for h in (hypothesis.nbest(2) * 2)[:2])
        first = next((i for i, (a, b) in enumerate(zip(best, second, strict=False)) if a != b), None)
        if first is None:
            continue
        phrase = second[first - 1 : first + 2]
        for score in (0.0, 3.0):
            search = ModifiedBeamSearch(model, 4, scorers=[ContextGraph([(phrase, score)])])
            [found] = search.decode(frames[n : n + 1], lengths[n : n + 1])
            if score == 0:
                assert found.tokens == best
            else:
                assert contains(found.tokens, phrase)
                changed += not contains(best, phrase)
    assert changed > 1


def contains(tokens: list[int], phrase: list[int]) -> bool:
    return any(tokens[i : i + len(phrase)] == phrase for i in range(len(tokens)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["HELLO WORLD", "GOOD DAY"], 30, "char")


def test_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "hotwords.txt"
    path.write_text("HELLO WORLD :2.5\n\n  GOOD\nDAY  :-1\nDAY :2.\nDAY :1e1\n")
    assert read_hotwords(path, tokenizer, 1.5) == [
        (tokenizer.encode("HELLO WORLD"), 2.5),
        (tokenizer.encode("GOOD"), 1.5),
        *((tokenizer.encode("DAY"), score) for score in (-1.0, 2.0, 10.0)),
    ]


def test_phrases_are_normalised_as_transcripts_are(tmp_path: Path) -> None:
    path = tmp_path / "hotwords.txt"
    path.write_bytes("Hello\u3000World :2.5\r\nGood\u00a0\u2009Day\tday\r\n".encode("utf-8-sig"))
    tokenizer = Tokenizer.train(["HELLO WORLD", "GOOD DAY"], 30, "char", "upper")
    wanted = [(tokenizer.encode("HELLO WORLD"), 2.5), (tokenizer.encode("GOOD DAY DAY"), 1.5)]
    assert read_hotwords(path, tokenizer, 1.5) == wanted
    path.write_bytes("GOOD DAY\nDAY \u00e4\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"hotwords.txt, line 2 is not UTF-8"):
        read_hotwords(path, tokenizer, 1.5)


def test_the_score_is_no_punctuation(tmp_path: Path) -> None:
    path = tmp_path / "hotwords.txt"
    path.write_text("\u00a1Good, day!\u2009:2.5\nO'Neil, well-known\n?!\n")
    tokenizer = Tokenizer.train(["GOOD DAY O'NEIL WELL-KNOWN"], 40, "char", "upper", "remove")
    wanted = [(tokenizer.encode("GOOD DAY"), 2.5), (tokenizer.encode("O'NEIL WELL-KNOWN"), 1.5)]
    assert read_hotwords(path, tokenizer, 1.5) == wanted


def test_options_reach_the_search(tmp_path: Path, tokenizer: Tokenizer, stateless_model: Transducer) -> None:
    path = tmp_path / "hotwords.txt"
    path.write_text("HELLO\n")
    for options, score in (({}, 1.5), ({"hotwords_score": 0.5}, 0.5)):
        search = SearchOptions("modified_beam_search", hotwords_file=path, **options).build(stateless_model, tokenizer)
        assert isinstance(search, ModifiedBeamSearch)
        [graph] = search.scorer.scorers
        assert graph.step(graph.start, tokenizer.encode("HELLO")[0])[0] == score


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "GOOD\nhello\n",
            r"words.txt, line 2: the model has no token for h e l o: write phrases like the training transcripts",
        ),
        ("HELLO :x", r"line 1: the model has no token for : x \(a score is a number, as in HELLO :2.5\): write"),
        ("HELLO :1.2.3", "line 1: the model has no token for : 1 . 2 3"),
        (
            "x1\n" * 7 + "GOOD\n",
            r"words.txt, line 1: .* token for x 1; line 2: .*; and 2 more of 8 lines: write phrases",
        ),
        ("\n", "has no phrases"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, tokenizer: Tokenizer, text: str, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_hotwords(path, tokenizer, 1.5)
