#!/usr/bin/env python3
"""Count parameters and FLOPs of encoders, for comparison with icefall's Zipformers.

    cd egs/librispeech/ASR/conf
    python ../../../../tools/count_flops.py --config conformer_small.yaml --config conformer.yaml attention.yaml

Each --config is a model: YAML files of train.py, in which later files override earlier ones.

GFLOPs are 2 × multiply-adds / 10⁹ of the encoder with its front end per second of audio, on 30 s of audio, offline and
in chunks of 640 ms with unlimited left context. torch's FlopCounterMode counts matrix products and convolutions as they
are computed, including values that are masked afterwards. It does not count elementwise work (norms, activations,
softmax, sums over chunks) or memory traffic, which often limits the speed.
"""

import argparse

import torch
from benchmarks.parts import VOCAB_SIZE, add_config_option, feature_frames, read_configs
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from summarymix.chunking import ChunkConfig
from summarymix.cli import clear_errors
from summarymix.model import ModelConfig, Transducer
from summarymix.scoring.results import render_rows

SECONDS = 30

# Parameters of the encoder and of the whole model, GFLOPs per second offline and in chunks of 640 ms. Whole model: from
# icefall's egs/librispeech/ASR/RESULTS.md ("zipformer + pruned stateless transducer", 500 tokens). Other figures:
# counted as here with icefall 36e0420 on 3000 frames of noise, for Conv2dSubsampling and Zipformer2 in eval mode with
# the sizes of those entries and train.py's defaults; in chunks, for the --causal 1 model (0.3 to 0.8 M parameters more)
# with chunks of 32 frames and a left context of 128 frames at 50 Hz. For 30 s, the offline counts are 40.65, 62.75 and
# 107.50; the paper, arXiv 2310.11230, gives 40.8, 62.9 and 107.7 with elementwise work and the joiner's projection.
ZIPFORMERS = {
    "icefall Zipformer-S": (21_989_779, 23_285_615, 1.355, 1.358),
    "icefall Zipformer-M": (63_994_103, 65_549_011, 2.092, 2.096),
    "icefall Zipformer-L": (146_625_594, 148_439_574, 3.583, 3.589),
}


def main() -> None:
    args = parse_args()
    with clear_errors("count_flops.py"):
        configs = read_configs(args.config)
    rows = [row(name, *measure(config.model)) for name, config in configs.items()]
    rows += [row(name, *figures) for name, figures in ZIPFORMERS.items()]
    header = ["model", "encoder M", "rest M", "total M", "GFLOPs/s offline", "GFLOPs/s 640 ms"]
    print(render_rows(header, rows, markdown=True))
    print(
        f"\nGFLOPs/s: 2 × multiply-adds of the encoder per second of audio, on {SECONDS} s; matrix products and "
        "convolutions only,\nwithout elementwise work. Rest: predictor, joiner and heads, with the configuration's "
        f"vocabulary size (default {VOCAB_SIZE}). For icefall's figures, see the source of this program."
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_option(parser)
    return parser.parse_args()


def measure(config: ModelConfig) -> tuple[int, int, float, float]:
    """Count parameters of encoder and whole model, and GFLOPs per second offline and in chunks of 640 ms."""
    model = Transducer(config).eval()
    frames = feature_frames(SECONDS)
    offline, chunked = (
        encoder_flops(model.encoder, config.feature_dim, frames, ChunkConfig.from_ms(chunk_ms)) / SECONDS / 1e9
        for chunk_ms in (None, 640)
    )
    return num_parameters(model.encoder), num_parameters(model), offline, chunked


def encoder_flops(encoder: nn.Module, feature_dim: int, num_features: int, chunk: ChunkConfig) -> int:
    """2 × multiply-adds for one utterance of ``num_features`` feature frames."""
    features, lengths = torch.randn(1, num_features, feature_dim), torch.tensor([num_features])
    # The counter does not support fused attention on the CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(features, lengths, chunk)
    return counter.get_total_flops()


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def row(name: str, encoder: int, total: int, offline: float, chunked: float) -> list[str]:
    sizes = [f"{number / 1e6:.2f}" for number in (encoder, total - encoder, total)]
    return [name, *sizes, f"{offline:.3f}", f"{chunked:.3f}"]


if __name__ == "__main__":
    main()
