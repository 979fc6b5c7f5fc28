"""Validation against decoding, and what it makes of hypotheses that are all alike."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toy import TOKENIZER, ToyData, toy_config, toy_model

from summarymix.chunking import ChunkConfig
from summarymix.decoding.ctc import CTCGreedySearch
from summarymix.decoding.evaluate import DecodeSetting, decode_split
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Hypothesis
from summarymix.distributed import join_world
from summarymix.scoring.errors import ErrorStats
from summarymix.training.config import TrainConfig
from summarymix.training.validation import PLATEAU_STEPS, metric_of, plateau_notice, validate


def test_error_rates_are_those_of_decoding(tmp_path: Path) -> None:
    config = toy_config(tmp_path, validation=[(None, -1), (320, 2)])
    model, dev = toy_model(config), ToyData().dev()
    with torch.no_grad():
        model.joiner.out.bias[0] -= 1.0  # a model that knows nothing, and says something all the same
        model.ctc_head.bias[0] -= 1.0
    with join_world() as world:
        found = validate(model, TOKENIZER, {"dev": dev}, config, world)
    assert model.training
    model.eval()
    settings = {"offline": DecodeSetting("offline"), "320ms-left2": DecodeSetting("simulated", ChunkConfig(8, 2))}
    for name, setting in settings.items():
        for kind, key in ((GreedySearch, "wer"), (CTCGreedySearch, "ctc_wer")):
            search = kind(model, unk_id=TOKENIZER.unk_id)
            utterances = decode_split(search, setting, dev).utterances(TOKENIZER)
            wer = ErrorStats.from_utterances(utterances).rate
            assert wer is not None
            assert wer > 0
            assert found[name][key] == pytest.approx(wer)


def test_a_dev_split_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    with join_world() as world, pytest.raises(OSError, match="no dev utterance could be read: restore the data"):
        validate(toy_model(config), TOKENIZER, {"dev": []}, config, world)


@pytest.mark.parametrize(("said", "alike"), [(["a", "a", "a"], 100.0), (["a", "b", "a"], 0.0), (["a", "a", "b"], 50.0)])
def test_alike_counts_different_transcripts_with_one_hypothesis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], alike: float
) -> None:
    batch = ToyData().batch(1, 0)
    batch.texts[:] = ["a b", "c", "d"]
    batch.tokens[:] = [TOKENIZER.encode(text) for text in batch.texts]
    twice = ToyData().batch(1, 0)
    twice.texts[:] = ["e", "e", "e"]  # neighbours that do say the same do not count
    twice.tokens[:] = [TOKENIZER.encode(text) for text in twice.texts]

    def decode(*_: Any) -> list[Hypothesis]:
        return [Hypothesis(tokens=TOKENIZER.encode(text)) for text in said]

    monkeypatch.setattr(GreedySearch, "decode", decode)
    config = toy_config(tmp_path, validation=[(None, -1)])
    with join_world() as world:
        found = validate(toy_model(config), TOKENIZER, {"dev": [batch, twice]}, config, world)
    assert found["offline"]["alike"] == pytest.approx(alike)


def test_losses_have_no_delay_penalty(tmp_path: Path) -> None:
    config = toy_config(tmp_path, validation=[(None, -1)])
    penalized = replace(config, loss=replace(config.loss, delay_penalty=0.1))
    model = toy_model(config)
    with join_world() as world:
        found = [validate(model, TOKENIZER, {"dev": ToyData().dev()}, one, world) for one in (config, penalized)]
    assert found[0] == found[1]


def test_a_model_that_does_not_listen_is_told_of_late_enough() -> None:
    config = TrainConfig()
    assert plateau_notice(PLATEAU_STEPS - 1, 100.0, config) is None
    assert plateau_notice(PLATEAU_STEPS, 10.0, config) is None
    notice = plateau_notice(PLATEAU_STEPS, 96.2, config)
    assert notice is not None
    for part in ("96 %", "suspicious*.tsv", "--data.spec_augment.warmup_steps above 2000", "--init_from"):
        assert part in notice
    assert "--optim.name" not in notice
    config.optim.name = "adamw"
    assert "--optim.name muon" in (plateau_notice(PLATEAU_STEPS, 96.2, config) or "")


@pytest.mark.parametrize(("text", "metric"), [("你好", "cer"), ("a 你好 b", "mer"), ("a b", "wer")])
def test_the_script_of_the_transcripts_chooses_the_metric(text: str, metric: str, tmp_path: Path) -> None:
    batch = ToyData().batch(1, 0)
    batch.texts[:] = [text] * 3
    config = toy_config(tmp_path, validation=[(None, -1)])
    with join_world() as world:
        found = validate(toy_model(config), TOKENIZER, {"dev": [batch]}, config, world)["offline"]
    assert {metric, f"ctc_{metric}"} <= found.keys()
    assert metric_of(found) == metric
    assert sum(name in found for name in ("wer", "cer", "mer")) == 1


def test_several_corpora_get_their_own_results_beside_the_common_ones(tmp_path: Path) -> None:
    config = toy_config(tmp_path, validation=[(None, -1), (320, 2)])
    config.data.prefix = "toy"
    model, dev = toy_model(config), ToyData().dev()
    dev[1].texts[:] = ["你好"] * len(dev[1])
    with torch.no_grad():
        model.joiner.out.bias[0] -= 1.0
    with join_world() as world:
        both = validate(model, TOKENIZER, {"dev": dev[:1], "dev@other": dev[1:2]}, config, world)
        alone = [validate(model, TOKENIZER, {"dev": batches}, config, world) for batches in (dev[:1], dev[1:2])]
        together = validate(model, TOKENIZER, {"dev": dev[:1], "test": dev[1:2]}, config, world)
    assert together.items() <= both.items()
    names = [f"{name}@{corpus}" for corpus in ("toy", "other") for name in alone[0]]
    assert list(both) == [*together, *names]
    assert [both[name] for name in names] == [*alone[0].values(), *alone[1].values()]
    assert (metric_of(both["offline@toy"]), metric_of(both["offline@other"])) == ("wer", "cer")
