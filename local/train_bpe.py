#!/usr/bin/env python3
"""Train subword units or characters on lhotse supervisions; write a lang dir (bpe.model, bpe.vocab, tokens.txt)."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from summarymix.cli import above_zero, clear_errors
from summarymix.data.manifests import read_items
from summarymix.data.tokens import ModelType, Tokenizer, reserved_pieces
from summarymix.data.transcripts import Punctuation, TextCase


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supervisions", type=Path, nargs="+", required=True, help="manifests of the training splits")
    parser.add_argument("--lang-dir", type=Path, required=True)
    parser.add_argument(
        "--vocab-size", type=above_zero(int), default=500, help="number of tokens, including blank and unknown"
    )
    parser.add_argument("--model-type", choices=get_args(ModelType), default="unigram")
    parser.add_argument(
        "--text-case", choices=get_args(TextCase), default="keep", help="case to convert transcripts to"
    )
    parser.add_argument(
        "--punctuation",
        choices=get_args(Punctuation),
        default="keep",
        help="remove it from transcripts, or keep it",
    )
    args = parser.parse_args()

    texts = read_texts(args.supervisions)
    tokenizer = Tokenizer.train(texts, args.vocab_size, args.model_type, args.text_case, args.punctuation)
    tokenizer.write(args.lang_dir)
    transcripts = words = tokens = incomplete = unwritable = 0
    unknown: set[str] = set()
    reserved: set[str] = set()
    for text in filter(None, map(tokenizer.normalize, read_texts(args.supervisions))):
        transcripts += 1
        words += len(text.split())
        tokens += len(tokenizer.encode(text))
        if not (missing := tokenizer.unknown_characters(text)):
            continue
        if pieces := reserved_pieces(text):
            reserved.update(pieces)
            unwritable += 1
        else:
            unknown.update(missing)
            incomplete += 1
    print(
        f"{args.lang_dir}: {tokenizer.vocab_size} tokens from {transcripts} transcripts with {words} words, "
        f"{tokens / max(words, 1):.2f} tokens per word"
    )
    if reserved:
        print(
            f"Warning: {unwritable} transcripts contain {' or '.join(sorted(reserved))}, which sentencepiece "
            "reserves: training leaves them out. Remove or respell it in the corpus, and run ./prepare.sh again"
        )
    if unknown:
        print(
            f"Warning: {len(unknown)} characters have no token, such as {min(unknown)!a}: training leaves out the "
            f"{incomplete} transcripts with them. --vocab-size {tokenizer.vocab_size + len(unknown)} has them all"
        )


def read_texts(supervisions: Iterable[Path]) -> Iterator[str]:
    """Iterate over the transcripts in manifests."""
    return (item.text or "" for path in supervisions for item in read_items(path))


if __name__ == "__main__":
    with clear_errors("train_bpe.py"):
        main()
