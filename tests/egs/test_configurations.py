"""Every configuration of the recipes, over the recipe's default one."""

from pathlib import Path

import pytest

from summarymix.cli import parse_config
from summarymix.training.config import TrainConfig

FILES = sorted((Path(__file__).parents[2] / "egs").glob("*/ASR/conf/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parents[2].name}-{path.stem}" for path in FILES])
def test_overlays_have_the_optimiser_of_their_encoder(path: Path) -> None:
    config = parse_config(TrainConfig, ["--config", str(path.with_name("conformer.yaml")), "--config", str(path)])
    if config.model.encoder == "zipformer" and path.stem != "muon":
        assert (config.optim.name, config.optim.is_eden) == ("scaled_adam", True)
    else:
        assert config.optim.name in ("adamw", "muon")
        assert not config.optim.is_eden
