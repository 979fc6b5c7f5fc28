#!/usr/bin/env python3
"""Train subword units or characters on lhotse supervisions; write a lang dir (bpe.model, bpe.vocab, tokens.txt)."""

import argparse
from pathlib import Path
from typing import get_args

from lhotse import SupervisionSet

from summarymix.data.tokens import ModelType, Tokenizer
from summarymix.data.transcripts import Punctuation, TextCase


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supervisions", type=Path, nargs="+", required=True, help="manifests of the training splits")
    parser.add_argument("--lang-dir", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=500, help="number of tokens, including blank and unknown")
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

    texts = [s.text or "" for path in args.supervisions for s in SupervisionSet.from_jsonl_lazy(path)]
    try:
        tokenizer = Tokenizer.train(texts, args.vocab_size, args.model_type, args.text_case, args.punctuation)
    except ValueError as error:
        parser.error(str(error))
    tokenizer.write(args.lang_dir)
    words = sum(len(text.split()) for text in texts)
    count = sum(len(tokenizer.encode(text)) for text in texts)
    print(
        f"{args.lang_dir}: {tokenizer.vocab_size} tokens from {len(texts)} transcripts with {words} words, "
        f"{count / max(words, 1):.2f} tokens per word"
    )


if __name__ == "__main__":
    main()
