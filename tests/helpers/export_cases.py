"""Tiny transducers with random weights that emit tokens, and audio for them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from saved_runs import save_epoch
from tiny import tiny_config

from summarymix.chunking import ChunkConfig
from summarymix.data.config import DataConfig
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.data.tokens import Tokenizer
from summarymix.export.bundle import Export
from summarymix.model import Transducer
from summarymix.training.averaging import RunningMean
from summarymix.training.config import TrainConfig

# The feature library of sherpa-onnx.
FBANK = FbankOptions(num_mel_bins=16, backend="kaldi-native-fbank")
TOKENIZER = Tokenizer.train(["ab cd ef gh", "hg fe dc ba"], 11, "char")


def make_audio(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change ten times a second, (n,) float32."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(round(10 * seconds)):
        noise = rng.normal(0, 10 ** rng.uniform(-3, -0.7), 1600)
        pieces.append(np.convolve(noise, rng.normal(0, 0.5, 8), mode="same"))
    return np.concatenate(pieces).clip(-1, 1).astype(np.float32)


def make_model(encoder: str, **changes) -> Transducer:
    torch.manual_seed(3)
    config = tiny_config(encoder, vocab_size=TOKENIZER.vocab_size)
    for name, value in changes.items():
        for part in (config.mixing, getattr(config, encoder), config):
            if hasattr(part, name):
                setattr(part, name, value)
                break
        else:
            raise ValueError(name)
    model = Transducer(config).eval()
    features = FbankExtractor(FBANK).extract(make_audio(4.0, seed=9))
    model.set_feature_stats(features.mean(0), features.std(0))
    with torch.no_grad():
        if encoder == "zipformer":
            for parameter in model.encoder.parameters():  # zero or tiny initial values should count, too
                parameter.add_(0.2 * torch.randn_like(parameter))
        # Frames of an untrained encoder hardly vary around their mean, so the joiner gets the scaled deviation.
        frames, _ = model.encoder(features[None], torch.tensor([len(features)]), ChunkConfig())
        projection = model.joiner.encoder_proj
        projection.weight.div_(projection(frames[0]).std(0)[:, None])
        projection.bias.copy_(-projection.weight @ frames.mean((0, 1)))
        model.joiner.out.weight.mul_(3)
        model.joiner.out.bias.zero_()
    return model


def save_run(model: Transducer, data: DataConfig, exp_dir: Path) -> None:
    """Save a run of two epochs, with the first selected, which has the weights of ``model``."""
    config = TrainConfig(model=model.config, data=data)
    average = RunningMean(model)
    for epoch in (1, 2):
        with torch.no_grad():
            model.joiner.out.bias += 0.1 * (epoch - 1)
        save_epoch(exp_dir, epoch, model, average, TOKENIZER, config)
    (exp_dir / "selected.json").write_text(json.dumps({"epoch": 1, "avg": 0, "splits": ["dev"]}))


def export(model: Transducer, format: str, chunks: Sequence[ChunkConfig], folder: Path, *precisions: str) -> Path:
    Export(model, TOKENIZER, FBANK, "mini", 1, 0, format, chunks, precisions).write(folder)  # type: ignore[arg-type]
    return folder
