#!/usr/bin/env python3
"""Train an RNN language model of tokens for decode.py --rnn-lm. The text consists of transcripts in lhotse
supervisions, files with one sentence per line (*.gz: compressed), or both. The epoch with the lowest perplexity on the
dev text is kept. Run the same command again to continue an interrupted run after its last complete epoch.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.tokens import Tokenizer
from summarymix.distributed import find_device
from summarymix.lm.rnn_training import RnnLMRun, RnnLMTraining
from summarymix.lm.text import Sentences, read_texts

SOURCES = ("supervisions", "text", "dev_supervisions", "dev_text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--lang-dir", type=Path, required=True, help="lang dir of the transducer")
    option("--supervisions", type=Path, nargs="+", default=[], help="manifests of the training splits")
    option("--text", type=Path, nargs="+", default=[], help="text files, spelled like the transcripts")
    option("--dev-supervisions", type=Path, nargs="+", default=[], help="manifests of the dev splits")
    option("--dev-text", type=Path, nargs="+", default=[], help="text files, spelled like the transcripts")
    option(
        "--dim",
        type=above_zero(int),
        default=512,
        help="width of embeddings and LSTM (512; for much text 1024 or 2048)",
    )
    option("--num-layers", type=above_zero(int), default=2, help="LSTM layers (2)")
    option("--dropout", type=float, default=0.1, help="dropout rate, higher for little text (0.1)")
    option("--num-epochs", type=above_zero(int), default=10, help="passes over the text (10)")
    option("--batch-tokens", type=above_zero(int), default=4000, help="tokens in a batch, padding included (4000)")
    option("--lr", type=above_zero(float), default=2e-3, help="peak learning rate of AdamW (0.002)")
    option("--warmup-steps", type=int, default=100, help="steps to the peak learning rate (100)")
    option("--seed", type=int, default=42, help="seed of weights, batches and dropout (42)")
    option("--device", help="cpu, cuda, cuda:1, … (a GPU if there is one)")
    option("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    if not (args.supervisions or args.text):
        parser.error("there is nothing to read: give --supervisions, --text, or both")
    if not (args.dev_supervisions or args.dev_text):
        parser.error("the best epoch is chosen on dev text: give --dev-supervisions or --dev-text")
    with clear_errors("train_rnn_lm.py"):
        train(args)
    print(args.out)


def train(args: argparse.Namespace) -> None:
    """Train with the options of the command line.

    Raises:
        ValueError: there is no text, ``args.out`` belongs to another run, or the loss is not finite.
        FileNotFoundError: a file is missing.
    """
    tokenizer = Tokenizer.from_lang_dir(args.lang_dir)
    data = Sentences(read_texts(args.supervisions, args.text, tokenizer), tokenizer)
    dev = Sentences(read_texts(args.dev_supervisions, args.dev_text, tokenizer), tokenizer)
    config = RnnLMTraining(**{field.name: getattr(args, field.name) for field in fields(RnnLMTraining)})
    sources = {name: " ".join(map(str, getattr(args, name))) for name in SOURCES}
    RnnLMRun(args.out, config, tokenizer, data, dev, sources, find_device(args.device)).train()


if __name__ == "__main__":
    main()
