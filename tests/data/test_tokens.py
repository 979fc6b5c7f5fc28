import pickle
from pathlib import Path

import pytest

from summarymix.data import tokens
from summarymix.data.tokens import Tokenizer

TEXTS = ["ONE TWO THREE", "TURN ON THE LIGHT", "CALL FIVE FIVE THREE", "STOP", "", "VOLUME UP"] * 5


@pytest.mark.parametrize(("model_type", "vocab_size"), [("unigram", 25), ("bpe", 40), ("char", 100)])
def test_round_trip_and_layout(model_type, vocab_size: int, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS, vocab_size, model_type)
    assert tokenizer.tokens[:2] == ["<blk>", "<unk>"]
    assert tokenizer.vocab_size == {"unigram": 25, "bpe": 40, "char": len(set("".join(TEXTS))) + 2}[model_type]
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not {0, 1} & set(ids)
    assert tokenizer.encode("") == []

    tokenizer.write(tmp_path)
    assert (tmp_path / "tokens.txt").read_text().splitlines()[:2] == ["<blk> 0", "<unk> 1"]
    vocabulary = [line.split("\t") for line in (tmp_path / "bpe.vocab").read_text().splitlines()]
    assert [piece for piece, _ in vocabulary] == tokenizer.tokens
    for other in (
        Tokenizer.from_lang_dir(tmp_path),
        Tokenizer.from_state(pickle.loads(pickle.dumps(tokenizer.state()))),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert other.tokens == tokenizer.tokens
        assert other.encode("CALL ONE") == tokenizer.encode("CALL ONE")


def test_same_texts_give_the_same_bytes() -> None:
    assert Tokenizer.train(TEXTS, 25).state() == Tokenizer.train(TEXTS, 25).state()


@pytest.mark.parametrize("text_case", ["keep", "lower", "upper"])
def test_the_case_of_the_transcripts_is_kept_with_the_tokens(text_case, tmp_path: Path) -> None:
    wanted = {"keep": "Café au", "lower": "café au", "upper": "CAFÉ AU"}[text_case]
    tokenizer = Tokenizer.train(TEXTS, 25, text_case=text_case)
    Tokenizer.train(TEXTS, 25, text_case="upper").write(tmp_path)  # is overwritten
    tokenizer.write(tmp_path)
    for copy in (
        Tokenizer.from_lang_dir(tmp_path),
        Tokenizer.from_state(tokenizer.state()),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.normalize(" Cafe\u0301\u3000au") == wanted
        assert copy.state() == tokenizer.state()
    (tmp_path / "text_case").write_text("title\n")
    with pytest.raises(ValueError, match=r"text_case: 'title' is none of keep, lower, upper"):
        Tokenizer.from_lang_dir(tmp_path)


def test_killed_in_writing_it_is_no_lang_dir(tmp_path: Path, monkeypatch) -> None:
    """The same model with another form must not pass for either."""
    upper = Tokenizer.train(["ONE TWO"], 30, "char", "upper")
    upper.write(tmp_path)

    def killed(path: Path, mode: str = "w") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        upper.write(tmp_path)
    with pytest.raises(ValueError, match="make both again with local"):
        Tokenizer.from_lang_dir(tmp_path)


def test_the_removal_of_punctuation_is_kept_with_the_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS, 25, text_case="upper", punctuation="remove")
    tokenizer.write(tmp_path)
    for copy in (
        Tokenizer.from_lang_dir(tmp_path),
        Tokenizer.from_state(tokenizer.state()),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.normalize("Well, it's on.") == "WELL IT'S ON"
    (tmp_path / "punctuation").write_text("delete\n")
    with pytest.raises(ValueError, match=r"punctuation: 'delete' is none of keep, remove"):
        Tokenizer.from_lang_dir(tmp_path)
    Tokenizer.train(TEXTS, 25).write(tmp_path)
    assert Tokenizer.from_lang_dir(tmp_path).normalize("a,") == "a,"


def test_unknown_characters_are_named() -> None:
    tokenizer = Tokenizer.train(TEXTS, 25)
    assert tokenizer.unk_id in tokenizer.encode("CAFÉ")
    assert tokenizer.unknown_characters("É CAFÉ, ON") == ["É", ","]
    assert not tokenizer.covers("CAFÉ")
    assert tokenizer.covers("CALL ON")


def test_vocabulary_of_impossible_size() -> None:
    with pytest.raises(ValueError, match=r"--vocab-size 5000 is too large .* at most (\d+) tokens") as caught:
        Tokenizer.train(TEXTS, 5000)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert Tokenizer.train(TEXTS, largest).vocab_size == largest
    with pytest.raises(ValueError, match=r"--vocab-size 5 is too small.*need \d+"):
        Tokenizer.train(TEXTS, 5)
    with pytest.raises(ValueError, match="All transcripts are empty"):
        Tokenizer.train(["", " "], 10)


def test_lang_dir_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bpe.model.*prepare.sh"):
        Tokenizer.from_lang_dir(tmp_path)
    Tokenizer.train(TEXTS, 25).write(tmp_path)
    (tmp_path / "tokens.txt").write_text("<blk> 0\n")
    with pytest.raises(ValueError, match=r"tokens.txt does not match"):
        Tokenizer.from_lang_dir(tmp_path)
