"""Words and subtitles from tokens."""

import math

import pytest

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.search import Hypothesis
from summarymix.decoding.subtitles import Cue, make_cues, srt, vtt
from summarymix.decoding.words import Token, Transcript, Word, WordTokens, make_transcript, words_of

TEXTS = ["HELLO WORLD HELLO THERE WORLD WORDS"] * 5


def hypothesis(tokenizer: Tokenizer, text: str) -> Hypothesis:
    ids = tokenizer.encode(text)
    return Hypothesis(ids, [3 * i for i in range(len(ids))], [-0.1 * i for i in range(len(ids))], 3 * len(ids))


@pytest.mark.parametrize(("model_type", "size"), [("char", 50), ("unigram", 15), ("bpe", 25)])
def test_words_of_characters_and_pieces(model_type, size: int) -> None:
    tokenizer = Tokenizer.train(TEXTS, size, model_type)
    said = hypothesis(tokenizer, TEXTS[0])
    whole = make_transcript(said, tokenizer, 0)
    assert whole.text == TEXTS[0]
    assert [word.word for word in whole.words] == TEXTS[0].split()
    assert [token.token for token in whole.tokens] == [tokenizer.tokens[i] for i in said.tokens]
    assert (whole.start, whole.end) == (0, pytest.approx(0.12 * len(said.tokens)))
    place = 0
    for word in whole.words:
        pieces = tokenizer.encode(word.word)
        first, last = place, place + len(pieces) - 1
        sound = first + (tokenizer.tokens[pieces[0]] == "\u2581")  # a lone space makes none
        assert (word.start, word.end) == (pytest.approx(0.12 * sound), pytest.approx(0.12 * last + 0.04))
        assert word.confidence == pytest.approx(math.exp(-0.1 * (first + last) / 2))
        place = last + 1

    half = make_transcript(said, tokenizer, 6, 12, offset=100)
    assert [token.token for token in half.tokens] == [token.token for token in whole.tokens[2:4]]
    assert [half.tokens[0].start, half.start, half.end] == pytest.approx([4.24, 4.24, 4.48])
    assert make_transcript(Hypothesis(), tokenizer, 0).words == []


def test_words_and_their_tokens() -> None:
    tokenizer = Tokenizer.train(["ab cb"], 10, "char")

    def spelled(text: str) -> list[WordTokens]:
        return words_of([tokenizer.tokens.index(piece) for piece in text], tokenizer)

    assert spelled("ab\u2581c") == [WordTokens("ab", 0, 0, 1), WordTokens("c", 2, 3, 3)]
    assert spelled("\u2581\u2581c\u2581bb\u2581") == [WordTokens("c", 1, 2, 2), WordTokens("bb", 3, 4, 5)]
    assert spelled("") == []


def test_scripts_without_spaces() -> None:
    text = "今天天气 很好 ok then 好 カメラ"
    tokenizer = Tokenizer.train([text], 100, "char")
    words = make_transcript(hypothesis(tokenizer, text), tokenizer, 0).words
    assert [word.word for word in words] == [*"今天天气很好", "ok", "then", "好", *"カメラ"]
    assert "".join(" " * word.spaced + word.word for word in words).strip() == text
    [cue] = make_cues(words, 100, 100)
    assert cue.text == text


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 1.0, spaced=True)


def test_cues_end_at_pauses_and_limits() -> None:
    words = [word("one", 0.5, 0.9), word("two", 1.0, 1.3), word("three", 2.5, 2.9), word("four", 3.0, 3.4)]
    assert make_cues(words, 100, 100) == [Cue("one two", 0.5, 1.8), Cue("three four", 2.5, 3.9)]
    assert [cue.text for cue in make_cues(words, 8, 100)] == ["one two", "three", "four"]
    assert [cue.text for cue in make_cues(words, 100, 0.5)] == ["one", "two", "three", "four"]
    assert make_cues(words, 3, 100)[1:3] == [Cue("two", 1.0, 1.8), Cue("three", 2.5, 3.0)]  # not beyond the next
    assert make_cues([], 3, 100) == []


def test_formats_of_subtitles() -> None:
    cues = [Cue("a & b <c>", 0.5, 1.9996), Cue("d", 3661.25, 3662.0)]
    assert srt(cues) == ("1\n00:00:00,500 --> 00:00:02,000\na & b <c>\n\n2\n01:01:01,250 --> 01:01:02,000\nd\n\n")
    assert vtt(cues) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\na &amp; b &lt;c&gt;\n\n01:01:01.250 --> 01:01:02.000\nd\n\n"
    )


def test_a_limit_in_time_holds_for_text_tokens_and_words() -> None:
    tokens = [Token("a", 1.0, 1.0), Token("b", 3.0, 1.0)]
    words = [Word("a", 1.0, 2.5, 1.0, False), Word("b", 3.0, 3.04, 1.0, True)]
    cut = Transcript("a b", 2.2, 4.0, tokens, words).until(2.0)
    assert (cut.start, cut.end) == (2.0, 2.0)
    assert [token.start for token in cut.tokens] == [1.0, 2.0]
    assert [(word.start, word.end) for word in cut.words] == [(1.0, 2.0), (2.0, 2.0)]


def test_a_chinese_word_begins_behind_latin_letters_without_a_space() -> None:
    text = "用iphone手机"
    tokenizer = Tokenizer.train([text], 100, "char")
    ids = tokenizer.encode(text)
    said = Hypothesis(ids, list(range(len(ids))), [0.0] * len(ids), len(ids))
    assert [word.word for word in make_transcript(said, tokenizer, 0).words] == ["用", "iphone", "手", "机"]
