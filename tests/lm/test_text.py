"""Texts of language models, and batches of them."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lhotse import SupervisionSegment, SupervisionSet

from summarymix.data.tokens import Tokenizer
from summarymix.lm.text import Sentences, read_texts


def test_manifests_and_files(tmp_path: Path) -> None:
    texts = ["GOOD DAY", None, ""]
    segments = [SupervisionSegment(str(i), "r", 0, 1, text=text) for i, text in enumerate(texts)]
    SupervisionSet.from_segments(segments).to_file(tmp_path / "s.jsonl.gz")
    (tmp_path / "a.txt").write_text("ONE\n\n TWO \n")
    with gzip.open(tmp_path / "b.gz", "wt") as file:
        file.write("THREE")
    read = read_texts([tmp_path / "s.jsonl.gz"], [tmp_path / "a.txt", tmp_path / "b.gz"])
    assert list(read) == ["GOOD DAY", "ONE", "TWO", "THREE"]


def test_texts_are_normalised_as_transcripts_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Good\u3000Day\u2009 \u00a0cafe\u0301\n".encode("utf-8-sig"))
    tokenizer = Tokenizer.train(["good day café"], 30, "char", "lower")
    assert list(read_texts([], [tmp_path / "a.txt"], tokenizer)) == ["good day café"]
    assert list(read_texts([], [tmp_path / "a.txt"])) == ["Good Day café"]
    (tmp_path / "a.txt").write_bytes(b"good\nd\xe4y\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2 is not UTF-8"):
        list(read_texts([], [tmp_path / "a.txt"], tokenizer))


def test_marks_of_sentences_are_no_words(tmp_path: Path) -> None:
    """Text for SRILM may have them; they would clash with those of n-grams, and become letters of tokens."""
    path = tmp_path / "a.txt"
    path.write_text("<s> good day </s>\n<s> </s>\n<s>x a</s>\n")
    upper = Tokenizer.train(["good day <s>x a</s>"], 40, "char", "upper")
    assert list(read_texts([], [path])) == ["good day", "<s>x a</s>"]
    assert list(read_texts([], [path], upper)) == ["GOOD DAY", "<S>X A</S>"]


def test_words_that_the_tokens_cannot_write_are_told(tmp_path: Path, capsys) -> None:
    tokenizer = Tokenizer.train(["GOOD DAY TO YOU"], 30, "char")
    path = tmp_path / "a.txt"
    path.write_text("GOOD DAY TO YOU\n" * 9 + "DAY 1 DAY 2 DAY 1\n")
    assert len(list(read_texts([], [path], tokenizer))) == 10
    assert f"{path}: the tokens cannot write 3 of 42 words, such as 1 2; <unk> stands" in capsys.readouterr().err
    path.write_text("good day\nDAY\n")
    with pytest.raises(ValueError, match=r"cannot write 2 of 3 words, such as good day. Probably its case is wrong"):
        list(read_texts([], [path], tokenizer))
    path.write_text("добрый день\n")
    with pytest.raises(ValueError, match=r"2 of 2 words, such as добрый день. Probably it is in another language"):
        list(read_texts([], [path], tokenizer))
    # In languages without spaces, a line is a word, and one character spoils it.
    path.write_text("天地玄黄宇宙洪荒1\n")
    assert list(read_texts([], [path], Tokenizer.train(["天地玄黄宇宙洪荒"], 30, "char")))


@pytest.mark.parametrize("batch_tokens", [1, 30, 1000])
def test_batches(batch_tokens: int) -> None:
    """Every sentence once, never too many together, and those of a batch alike; in another order each time."""
    generator = torch.Generator().manual_seed(batch_tokens)
    texts = ["ab" * int(n) + " a" for n in torch.randint(1, 12, (80,), generator=generator)]
    tokenizer = Tokenizer.train(texts, 10, "char")
    sentences = Sentences(texts, tokenizer)
    assert (len(sentences), sentences.num_words) == (80, 160)
    assert sentences.num_tokens == sum(len(tokenizer.encode(text)) for text in texts)
    orders = []
    for batches in (sentences.batches(batch_tokens), *(sentences.batches(batch_tokens, generator) for _ in range(2))):
        orders.append([n for numbers in batches for n in numbers.tolist()])
        assert sorted(orders[-1]) == list(range(80))
        for numbers in batches:
            selected = sentences.select(numbers)
            assert [s.tolist() for s in selected] == [tokenizer.encode(texts[n]) for n in numbers]
            assert len(numbers) == 1 or len(numbers) * (max(map(len, selected)) + 1) <= batch_tokens
        spans = sorted((min(map(len, s)), max(map(len, s))) for s in map(sentences.select, batches))
        assert all(longest <= shortest for (_, longest), (shortest, _) in pairwise(spans))
    assert orders[0] != orders[1] != orders[2]


def test_no_texts(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"no text in .*empty\.txt: correct the files"):
        list(read_texts([], [tmp_path / "empty.txt"]))


def test_checksums_tell_texts_apart() -> None:
    tokenizer = Tokenizer.train(["a b c"], 10, "char")
    one, same, other, joined = (Sentences(t, tokenizer) for t in (["a", "b"], ["a", "b"], ["a", "c"], ["a b", "a"]))
    assert one.checksum == same.checksum
    assert len({one.checksum, other.checksum, joined.checksum}) == 3
