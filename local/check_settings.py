#!/usr/bin/env python3
"""Check that a model can stream with chunk sizes and left contexts, before it is trained, and print what its data are.

Reads the configuration that "train.py --print_config" prints, or that of an experiment, from standard input. Prints

  own PATH          beginning of the paths of this recipe's manifests
  manifest PATH     a manifest of this recipe to train on
  train SPLIT MARK  a split to train on of another corpus, or from a Shar export; MARK changes with its cuts
  dev SPLIT MARK    such a split for validation
  test SPLIT MARK   such a split of --splits
  missing PATH      a split to train on, or of --splits, that does not exist
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
import yaml

from summarymix.chunking import ChunkConfig
from summarymix.cli import clear_errors
from summarymix.configs import upgraded
from summarymix.data.config import DataConfig
from summarymix.decoding.evaluate import evaluation_data
from summarymix.model import ModelConfig, make_encoder


def lines_about(data: DataConfig, splits: list[str]) -> Iterator[str]:
    """Yield the lines that are printed about the data; ``splits`` are those of --splits."""
    yield f"own {Path(data.dir, data.manifest_dir, data.prefix)}_cuts_"
    needed = [*data.train_splits(), *splits]
    for kind, names in (("train", data.train_splits()), ("dev", data.dev_splits()), ("test", splits)):
        for split in names:
            place = data.location_of(split)
            try:
                mark = data.open(split).mark()
            except FileNotFoundError:
                if split in needed:
                    yield f"missing {place}"
                continue
            if data.find(split)[0] is not data or data.shar_dir is not None:
                yield f"{kind} {split} {mark}"
            elif kind == "train":
                yield f"manifest {place}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-ms", nargs="*", type=int, default=[], help="chunk sizes")
    parser.add_argument("--left-chunks", nargs="*", type=int, default=[], help="left contexts in chunks")
    parser.add_argument("--splits", nargs="*", default=[], help="splits to decode, of another corpus SPLIT@PREFIX")
    args = parser.parse_args()
    config = upgraded(yaml.safe_load(sys.stdin))
    model = replace(ModelConfig.from_plain(config["model"]), feature_dim=config["data"]["num_mel_bins"])
    with torch.device("meta"):  # without weights
        encoder = make_encoder(model)
        for chunk_ms, left_chunks in product(args.chunk_ms, args.left_chunks):
            chunk = ChunkConfig.from_ms(chunk_ms, left_chunks)
            encoder.check_chunk(chunk)
            encoder.init_state(1, chunk)
    print(*lines_about(evaluation_data(config["data"]), args.splits), sep="\n")


if __name__ == "__main__":
    with clear_errors("check_settings.py"):
        main()
