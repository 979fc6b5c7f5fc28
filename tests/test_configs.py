"""Checkpoints and options of earlier versions."""

from pathlib import Path

import pytest
import torch

from summarymix.chunking import ChunkConfig, DynamicChunkConfig
from summarymix.configs import REMOVED, RENAMED, plain, upgraded, what_became_of
from summarymix.model import ModelConfig
from summarymix.runs import load_run_or_checkpoint, read_checkpoint
from summarymix.training.cli import main
from summarymix.training.config import TrainConfig

OLD = Path(__file__).with_name("data") / "c1f4d92"
"""Checkpoints of one epoch on noise, written by that commit, without what only training needs. Under ``encoded`` they
have the frames that its encoder made of noise, with full context, and in chunks of 4 with one of left context."""


@pytest.mark.parametrize("encoder", ["conformer", "zipformer"])
def test_checkpoint_of_before_the_options_were_renamed_gives_the_same_frames(encoder: str) -> None:
    path = OLD / f"{encoder}.pt"
    assert "num_layers" in torch.load(path, weights_only=True)["model_config"]
    model, _, info = load_run_or_checkpoint(path)
    DynamicChunkConfig(**info["config"]["chunk"])
    torch.manual_seed(0)
    features, lengths = torch.randn(2, 83, model.config.feature_dim), torch.tensor([83, 60])
    with torch.no_grad():
        for chunk, expected in zip((ChunkConfig(), ChunkConfig(4, 1)), read_checkpoint(path)["encoded"], strict=True):
            got, frames = model.encoder(features, lengths, chunk)
            for n, length in enumerate(frames):
                torch.testing.assert_close(got[n, :length], expected[n, :length], rtol=0, atol=1e-6)


def test_configuration_of_today_is_upgraded_to_itself() -> None:
    config = plain(TrainConfig())
    assert upgraded(config) == config
    assert plain(ModelConfig.from_plain(config["model"])) == config["model"]


def test_every_former_name_leads_to_an_option_of_today() -> None:
    config = plain(TrainConfig())
    for name, today in RENAMED.items():
        place = config
        for part in today.split("."):
            place = place[part]
        assert what_became_of(name) == f"{name} is now {today}"
        assert what_became_of(today) is None


def test_removed_options_are_dropped_at_their_defaults_and_else_refused() -> None:
    assert upgraded({"model": {"fusion": "concat", "dim": 8}}) == {"model": {"conformer": {"dim": 8}}}
    for name in REMOVED:
        assert "leave it out" in (what_became_of(name) or "")
    with pytest.raises(ValueError, match=r"model\.fusion gated was removed"):
        upgraded({"model": {"fusion": "gated"}})


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("model: {num_layers: 3}", [], "old.yaml: model.num_layers is now model.conformer.num_layers"),
        ("model: {mixing: attention}", [], "old.yaml: model.mixing is now model.mixing.mode"),
        ("chunk: {draws: 2}", [], "old.yaml: chunk.draws was removed"),
        ("seed: 1", ["--model.dim=8"], "command line: model.dim is now model.conformer.dim"),
        ("seed: 1", ["--world-size", "4"], "command line: the number of processes is given to torchrun"),
    ],
)
def test_training_says_what_became_of_an_option(
    content: str, line: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.yaml").write_text(content)
    with pytest.raises(SystemExit) as exit_:
        main("toy", ["--config", str(tmp_path / "old.yaml"), *line])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
