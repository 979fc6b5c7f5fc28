#!/usr/bin/env python3
"""Compile a word language model and the lexicon of its words to a graph for decode.py --method fast_beam_search --lg,
which then recognises only these words. Needs k2.
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors, say
from summarymix.data.tokens import Tokenizer
from summarymix.lm.lg import compile_lg, write_lg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lang-dir", type=Path, required=True, help="lang dir of the model")
    parser.add_argument(
        "--arpa", type=Path, required=True, help="word language model, such as one made by local/train_ngram.py --words"
    )
    parser.add_argument("--out", type=Path, required=True, help="graph to write, such as LG.pt")
    args = parser.parse_args()

    with clear_errors("compile_lg.py"):
        tokenizer = Tokenizer.from_lang_dir(args.lang_dir)
        graph, left_out = compile_lg(args.arpa, tokenizer)
        write_lg(args.out, graph, tokenizer.tokens)
    if left_out:
        examples = " ".join(left_out[:5]) + " …" * (len(left_out) > 5)
        say(f"{len(left_out)} words have characters without a token and are left out: {examples}")
    print(f"{args.out}: {graph.shape[0]} states, {graph.num_arcs} arcs")


if __name__ == "__main__":
    main()
