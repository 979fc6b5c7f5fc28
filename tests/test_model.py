import math

import pytest
import torch
import torch.nn.functional as F

from summarymix.chunking import ChunkConfig
from summarymix.joiner import Joiner
from summarymix.loss import rnnt_loss
from summarymix.model import BLANK, LossOptions, ModelConfig, Transducer
from summarymix.zipformer import ZipformerConfig

CONFIG = ModelConfig(
    feature_dim=10,
    frontend_channels=(2, 3),
    num_layers=2,
    dim=8,
    feedforward_dim=12,
    kernel_size=5,
    summary_dim=8,
    dropout=0.0,
    predictor_dim=8,
    joiner_dim=8,
    vocab_size=6,
)


def make(**changes) -> Transducer:
    torch.manual_seed(0)
    return Transducer(ModelConfig(**(vars(CONFIG) | changes))).double()


def batch(lengths):
    torch.manual_seed(1)
    return torch.randn(len(lengths), max(lengths), 10).double(), torch.tensor(lengths)


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(4, 1)])
def test_losses_are_those_of_the_full_lattice_and_of_each_utterance_alone(predictor, chunk):
    """With a range as wide as the transcript nothing is pruned; and no loss depends on the rest of the batch (L5)."""
    model = make(predictor=predictor)
    features, lengths = batch([60, 43, 31])
    tokens = [[1, 2, 3, 3], [5], []]
    options = LossOptions(prune_range=5, backend="native")
    losses = model(features, lengths, tokens, chunk, options)
    assert losses.num_frames.tolist() == [14, 10, 7]
    for n, row in enumerate(tokens):
        alone = model(features[n : n + 1, : lengths[n]], lengths[n : n + 1], [row], chunk, options)
        for whole, single in zip(losses, alone, strict=True):
            torch.testing.assert_close(whole[n], single[0], rtol=0, atol=1e-5)  # losses are computed in float32

        encoder_out, _ = model.encoder(features[n : n + 1, : lengths[n]], lengths[n : n + 1], chunk)  # (1, T, D)
        predictor_out = model.predictor(torch.tensor([[BLANK, *row]]))  # (1, S+1, P)
        logits = model.joiner(
            model.joiner.encoder_proj(encoder_out)[:, :, None], model.joiner.decoder_proj(predictor_out)[:, None]
        )  # (1, T, S+1, V)
        symbols = torch.tensor([row], dtype=torch.int64)
        full = rnnt_loss(logits, symbols, BLANK, reduction="sum", backend="native")
        torch.testing.assert_close(losses.pruned[n].double(), full, rtol=0, atol=1e-4)
        ctc = F.ctc_loss(
            model.ctc_log_probs(encoder_out)[0], symbols[0], encoder_out.shape[1:2], (len(row),), reduction="none"
        )
        torch.testing.assert_close(losses.ctc[n], ctc, rtol=0, atol=1e-4)


def kl_by_hand(full, chunked, frames):
    """Σ_t Σ_v p (log p - log q) over the first ``frames`` frames of (T, V) log-probabilities, number by number."""
    total = 0.0
    for t in range(frames):
        for p, q in zip(full[t].tolist(), chunked[t].tolist(), strict=True):
            total += math.exp(p) * (p - q)
    return total


def test_consistency_compares_full_context_and_chunks():
    """Against plain formulas for each utterance alone: so padding does not count, nor do neighbours (L5)."""
    model = make()
    features, lengths = batch([60, 43, 31])
    tokens, chunk = [[1, 2, 3, 3], [5], []], ChunkConfig(3, 1)
    plain, options = LossOptions(backend="native"), LossOptions(backend="native", consistency_scale=0.2)
    losses = model(features, lengths, tokens, chunk, options)
    assert losses.num_frames.tolist() == [14, 10, 7]
    features[1, 43:], features[2, 31:] = 5.0, -5.0  # what stands behind the end
    for again, once in zip(model(features, lengths, tokens, chunk, options), losses, strict=True):
        torch.testing.assert_close(again, once, rtol=0, atol=1e-5)
    for n, row in enumerate(tokens):
        alone = features[n : n + 1, : lengths[n]], lengths[n : n + 1]
        passes = [model(*alone, [row], seen, plain) for seen in (ChunkConfig(), chunk)]
        for name in ("simple", "pruned", "ctc"):
            full, chunked = (getattr(losses_of_pass, name)[0] for losses_of_pass in passes)
            assert abs(full - chunked) > 1e-4
            torch.testing.assert_close(getattr(losses, name)[n], (full + chunked) / 2, rtol=0, atol=1e-5)
        full, chunked = (model.ctc_log_probs(model.encoder(*alone, seen)[0])[0] for seen in (ChunkConfig(), chunk))
        expected = kl_by_hand(full, chunked, len(full))
        assert expected > 1e-4
        assert losses.consistency[n].item() == pytest.approx(expected, rel=1e-4)


def test_consistency_is_off_with_full_context_and_by_default():
    model = make()
    features, lengths = batch([60, 43])
    arguments = features, lengths, [[1, 2, 3], [5]]
    for chunk, scale in ((ChunkConfig(), 0.2), (ChunkConfig(3), 0.0)):
        options = LossOptions(backend="native", consistency_scale=scale)
        for got, plain in zip(
            model(*arguments, chunk, options), model(*arguments, chunk, LossOptions(backend="native")), strict=True
        ):
            assert torch.equal(got, plain)
        assert not model(*arguments, chunk, options).consistency.any()


def test_consistency_moves_the_chunks_and_not_the_full_context():
    """The gradient at the encoder's output: none in the pass with full context, that of the formula in the other."""
    model = make()
    features, lengths = batch([60, 43])
    outputs = []
    model.encoder.register_forward_hook(lambda module, inputs, out: outputs.append(out[0]))
    losses = model(
        features, lengths, [[1, 2], [5]], ChunkConfig(3), LossOptions(backend="native", consistency_scale=1.0)
    )
    full, chunked = torch.autograd.grad(losses.consistency.sum(), outputs)
    assert not full.any()
    assert not chunked[1, 10:].any()
    p, q = (model.ctc_log_probs(out).exp() for out in outputs)
    expected = (q - p) @ model.ctc_head.weight.float()  # of KL(p ‖ softmax(W h + b)) by h
    torch.testing.assert_close(chunked[0].float(), expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(chunked[1, :10].float(), expected[1, :10], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mixing", ["merged", "attention"])
def test_every_parameter_learns(mixing):
    model = make(mixing=mixing)
    features, lengths = batch([60, 43])
    losses = model(features, lengths, [[1, 2, 3], [5, 4]], ChunkConfig(4, 2), LossOptions(backend="native"))
    (losses.simple + losses.pruned + losses.ctc).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("mixing", ["merged", "attention"])
def test_losses_are_computed_in_float32_under_autocast(mixing):
    model = make(mixing=mixing).float()
    features, lengths = batch([60, 43])
    options = LossOptions(backend="native", consistency_scale=0.2)
    arguments = (features.float(), lengths, [[1, 2, 3], [5, 4]], ChunkConfig(4, 2), options)
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


def test_joiner_is_tanh_of_the_sum():
    joiner = Joiner(4, 6, 5, 3)
    encoder, decoder = torch.randn(2, 4), torch.randn(2, 6)
    logits = joiner(joiner.encoder_proj(encoder), joiner.decoder_proj(decoder))
    hidden = torch.tanh(
        F.linear(encoder, joiner.encoder_proj.weight, joiner.encoder_proj.bias)
        + F.linear(decoder, joiner.decoder_proj.weight, joiner.decoder_proj.bias)
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
    model = make(encoder="zipformer", zipformer=zipformer).train()
    assert model.joiner_balancer is not None
    model.joiner_balancer.prob, model.joiner_balancer.grad_scale = 1.0, 100.0
    projection = model.joiner.decoder_proj
    projection.weight.data *= 50
    features, lengths = torch.randn(2, 80, CONFIG.feature_dim).double(), torch.tensor([80, 60])
    predictor_out = model.predictor(torch.tensor([[0, 1, 2]]))
    before = projection(predictor_out).abs().mean()
    model(features, lengths, [[1, 2], [2]], ChunkConfig(), LossOptions()).pruned.sum().backward()
    gradient = projection.weight.grad
    projection.weight.data -= 0.1 * gradient / gradient.norm()
    assert projection(predictor_out).abs().mean() < before
    assert make().joiner_balancer is None
