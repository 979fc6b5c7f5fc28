#!/usr/bin/env python3
"""Estimate an n-gram language model of tokens for decode.py --ngram-lm, or of words for local/compile_lg.py. The text
consists of transcripts in lhotse supervisions, files with one sentence per line (*.gz: compressed), or both.
"""

import argparse
from pathlib import Path

from summarymix.cli import above_zero, clear_errors
from summarymix.data.tokens import Tokenizer
from summarymix.lm.ngram import write_ngrams
from summarymix.lm.text import read_texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lang-dir", type=Path, help="lang dir of the model, for its tokens and the form of its texts")
    parser.add_argument("--words", action="store_true", help="make a language model of words, in place of tokens")
    parser.add_argument("--supervisions", type=Path, nargs="+", default=[], help="manifests of the training splits")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="text files, spelled like the transcripts")
    parser.add_argument("--order", type=above_zero(int), default=4, help="order of the n-grams; 2 for LODR (4)")
    parser.add_argument("--out", type=Path, required=True, help="ARPA file to write")
    args = parser.parse_args()
    if not args.lang_dir and not args.words:
        parser.error("give --lang-dir, --words, or both")
    if not (args.supervisions or args.text):
        parser.error("there is nothing to read: give --supervisions, --text, or both")

    with clear_errors("train_ngram.py"):
        tokenizer = Tokenizer.from_lang_dir(args.lang_dir) if args.lang_dir else None
        texts = read_texts(args.supervisions, args.text, tokenizer)
        if args.words or tokenizer is None:
            write_ngrams(args.out, map(str.split, texts), (), args.order)
        else:
            sentences = ([tokenizer.tokens[i] for i in tokenizer.encode(text)] for text in texts)
            write_ngrams(args.out, sentences, tokenizer.tokens[1:], args.order)  # all but blank
    print(args.out)


if __name__ == "__main__":
    main()
