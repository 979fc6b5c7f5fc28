#!/usr/bin/env python3
"""Check that a model can stream with chunk sizes and left contexts, before it is trained.

Reads the configuration that "train.py --print_config" prints from standard input.
"""

import argparse
import sys
from dataclasses import replace
from itertools import product

import torch
import yaml

from summarymix.chunking import ChunkConfig
from summarymix.cli import clear_errors
from summarymix.model import ModelConfig, make_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-ms", nargs="+", type=int, required=True, help="chunk sizes")
    parser.add_argument("--left-chunks", nargs="+", type=int, required=True, help="left contexts in chunks")
    args = parser.parse_args()
    config = yaml.safe_load(sys.stdin)
    model = replace(ModelConfig.from_plain(config["model"]), feature_dim=config["data"]["num_mel_bins"])
    with torch.device("meta"):  # without weights
        encoder = make_encoder(model)
        for chunk_ms, left_chunks in product(args.chunk_ms, args.left_chunks):
            chunk = ChunkConfig.from_ms(chunk_ms, left_chunks)
            encoder.check_chunk(chunk)
            encoder.init_state(1, chunk)


if __name__ == "__main__":
    with clear_errors("check_settings.py"):
        main()
