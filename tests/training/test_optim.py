"""Which optimiser is made, of which parameters, and who clips."""

from pathlib import Path

import pytest
import torch
from training_toy import run, toy_config, toy_model

from summarymix.runs import read_checkpoint
from summarymix.training.muon import Muon
from summarymix.training.optim import clip_factor, linear_maps, make_optimizer
from summarymix.training.scaled_adam import ScaledAdam
from summarymix.training.schedule import OptimConfig


def test_muon_takes_the_encoders_linear_maps_and_nothing_else(tmp_path: Path) -> None:
    config = toy_config(tmp_path, optim=OptimConfig(name="muon", weight_decay=0.2))
    model = toy_model(config)
    optimizer = make_optimizer(model, config.optim)
    assert isinstance(optimizer, Muon)
    matrices, decaying, others = optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)] for p in matrices["params"]}
    assert found >= {"encoder.subsampling.out.weight", "encoder.layers.1.mixing.merged.weight"}
    assert all(name.startswith("encoder.") and name.endswith(".weight") for name in found)
    assert {names[id(p)] for p in decaying["params"]} >= {
        "encoder.subsampling.conv1.weight",
        "encoder.layers.0.convolution.depthwise.weight",
        "joiner.out.weight",
        "predictor.embedding.weight",
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    assert [group["weight_decay"] for group in (matrices, decaying, others)] == [0.2, 0.2, 0.0]


def test_full_mode_has_matrices_in_groups(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    config.model.mixing.mode = "full"
    shapes = {weight.shape for weight in linear_maps(toy_model(config).encoder)}
    assert torch.Size([4, 4, 4]) in shapes


def test_only_matrices_and_kernels_decay(tmp_path: Path) -> None:
    config = toy_config(tmp_path, optim=OptimConfig(name="adamw"))
    model = toy_model(config)
    decaying, others = make_optimizer(model, config.optim).param_groups
    assert decaying["weight_decay"] == config.optim.weight_decay > 0
    assert others["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in others["params"]} >= {"ctc_head.bias", "encoder.layers.0.norm.weight"}
    assert {names[id(p)] for p in decaying["params"]} >= {"ctc_head.weight", "predictor.embedding.weight"}
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_scaled_adam_has_all_parameters_and_its_options(tmp_path: Path) -> None:
    config = toy_config(tmp_path, optim=OptimConfig(name="scaled_adam", clipping_scale=3.0, betas=(0.8, 0.9)))
    model = toy_model(config)
    optimizer = make_optimizer(model, config.optim)
    assert isinstance(optimizer, ScaledAdam)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["lr"], group["clipping_scale"], group["betas"]) == (0.045, 3.0, (0.8, 0.9))


def test_gradients_are_clipped_once() -> None:
    assert clip_factor(10.0, OptimConfig(clip_norm=5.0)) == pytest.approx(0.5)
    assert clip_factor(4.0, OptimConfig(clip_norm=5.0)) == 1.0
    assert clip_factor(10.0, OptimConfig(name="scaled_adam", clip_norm=5.0)) == 1.0


def test_resumed_run_has_the_options_of_its_command_and_the_state_of_the_checkpoint(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=1))
    run(toy_config(tmp_path, num_epochs=2, optim=OptimConfig(weight_decay=0.3, betas=(0.8, 0.9))))
    optimizer = read_checkpoint(tmp_path / "epoch-2.pt")["optimizer"]
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.3, 0.3, 0.0]
    assert all(list(group["betas"]) == [0.8, 0.9] for group in optimizer["param_groups"])
    assert [group.get("step") for group in optimizer["param_groups"]] == [None, 16, 16]


def test_resuming_with_another_optimiser_is_refused(tmp_path: Path) -> None:
    run(toy_config(tmp_path, num_epochs=1))
    with pytest.raises(ValueError, match=r"epoch-1\.pt was trained with --optim\.name muon, .* --init_from"):
        run(toy_config(tmp_path, optim=OptimConfig(name="scaled_adam")))
