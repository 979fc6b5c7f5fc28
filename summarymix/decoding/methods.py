"""The searches by name, and their options on a command line."""

import argparse
from dataclasses import dataclass, fields
from typing import Any

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCGreedySearch, CTCPrefixBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Scaling, Search
from summarymix.model import Transducer

# What each takes besides blank_penalty and temperature, which all take.
METHODS = {
    "greedy_search": {"max_sym_per_frame"},
    "modified_beam_search": {"beam_size", "nbest"},
    "ctc_greedy_search": set[str](),
    "ctc_prefix_beam_search": {"beam_size", "nbest"},
}
HELP = (
    "greedy_search: the best token at each step (the default). modified_beam_search: several hypotheses, one token per "
    "frame at most. ctc_greedy_search, ctc_prefix_beam_search: the same of the auxiliary CTC head"
)


@dataclass(frozen=True)
class SearchOptions:
    """A search and its options; names and meanings are icefall's."""

    method: str = "greedy_search"
    max_sym_per_frame: int = 1
    beam_size: int = 4
    nbest: int = 0
    blank_penalty: float = 0.0
    temperature: float = 1.0

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser."""
        option = parser.add_argument_group("search").add_argument
        option("--method", choices=list(METHODS), default="greedy_search", help=HELP)
        option("--max-sym-per-frame", type=int, help="greedy_search: tokens at one frame at most (1)")
        option("--beam-size", type=int, help="beam searches: hypotheses (4)")
        option("--nbest", type=int, help="beam searches: also write the N best of each utterance, with scores")
        option("--blank-penalty", type=float, help="subtracted from the logit of blank (0); more: fewer deletions")
        option("--temperature", type=float, help="divides logits (1); more: beam searches keep more alternatives")

    @classmethod
    def of(cls, args: argparse.Namespace) -> "SearchOptions":
        """The options that were given.

        Raises:
            ValueError: one of them is not for this method.
        """
        names = [field.name for field in fields(cls)]
        given: dict[str, Any] = {name: value for name in names if (value := getattr(args, name)) is not None}
        taken = METHODS[args.method] | {"method", "blank_penalty", "temperature"}
        for name in given:
            if name not in taken:
                methods = ", ".join(method for method, options in METHODS.items() if name in options)
                raise ValueError(f"--{_dashed(name)} is an option of --method {methods}, not of {args.method}")
        return cls(**given)

    @property
    def label(self) -> str:
        """What tells results of this method apart, for file names: ``beam-size-4-temperature-1.2``."""
        taken = METHODS[self.method]
        shown = {"beam_size"} & taken
        shown |= {
            f.name for f in fields(self) if f.name not in ("method", "nbest") and getattr(self, f.name) != f.default
        }
        return "-".join(f"{_dashed(f.name)}-{getattr(self, f.name)}" for f in fields(self) if f.name in shown)

    def make(self, model: Transducer, tokenizer: Tokenizer, record_margins: bool = False) -> Search:
        """The search.

        Raises:
            ValueError: an option's value is impossible.
        """
        unk_id, scaling = tokenizer.unk_id, Scaling(self.blank_penalty, self.temperature)
        if self.method == "greedy_search":
            return GreedySearch(model, self.max_sym_per_frame, unk_id, record_margins, scaling)
        if self.method == "modified_beam_search":
            return ModifiedBeamSearch(model, self.beam_size, unk_id, record_margins, scaling)
        if self.method == "ctc_greedy_search":
            return CTCGreedySearch(model, unk_id, scaling, record_margins)
        return CTCPrefixBeamSearch(model, self.beam_size, unk_id, record_margins, scaling)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
