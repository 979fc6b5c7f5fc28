"""Which parameters decay."""

from training_toy import toy_config, toy_model

from summarymix.training.optim import make_optimizer


def test_only_matrices_and_kernels_decay(tmp_path) -> None:
    config = toy_config(tmp_path)
    model = toy_model(config)
    decaying, others = make_optimizer(model, config.optim).param_groups
    assert decaying["weight_decay"] == config.optim.weight_decay > 0
    assert others["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in others["params"]} >= {"ctc_head.bias", "encoder.layers.0.norm.weight"}
    assert {names[id(p)] for p in decaying["params"]} >= {"ctc_head.weight", "predictor.embedding.weight"}
    assert len(decaying["params"]) + len(others["params"]) == len(names)
