"""Fine-tuning: what a run takes from another one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toy import TOKENIZER, ToyData, run, toy_config, toy_model

from summarymix.data.tokens import Tokenizer
from summarymix.encoder.conformer import ConformerConfig
from summarymix.model import ModelConfig, Transducer
from summarymix.runs import load_model, read_checkpoint
from summarymix.training.config import TrainConfig
from summarymix.training.initialize import initialize_from

OTHER_TOKENIZER = Tokenizer.train(["e d c f g h i"], 20, "char")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp_dir = tmp_path_factory.mktemp("parent")
    run(toy_config(exp_dir))
    return exp_dir


def fresh_model(tokenizer: Tokenizer = TOKENIZER, **changes: Any) -> Transducer:
    config = toy_config(Path("unused"), seed=7)
    model = toy_model(config)
    if tokenizer is not TOKENIZER or changes:
        torch.manual_seed(1)
        options = {**vars(config.model), "vocab_size": tokenizer.vocab_size, **changes}
        model = Transducer(ModelConfig(**options))
    return model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


class Stop(Exception):
    pass


class Interrupted(ToyData):
    """Ends the run at some batch of an epoch that is trained on."""

    number: int | None = None

    def batch(self, epoch: int, number: int) -> Any:
        if epoch > 0 and number == self.number:
            raise Stop
        return super().batch(epoch, number)


def test_weights_are_those_of_the_file_or_of_what_decoding_chooses(parent: Path, tmp_path: Path) -> None:
    model = fresh_model()
    said = initialize_from(parent / "epoch-1.pt", model, TOKENIZER)
    assert "epoch-1.pt" in said
    assert same(model.state_dict(), read_checkpoint(parent / "epoch-1.pt")["model"])

    assert "epoch 2, avg 1" in initialize_from(parent, model, TOKENIZER)
    assert same(model.state_dict(), load_model(parent, 2, 1)[0].state_dict())

    for path in parent.glob("*.pt"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "selected.json").write_text(json.dumps({"epoch": 2, "avg": 2, "splits": ["dev"]}))
    assert "epoch 2, avg 2" in initialize_from(tmp_path, model, TOKENIZER)
    assert same(model.state_dict(), load_model(tmp_path, 2, 2)[0].state_dict())


def test_run_begins_with_these_weights_and_all_else_new(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = Transducer.forward

    def spy(self: Transducer, *arguments: Any) -> Any:
        if self.training and not seen:
            seen.append({name: value.clone() for name, value in self.state_dict().items()})
        return forward(self, *arguments)

    monkeypatch.setattr(Transducer, "forward", spy)
    config = toy_config(tmp_path, seed=9, num_epochs=1, init_from=parent / "epoch-2.pt", average_period=1)
    progress, model = run(config)
    expected = read_checkpoint(parent / "epoch-2.pt")
    assert same(seen[0], expected["model"])
    assert f"Starting from the weights of {parent / 'epoch-2.pt'}" in capsys.readouterr().err
    # Statistics of the features were taken along, not estimated anew from other data.
    statistics = [name for name, _ in model.named_buffers()]
    assert len(statistics) == 2
    assert all(torch.equal(model.state_dict()[name], expected["model"][name]) for name in statistics)
    checkpoint = read_checkpoint(tmp_path / "epoch-1.pt")
    assert (progress.step, checkpoint["model_avg"]["samples"], len(checkpoint["history"])) == (8, 8, 1)
    assert [group.get("step") for group in checkpoint["optimizer"]["param_groups"]] == [None, 8, 8]  # of AdamW only


def test_killed_run_resumes_and_does_not_begin_again(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> TrainConfig:
        return toy_config(tmp_path / name, num_epochs=1, init_from=parent / "epoch-2.pt")

    _, whole = run(config("whole"))
    data = Interrupted()
    data.number = 5
    with pytest.raises(Stop):
        run(config("killed"), data)
    assert (tmp_path / "killed" / "checkpoint-3.pt").exists()
    capsys.readouterr()
    monkeypatch.setattr("summarymix.training.run.initialize_from", None)
    _, resumed = run(config("killed"))
    said = capsys.readouterr().err
    assert "Resuming from" in said
    assert "is not read again" in said
    assert same(whole.state_dict(), resumed.state_dict())


def test_another_token_table_is_refused(parent: Path) -> None:
    with pytest.raises(ValueError, match=r"8 tokens there, 10 here, 6 in both\. .*--reinit_vocab true"):
        initialize_from(parent / "epoch-2.pt", fresh_model(OTHER_TOKENIZER), OTHER_TOKENIZER)


def test_tokens_in_both_tables_keep_their_rows(parent: Path) -> None:
    model = fresh_model(OTHER_TOKENIZER)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    old = read_checkpoint(parent / "epoch-2.pt")["model"]
    said = initialize_from(parent / "epoch-2.pt", model, OTHER_TOKENIZER, reinit_vocab=True)
    assert "of 10 tokens, 6 keep their weights, 4 are initialised" in said
    layers = ("joiner.out", "simple_encoder_proj", "simple_predictor_proj", "ctc_head")
    particular = {"predictor.embedding.weight", *(f"{x}.weight" for x in layers), *(f"{x}.bias" for x in layers)}
    assert particular < set(old)
    for name, value in model.state_dict().items():
        if name not in particular:
            assert torch.equal(value, old[name])
            continue
        assert len(value) == 10
        for row, token in enumerate(OTHER_TOKENIZER.tokens):
            is_old = token in TOKENIZER.tokens
            expected = old[name][TOKENIZER.tokens.index(token)] if is_old else initial[name][row]
            assert torch.equal(value[row], expected), (name, token)


def test_same_pieces_in_another_order_are_another_table(parent: Path) -> None:
    """Tables of equal size have tensors of equal shape, which could be loaded and would be wrong."""
    other = Tokenizer.train(["b b b b c c c a a d e"], 20, "char")
    assert sorted(other.tokens) == sorted(TOKENIZER.tokens)
    assert other.tokens != TOKENIZER.tokens
    model = fresh_model(other)
    assert "8 keep their weights, 0 are initialised" in initialize_from(parent / "epoch-2.pt", model, other, True)
    old, new = read_checkpoint(parent / "epoch-2.pt")["model"]["ctc_head.weight"], model.ctc_head.weight
    assert torch.equal(new[other.tokens.index("a")], old[TOKENIZER.tokens.index("a")])


def test_another_model_is_refused_by_name_but_dropout_is_free(parent: Path) -> None:
    with pytest.raises(
        ValueError, match=r"epoch-2\.pt has another model: model\.conformer\.dim was 16 and is 32, .*num_layers"
    ):
        initialize_from(
            parent / "epoch-2.pt", fresh_model(conformer=ConformerConfig((4, 4), 3, 32, 32, 5, 16)), TOKENIZER
        )
    initialize_from(parent / "epoch-2.pt", fresh_model(dropout=0.3), TOKENIZER)


def test_nothing_to_start_from_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/epoch-1\.pt"):
        run(toy_config(tmp_path / "exp", init_from=tmp_path / "nowhere" / "epoch-1.pt"))
    assert not (tmp_path / "exp").exists()
    with pytest.raises(ValueError, match="--init_from"):
        toy_config(tmp_path, reinit_vocab=True)
