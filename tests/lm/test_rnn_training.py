"""The training of RNN language models from the command line."""

import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from lhotse import SupervisionSegment, SupervisionSet

import summarymix.lm.rnn
from summarymix.data.tokens import Tokenizer
from summarymix.lm.rnn import load_rnn_lm
from summarymix.lm.rnn_training import RnnLMRun
from summarymix.model import BLANK

SIZES = ("--dim", 16, "--num-layers", 1, "--batch-tokens", 200, "--lr", 0.02, "--warmup-steps", 5, "--dropout", 0.0)


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, list[str]]:
    """Rows of numbers of which each is the successor of the last, in a manifest and a file, and their tokens."""
    rng = random.Random(1)
    numbers = ["ONE", "TWO", "SIX", "TEN"]
    texts = {}
    for split, count in (("train", 150), ("dev", 30)):
        starts = [(rng.randrange(4), rng.randint(1, 4)) for _ in range(count)]
        texts[split] = [" ".join(numbers[(first + i) % 4] for i in range(length)) for first, length in starts]
    Tokenizer.train(texts["train"], 30, "char").write(tmp_path / "lang")
    segments = [SupervisionSegment(str(i), "r", 0, 1, text=text) for i, text in enumerate(texts["train"])]
    SupervisionSet.from_segments(segments[:100]).to_file(tmp_path / "train.jsonl.gz")
    (tmp_path / "train.txt").write_text("\n".join(texts["train"][100:]))
    (tmp_path / "dev.txt").write_text("\n".join(texts["dev"]))
    return texts


def train(run, *options: object):
    inputs = ("--lang-dir", "lang", "--supervisions", "train.jsonl.gz", "--text", "train.txt", "--dev-text", "dev.txt")
    return run("local/train_rnn_lm.py", *inputs, *SIZES, "--device", "cpu", *options)


def test_it_beats_unigrams(run, texts: dict[str, list[str]], tmp_path: Path) -> None:
    result = train(run, "--num-epochs", 4, "--out", "lm.pt")
    assert (result.code, result.out) == (0, "lm.pt\n"), result.err

    tokenizer = Tokenizer.from_lang_dir(tmp_path / "lang")
    encoded = {split: [[*tokenizer.encode(text), BLANK] for text in part] for split, part in texts.items()}
    counts = Counter(token for sentence in encoded["train"] for token in sentence)
    total = sum(len(sentence) for sentence in encoded["dev"])
    unigrams = -sum(math.log(counts[token] / counts.total()) for sentence in encoded["dev"] for token in sentence)

    lm = load_rnn_lm(tmp_path / "lm.pt", tokenizer.tokens)
    with torch.inference_mode():
        loss = -sum(float(lm.sentence_log_probs([torch.tensor(sentence[:-1])])) for sentence in encoded["dev"])
    assert loss < 0.5 * unigrams
    # What it says is what the model in the file has.
    words = sum(len(text.split()) + 1 for text in texts["dev"])
    said = re.findall(r"epoch \d: .*token .*, dev (\S+); per word .*, dev (\S+)", result.err)
    best = min(said, key=lambda pair: float(pair[0]))
    assert [float(x) for x in best] == pytest.approx([math.exp(loss / total), math.exp(loss / words)], rel=0.01)


def test_a_stopped_run_goes_on(run, texts: dict[str, list[str]], tmp_path: Path, monkeypatch) -> None:
    assert train(run, "--num-epochs", 3, "--out", "whole.pt").code == 0
    save = summarymix.lm.rnn.save_checkpoint

    def save_and_stop(*arguments) -> None:
        save(*arguments)
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(summarymix.lm.rnn, "save_checkpoint", save_and_stop)
        assert "stopped" in train(run, "--num-epochs", 3, "--out", "lm.pt").err
    result = train(run, "--num-epochs", 4, "--out", "lm.pt")
    assert result.code == 1
    assert "lm.pt belongs to another run: num_epochs was 3 and is 4. Change --out, or remove the file" in result.err

    result = train(run, "--num-epochs", 3, "--out", "lm.pt")
    assert "from lm.pt: 1 of 3 epochs are done" in result.err
    whole, resumed = (torch.load(tmp_path / name) for name in ("whole.pt", "lm.pt"))
    assert resumed["run"] == whole["run"]
    assert all(torch.equal(weights, resumed["rnn_lm"][name]) for name, weights in whole["rnn_lm"].items())
    # And once it is done, nothing is done.
    before = (tmp_path / "lm.pt").stat().st_mtime_ns
    result = train(run, "--num-epochs", 3, "--out", "lm.pt")
    assert (result.code, (tmp_path / "lm.pt").stat().st_mtime_ns) == (0, before)


def test_other_texts_and_tokens_are_another_run(run, texts: dict[str, list[str]], tmp_path: Path) -> None:
    assert train(run, "--num-epochs", 1, "--out", "lm.pt").code == 0
    (tmp_path / "train.txt").write_text("ONE TWO SIX\n")
    Tokenizer.train(["ONE TWO SIX TEN"], 30, "char").write(tmp_path / "lang")
    result = train(run, "--num-epochs", 1, "--out", "lm.pt")
    assert result.code == 1
    assert "sentences was 150 and is 101" in result.err
    assert "its tokens differ from --lang-dir" in result.err


def test_mistakes(run, texts: dict[str, list[str]], tmp_path: Path) -> None:
    result = run("local/train_rnn_lm.py", "--lang-dir", "lang", "--text", "train.txt", "--out", "lm.pt")
    assert result.code == 2
    assert "give --dev-supervisions or --dev-text" in result.err
    result = run("local/train_rnn_lm.py", "--lang-dir", "lang", "--dev-text", "dev.txt", "--out", "lm.pt")
    assert result.code == 2
    assert "there is nothing to read: give --supervisions, --text, or both" in result.err
    result = train(run, "--lr", "1e30", "--num-epochs", 1, "--out", "lm.pt")
    assert result.code == 1
    assert "the loss is not finite: lower --lr" in result.err
    assert not (tmp_path / "lm.pt").exists()


def test_an_infinite_dev_loss_is_not_finite(run, texts: dict[str, list[str]], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(RnnLMRun, "_dev_loss", lambda self: math.inf)
    result = train(run, "--num-epochs", 1, "--out", "lm.pt")
    assert "the loss is not finite: lower --lr" in result.err
    assert not (tmp_path / "lm.pt").exists()


def test_a_model_without_a_record_of_its_training_is_not_continued(run, texts, tmp_path: Path) -> None:
    assert train(run, "--num-epochs", 1, "--out", "lm.pt").code == 0
    content = torch.load(tmp_path / "lm.pt")
    del content["run"]
    torch.save(content, tmp_path / "lm.pt")
    result = train(run, "--num-epochs", 1, "--out", "lm.pt")
    assert result.code == 1
    assert "lm.pt has no record of its training, so it cannot be continued: change --out" in result.err
