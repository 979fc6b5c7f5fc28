"""Tiny transducers with random weights that emit many tokens, so that different searches can give different results."""

import torch
from tiny import tiny_config

from summarymix.chunking import ChunkConfig
from summarymix.model import Transducer


def make_model(predictor: str, context_size: int = 2, encoder: str = "conformer") -> Transducer:
    torch.manual_seed(3)
    config = tiny_config(encoder, predictor=predictor, context_size=context_size)
    model = Transducer(config).eval()
    noise, lengths = torch.randn(1, 400, config.feature_dim), torch.tensor([400])
    with torch.no_grad():
        # Frames of an untrained encoder hardly vary around their mean: joiner and CTC head get the scaled deviation.
        frames, _ = model.encoder(noise, lengths, ChunkConfig())
        for projection in (model.joiner.encoder_proj, model.ctc_head):
            projection.weight.mul_(5)
            projection.bias.copy_(-projection.weight @ frames.mean((0, 1)))
        spread = model.ctc_head(frames).std()
        for parameter in model.ctc_head.parameters():
            parameter.div_(spread)
        model.joiner.out.bias.zero_()
    return model
