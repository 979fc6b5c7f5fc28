#!/usr/bin/env python3
"""Compile a language model of words with the tokens' lexicon, for decode.py --method fast_beam_search --lg: only its
words can be recognised. Needs k2.
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors, say
from summarymix.data.tokens import Tokenizer
from summarymix.lm.lg import compile_lg, write_lg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lang-dir", type=Path, required=True, help="of the tokens")
    parser.add_argument(
        "--arpa", type=Path, required=True, help="language model of words, such as local/train_ngram.py --words makes"
    )
    parser.add_argument("--out", type=Path, required=True, help="the graph to write, such as LG.pt")
    args = parser.parse_args()

    with clear_errors("compile_lg.py"):
        tokenizer = Tokenizer.from_lang_dir(args.lang_dir)
        graph, left_out = compile_lg(args.arpa, tokenizer)
        write_lg(args.out, graph, tokenizer.tokens)
    if left_out:
        say(f"{len(left_out)} words have characters without a token and are left out: {' '.join(left_out[:5])} …")
    print(f"{args.out}: {graph.shape[0]} states, {graph.num_arcs} arcs")


if __name__ == "__main__":
    main()
