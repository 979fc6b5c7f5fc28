"""The searches by name, and their options on a command line."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCGreedySearch, CTCPrefixBeamSearch
from summarymix.decoding.fast_beam import FastBeamOptions, FastBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Scaling, Search
from summarymix.lm.hotwords import ContextGraph, read_hotwords
from summarymix.lm.lg import read_lg
from summarymix.lm.ngram import NgramLM
from summarymix.lm.rnn import load_rnn_lm
from summarymix.lm.rnn_scorer import RnnLMScorer
from summarymix.lm.scorers import TokenScorer
from summarymix.model import Transducer

# What each takes besides blank_penalty and temperature, which all take.
BEAM = {
    "beam_size",
    "nbest",
    "hotwords_file",
    "hotwords_score",
    "rnn_lm",
    "rnn_lm_scale",
    "ngram_lm",
    "ngram_lm_scale",
}
FAST_BEAM = {"beam", "max_contexts", "max_states", "lg", "lg_scale"}
METHODS = {
    "greedy_search": {"max_sym_per_frame"},
    "modified_beam_search": BEAM,
    "fast_beam_search": FAST_BEAM,
    "fast_beam_search_nbest": FAST_BEAM | {"num_paths", "nbest_scale", "nbest"},
    "ctc_greedy_search": set[str](),
    "ctc_prefix_beam_search": BEAM,
}
# Options that say something of what another one names.
NEEDED = (("hotwords_score", "hotwords_file"), ("rnn_lm_scale", "rnn_lm"), ("lg_scale", "lg"))
HELP = (
    "greedy_search: the best token at each step (the default). modified_beam_search: several hypotheses, one token per "
    "frame at most. fast_beam_search, fast_beam_search_nbest: k2's lattice, its best path, or the best of hypotheses "
    "drawn from it. ctc_greedy_search, ctc_prefix_beam_search: the same of the auxiliary CTC head"
)


@dataclass(frozen=True)
class SearchOptions:
    """A search and its options; names and meanings are icefall's."""

    method: str = "greedy_search"
    max_sym_per_frame: int = 1
    beam_size: int = 4
    nbest: int = 0
    beam: float = FastBeamOptions.beam
    max_contexts: int = FastBeamOptions.max_contexts
    max_states: int = FastBeamOptions.max_states
    num_paths: int = 200
    nbest_scale: float = FastBeamOptions.nbest_scale
    lg: Path | None = None
    lg_scale: float = 0.01
    blank_penalty: float = 0.0
    temperature: float = 1.0
    hotwords_file: Path | None = None
    hotwords_score: float = 1.5
    rnn_lm: Path | None = None
    rnn_lm_scale: float = 0.3
    ngram_lm: tuple[Path, ...] = ()
    ngram_lm_scale: tuple[float, ...] = (0.2,)

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser."""
        option = parser.add_argument_group("search").add_argument
        option("--method", choices=list(METHODS), default="greedy_search", help=HELP)
        option("--max-sym-per-frame", type=int, help="greedy_search: tokens at one frame at most (1)")
        option("--beam-size", type=int, help="beam searches: hypotheses (4)")
        option("--nbest", type=int, help="beam searches: also write the N best of each utterance, with scores")
        option("--beam", type=float, help="fast_beam_search: scores so far below the best one are dropped (20)")
        option("--max-contexts", type=int, help="fast_beam_search: different last tokens of a stream at a frame (8)")
        option("--max-states", type=int, help="fast_beam_search: states of a stream at a frame (64)")
        option("--num-paths", type=int, help="fast_beam_search_nbest: paths drawn from the lattice (200)")
        option("--nbest-scale", type=float, help="of scores for the drawing (0.5); less: more different hypotheses")
        option("--lg", type=Path, help="fast_beam_search: words and language model, which local/compile_lg.py compiles")
        option("--lg-scale", type=float, help="of the logarithms of its probabilities (0.01)")
        option("--blank-penalty", type=float, help="subtracted from the logit of blank (0); more: fewer deletions")
        option("--temperature", type=float, help="divides logits (1); more: beam searches keep more alternatives")
        option(
            "--hotwords-file",
            type=Path,
            help="beam searches: words or phrases to prefer, one a line, with a score of its own where it is to "
            "have one: HELLO WORLD :2.5",
        )
        option("--hotwords-score", type=float, help="added for each token of a hot word (1.5)")
        option("--rnn-lm", type=Path, help="beam searches: a language model that local/train_rnn_lm.py has made")
        option("--rnn-lm-scale", type=float, help="of the logarithms of its probabilities (0.3)")
        option(
            "--ngram-lm",
            nargs="+",
            type=Path,
            help="beam searches: language models of tokens in ARPA format, such as local/train_ngram.py makes",
        )
        option(
            "--ngram-lm-scale",
            nargs="+",
            type=float,
            help="of the logarithms of each one's probabilities (0.2); below 0 for one of the transcripts themselves "
            "(LODR): --rnn-lm lm.pt --ngram-lm transcripts-2gram.arpa --ngram-lm-scale -0.1",
        )

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
        for name, least in (("nbest", 0), ("max_contexts", 1), ("max_states", 1), ("num_paths", 1)):
            if given.get(name, least) < least:
                raise ValueError(f"--{_dashed(name)} must be {least} or more")
        for name, file in NEEDED:
            if name in given and file not in given:
                raise ValueError(f"--{_dashed(name)} is for a --{_dashed(file)}, which is missing")
        for name in ("ngram_lm", "ngram_lm_scale"):
            if name in given:
                given[name] = tuple(given[name])
        options = cls(**given)
        if "ngram_lm" in given or "ngram_lm_scale" in given:
            models, scales = len(options.ngram_lm), len(options.ngram_lm_scale)
            if models != scales:
                raise ValueError(
                    f"--ngram-lm has {models} and --ngram-lm-scale {scales}: give one scale for each model"
                )
        return options

    def check_lattice(self, rnnt_type: str) -> None:
        """Refuse what a model that was trained with this lattice has not learnt.

        Raises:
            ValueError: more than one token per frame, where training had a token take a frame of its own.
        """
        if self.max_sym_per_frame > 1 and rnnt_type != "regular":
            raise ValueError(
                f"--max-sym-per-frame {self.max_sym_per_frame}: this model was trained with --loss.rnnt-type "
                f"{rnnt_type}, one token per frame at most; leave the option out"
            )

    @property
    def label(self) -> str:
        """What tells results of this method apart, for file names: ``beam-size-4-temperature-1.2``."""
        always, never = METHODS[self.method] & {"beam_size"}, {"method", "nbest"}
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in always or (value != field.default and field.name not in never):
                values = value if isinstance(value, tuple) else (value,)
                parts += [_dashed(field.name), *map(_short, values)]
        return "-".join(parts)

    def make(self, model: Transducer, tokenizer: Tokenizer, record_margins: bool = False) -> Search:
        """The search.

        Raises:
            ValueError, OSError: an option's value is impossible, or a file that it names is.
        """
        unk_id, scaling = tokenizer.unk_id, Scaling(self.blank_penalty, self.temperature)
        if self.method == "greedy_search":
            return GreedySearch(model, self.max_sym_per_frame, unk_id, record_margins, scaling)
        if self.method == "ctc_greedy_search":
            return CTCGreedySearch(model, unk_id, record_margins, scaling)
        if self.method in ("fast_beam_search", "fast_beam_search_nbest"):
            num_paths = self.num_paths if self.method == "fast_beam_search_nbest" else 0
            options = FastBeamOptions(self.beam, self.max_contexts, self.max_states, num_paths, self.nbest_scale)
            graph = None if self.lg is None else read_lg(self.lg, tokenizer.tokens, self.lg_scale)
            return FastBeamSearch(model, options, graph, unk_id, record_margins, scaling)
        scorers: list[TokenScorer] = []
        if self.hotwords_file:
            scorers.append(ContextGraph(read_hotwords(self.hotwords_file, tokenizer, self.hotwords_score)))
        if self.rnn_lm:
            lm = load_rnn_lm(self.rnn_lm, tokenizer.tokens).to(next(model.parameters()).device)
            scorers.append(RnnLMScorer(lm, self.rnn_lm_scale))
        for path, scale in zip(self.ngram_lm, self.ngram_lm_scale, strict=False):
            scorers.append(NgramLM(path, tokenizer.tokens, scale))
        beam_search = ModifiedBeamSearch if self.method == "modified_beam_search" else CTCPrefixBeamSearch
        return beam_search(model, self.beam_size, unk_id, record_margins, scaling, scorers)


def _short(value: Any) -> str:
    """A value for a label; of a file its name without what is behind the first dot."""
    return value.name.partition(".")[0] if isinstance(value, Path) else str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
