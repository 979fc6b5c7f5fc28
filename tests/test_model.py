import math

import pytest
import torch
import torch.nn.functional as F

from summarymix.chunking import ChunkConfig
from summarymix.configs import upgraded
from summarymix.encoder.zipformer import ZipformerConfig
from summarymix.joiner import Joiner
from summarymix.loss import rnnt_loss
from summarymix.model import BLANK, LossConfig, ModelConfig, Transducer, View
from summarymix.predictor import StatelessPredictor

CONFIG = {
    "feature_dim": 10,
    "conformer": {
        "frontend_channels": (2, 3),
        "num_layers": 2,
        "dim": 8,
        "feedforward_dim": 12,
        "kernel_size": 5,
        "summary_dim": 8,
    },
    "dropout": 0.0,
    "predictor_dim": 8,
    "joiner_dim": 8,
    "vocab_size": 6,
}


def make(**changes) -> Transducer:
    torch.manual_seed(0)
    return Transducer(ModelConfig.from_plain(upgraded({"model": CONFIG | changes})["model"])).double()


def batch(lengths):
    torch.manual_seed(1)
    return torch.randn(len(lengths), max(lengths), 10).double(), torch.tensor(lengths)


def test_options_of_other_parts_have_no_effect():
    changed = {"conformer": {"dim": 8}, "zipformer": {"dims": [8] * 6}, "context_size": 3, "joiner_dim": 8}
    for encoder, predictor, unused in (
        ("conformer", "stateless", ["--model.zipformer.dims [8, 8, 8, 8, 8, 8]"]),
        ("zipformer", "lstm", ["--model.conformer.dim 8", "--model.context_size 3"]),
    ):
        config = ModelConfig.from_plain({"encoder": encoder, "predictor": predictor, **changed})
        assert config.without_effect() == unused
    assert ModelConfig(encoder="zipformer", predictor="lstm").without_effect() == []


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(4, 1)])
def test_losses_are_those_of_the_full_lattice_and_of_each_utterance_alone(predictor, chunk):
    """With a range as wide as the transcript nothing is pruned; and no loss depends on the rest of the batch (L5)."""
    model = make(predictor=predictor)
    features, lengths = batch([60, 43, 31])
    tokens = [[1, 2, 3, 3], [5], []]
    options = LossConfig(prune_range=5, backend="native")
    losses = model([View(features, chunk)], lengths, tokens, options)
    assert losses.num_frames.tolist() == [14, 10, 7]
    for n, row in enumerate(tokens):
        view = View(features[n : n + 1, : lengths[n]], chunk)
        alone = model([view], lengths[n : n + 1], [row], options)
        for whole, single in zip(losses, alone, strict=True):
            torch.testing.assert_close(whole[n], single[0], rtol=0, atol=1e-5)  # losses are computed in float32

        encoder_out, _ = model.encoder(features[n : n + 1, : lengths[n]], lengths[n : n + 1], chunk)  # (1, T, D)
        predictor_out = model.predictor(torch.tensor([[BLANK, *row]]))  # (1, S+1, P)
        logits = model.joiner(
            model.joiner.encoder_proj(encoder_out)[:, :, None], model.joiner.predictor_proj(predictor_out)[:, None]
        )  # (1, T, S+1, V)
        symbols = torch.tensor([row], dtype=torch.int64)
        full = rnnt_loss(logits, symbols, BLANK, reduction="sum", backend="native")
        torch.testing.assert_close(losses.pruned[n].double(), full, rtol=0, atol=1e-4)
        ctc = F.ctc_loss(
            model.ctc_log_probs(encoder_out)[0], symbols[0], encoder_out.shape[1:2], (len(row),), reduction="none"
        )
        torch.testing.assert_close(losses.ctc[n], ctc, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
def test_recordings_without_speech_teach_blanks(predictor, rnnt_type):
    """A batch without any token: the loss is that of blanks in all frames, and only makes them likelier."""
    model = make(predictor=predictor)
    features, lengths = batch([60, 31])
    options = LossConfig(rnnt_type=rnnt_type, backend="native")
    losses = model([View(features, ChunkConfig())], lengths, [[], []], options)
    encoder_out, num_frames = model.encoder(features, lengths, ChunkConfig())  # (N, T, D), (N,)
    start = model.joiner.predictor_proj(model.predictor(torch.tensor([[BLANK]])))  # (1, 1, J)
    blanks = model.joiner(model.joiner.encoder_proj(encoder_out), start).log_softmax(-1)[..., BLANK]  # (N, T)
    ctc_blanks = model.ctc_log_probs(encoder_out)[..., BLANK]
    for n, frames in enumerate(num_frames):
        torch.testing.assert_close(losses.pruned[n].double(), -blanks[n, :frames].sum(), rtol=0, atol=1e-4)
        torch.testing.assert_close(losses.ctc[n], -ctc_blanks[n, :frames].sum(), rtol=0, atol=1e-4)
    sum(part.double().sum() for part in losses[:3]).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert model.joiner.out.bias.grad[BLANK] < 0 < model.joiner.out.bias.grad[BLANK + 1 :].min()


def divergence_by_hand(first, second):
    """Σ_t Σ_v ½ (p - q) (log p - log q) of (T, V) log-probabilities, number by number."""
    total = 0.0
    for log_p, log_q in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True):
        total += 0.5 * (math.exp(log_p) - math.exp(log_q)) * (log_p - log_q)
    return total


@pytest.mark.parametrize("option", ["delay_penalty", "fastemit"])
def test_early_emission_is_encouraged_in_both_transducer_losses(option):
    model = make()
    features, lengths = batch([60, 43])

    def losses_and_gradients(**changes):
        losses = model([View(features, ChunkConfig())], lengths, [[1, 2, 3], [5]], LossConfig(**changes))
        return losses[:3], [torch.autograd.grad(part.sum(), weight, retain_graph=True)[0] for part in losses[:3]]

    weight = model.encoder.layers[0].convolution.depthwise.weight
    plain, without = losses_and_gradients(backend="native")
    changed, gradients = losses_and_gradients(backend="native", **{option: 0.1})
    if option == "fastemit":
        assert all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))
    equal = [
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(without, gradients, strict=True)
    ]
    assert equal == [False, False, True]  # CTC has none


def test_losses_of_two_views_are_means_and_the_consistency_loss_compares_them():
    """Against plain formulas for each utterance alone: so padding does not count, nor do neighbours (L5)."""
    model = make()
    features, lengths = batch([60, 43, 31])
    tokens, options = [[1, 2, 3, 3], [5], []], LossConfig(backend="native")
    views = [View(features, ChunkConfig()), View(features + torch.randn(3, 60, 10), ChunkConfig(3, 1))]
    losses = model(views, lengths, tokens, options)
    assert losses.num_frames.tolist() == [14, 10, 7]
    for view in views:  # what stands behind the end
        view.features[1, 43:], view.features[2, 31:] = 5.0, -5.0
    for again, once in zip(model(views, lengths, tokens, options), losses, strict=True):
        torch.testing.assert_close(again, once, rtol=0, atol=1e-5)
    for n, row in enumerate(tokens):
        length = lengths[n : n + 1]
        alone = [View(view.features[n : n + 1, : lengths[n]], view.chunk) for view in views]
        singles = [model([view], length, [row], options) for view in alone]
        for name in ("simple", "pruned", "ctc"):
            first, second = (getattr(single, name)[0] for single in singles)
            assert abs(first - second) > 1e-4
            torch.testing.assert_close(getattr(losses, name)[n], (first + second) / 2, rtol=0, atol=1e-5)
        assert not any(single.consistency.any() for single in singles)
        expected = divergence_by_hand(
            *(model.ctc_log_probs(model.encoder(v.features, length, v.chunk)[0]) for v in alone)
        )
        assert expected > 1e-4
        assert losses.consistency[n].item() == pytest.approx(expected, rel=1e-4)


def test_consistency_moves_each_view_towards_the_other():
    """The gradients at the encoder's output are those of the formula, with the other view's output as a constant."""
    model = make()
    features, lengths = batch([60, 43])
    outputs = []
    model.encoder.register_forward_hook(lambda module, inputs, out: outputs.append(out[0]))
    views = [View(features, ChunkConfig()), View(features, ChunkConfig(3))]
    losses = model(views, lengths, [[1, 2], [5]], LossConfig(backend="native"))
    gradients = torch.autograd.grad(losses.consistency.sum(), outputs)
    p, q = (model.ctc_log_probs(out).exp() for out in outputs)
    for gradient, own, other in zip(gradients, (p, q), (q, p), strict=True):
        assert not gradient[1, 10:].any()
        expected = 0.5 * (own - other) @ model.ctc_head.weight.float()  # of ½ KL(other ‖ softmax(W h + b)) by h
        torch.testing.assert_close(gradient[0].float(), expected[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(gradient[1, :10].float(), expected[1, :10], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mixing", ["merged", "attention"])
def test_every_parameter_learns(mixing):
    model = make(mixing={"mode": mixing})
    features, lengths = batch([60, 43])
    losses = model([View(features, ChunkConfig(4, 2))], lengths, [[1, 2, 3], [5, 4]], LossConfig(backend="native"))
    (losses.simple + losses.pruned + losses.ctc).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("mixing", ["merged", "attention"])
def test_losses_are_computed_in_float32_under_autocast(mixing):
    model = make(mixing={"mode": mixing}).float()
    features, lengths = batch([60, 43])
    views = [View(features.float(), ChunkConfig()), View(features.float(), ChunkConfig(4, 2))]
    arguments = (views, lengths, [[1, 2, 3], [5, 4]], LossConfig(backend="native"))
    expected = model(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*arguments)
    for got, want in zip(losses[:4], expected[:4], strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=0.02, atol=0.1)


def test_feature_statistics_are_part_of_the_weights():
    model = make()
    features, lengths = batch([60])
    before, _ = model.encoder(features, lengths, ChunkConfig())
    mean, std = torch.arange(10.0), torch.arange(10.0) + 0.5
    model.set_feature_stats(mean, std)
    after, _ = model.encoder(features * std + mean, lengths, ChunkConfig())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert torch.equal(model.state_dict()["encoder.feature_mean"], mean.double())


def test_a_vocabulary_must_have_a_token_beside_blank():
    with pytest.raises(ValueError, match="vocab_size is 1"):
        make(vocab_size=1)


def test_widths_that_the_predictor_cannot_group_are_named():
    with pytest.raises(ValueError, match=r"--model\.predictor_dim 258 must be a multiple of 4"):
        StatelessPredictor(10, 258, 2)


def test_joiner_is_tanh_of_the_sum():
    joiner = Joiner(4, 6, 5, 3)
    encoder, decoder = torch.randn(2, 4), torch.randn(2, 6)
    logits = joiner(joiner.encoder_proj(encoder), joiner.predictor_proj(decoder))
    hidden = torch.tanh(
        F.linear(encoder, joiner.encoder_proj.weight, joiner.encoder_proj.bias)
        + F.linear(decoder, joiner.predictor_proj.weight, joiner.predictor_proj.bias)
    )
    torch.testing.assert_close(logits, F.linear(hidden, joiner.out.weight, joiner.out.bias))


def test_what_the_joiner_adds_up_is_kept_small_with_the_zipformer():
    """Beyond its limit a step against the gradient makes it smaller."""
    torch.manual_seed(0)
    zipformer = ZipformerConfig(
        downsampling=(1, 2),
        num_layers=(1, 1),
        dims=(8, 8),
        feedforward_dims=(8, 8),
        kernel_sizes=(3, 3),
        summary_dims=(4, 4),
        num_heads=(1, 1),
        frontend_channels=(2, 2, 2),
    )
    model = make(encoder="zipformer", zipformer=vars(zipformer)).train()
    assert model.joiner_balancer is not None
    model.joiner_balancer.prob, model.joiner_balancer.grad_scale = 1.0, 100.0
    projection = model.joiner.predictor_proj
    projection.weight.data *= 50
    features, lengths = torch.randn(2, 80, CONFIG["feature_dim"]).double(), torch.tensor([80, 60])
    predictor_out = model.predictor(torch.tensor([[0, 1, 2]]))
    before = projection(predictor_out).abs().mean()
    model([View(features, ChunkConfig())], lengths, [[1, 2], [2]], LossConfig()).pruned.sum().backward()
    gradient = projection.weight.grad
    projection.weight.data -= 0.1 * gradient / gradient.norm()
    assert projection(predictor_out).abs().mean() < before
    assert make().joiner_balancer is None
