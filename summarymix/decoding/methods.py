"""Search methods by name, and their command-line options."""

import argparse
import hashlib
import math
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from summarymix.data.names import shortened
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.beam import ModifiedBeamSearch
from summarymix.decoding.ctc import CTCGreedySearch, CTCPrefixBeamSearch
from summarymix.decoding.fast_beam import FastBeamOptions, FastBeamSearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.decoding.search import Scaling, Search
from summarymix.files import add_content
from summarymix.lm.hotwords import ContextGraph, read_hotwords
from summarymix.lm.lg import read_lg
from summarymix.lm.ngram import NgramLM
from summarymix.lm.rnn import load_rnn_lm
from summarymix.lm.rnn_scorer import RnnLMScorer
from summarymix.lm.scorers import TokenScorer
from summarymix.model import Transducer, TransducerParts

METHODS = (
    "greedy_search",
    "modified_beam_search",
    "fast_beam_search",
    "fast_beam_search_nbest",
    "ctc_greedy_search",
    "ctc_prefix_beam_search",
)
MAX_LABEL_BYTES = 120  # of a file name, which also has split, setting and epochs
BEAM = ("modified_beam_search", "ctc_prefix_beam_search")
FAST_BEAM = ("fast_beam_search", "fast_beam_search_nbest")
NEED_MODEL = (*FAST_BEAM, "ctc_greedy_search", "ctc_prefix_beam_search")
HELP_PREFIXES = {METHODS: "", BEAM: "beam searches: ", FAST_BEAM: "fast beam searches: "}
# (option, other option that it requires)
NEEDED = (("hotwords_score", "hotwords_file"), ("rnn_lm_scale", "rnn_lm"), ("lg_scale", "lg"))
METHOD_HELP = (
    "greedy_search: the best token at each step (the default). modified_beam_search: several hypotheses, at most one "
    "token per frame. fast_beam_search: the best path of k2's lattice; fast_beam_search_nbest: the best of several "
    "paths sampled from it. ctc_greedy_search, ctc_prefix_beam_search: searches with the auxiliary CTC head"
)


def option(default: Any, help: str, kind: type, methods: Sequence[str] = METHODS, least: float | None = None) -> Any:
    """Return a field of :class:`SearchOptions` with its command-line option.

    Args:
        default: default value; a tuple for an option that takes several values.
        help: text for ``--help``.
        kind: type of a value.
        methods: searches that have this option.
        least: smallest allowed value.
    """
    return field(default=default, metadata={"help": help, "type": kind, "methods": methods, "least": least})


@dataclass(frozen=True)
class SearchOptions:
    """A search and its options; names and meanings are icefall's."""

    method: str = "greedy_search"
    max_sym_per_frame: int = option(1, "maximum number of tokens per frame (1)", int, ("greedy_search",))
    beam_size: int = option(4, "number of hypotheses (4)", int, BEAM)
    nbest: int = option(
        0,
        "also write the N best hypotheses of each utterance",
        int,
        ("modified_beam_search", "fast_beam_search_nbest", "ctc_prefix_beam_search"),
        least=0,
    )
    beam: float = option(
        FastBeamOptions.beam,
        "hypotheses whose scores are this far below the best one are dropped (20)",
        float,
        FAST_BEAM,
    )
    max_contexts: int = option(
        FastBeamOptions.max_contexts, "maximum number of histories per stream and frame (8)", int, FAST_BEAM, least=1
    )
    max_states: int = option(
        FastBeamOptions.max_states, "maximum number of states per stream and frame (64)", int, FAST_BEAM, least=1
    )
    num_paths: int = option(
        200, "number of paths sampled from the lattice (200)", int, ("fast_beam_search_nbest",), least=1
    )
    nbest_scale: float = option(
        FastBeamOptions.nbest_scale,
        "scale of the scores for sampling (0.5); smaller values give more diverse paths",
        float,
        ("fast_beam_search_nbest",),
    )
    lg: Path | None = option(None, "graph of lexicon and language model, from local/compile_lg.py", Path, FAST_BEAM)
    lg_scale: float = option(0.01, "scale of the log-probabilities of --lg (0.01)", float, FAST_BEAM)
    blank_penalty: float = option(0.0, "subtracted from the blank logit (0); above 0: fewer deletions", float)
    temperature: float = option(1.0, "divisor of the logits (1); above 1: beam searches keep more alternatives", float)
    hotwords_file: Path | None = option(
        None, "words or phrases to prefer, one per line, optionally with a score: HELLO WORLD :2.5", Path, BEAM
    )
    hotwords_score: float = option(1.5, "bonus for each token of a hotword (1.5)", float, BEAM)
    rnn_lm: Path | None = option(None, "RNN language model, trained by local/train_rnn_lm.py", Path, BEAM)
    rnn_lm_scale: float = option(0.3, "scale of the log-probabilities of --rnn-lm (0.3)", float, BEAM)
    ngram_lm: tuple[Path, ...] = option(
        (), "n-gram language models of tokens in ARPA format, e.g. from local/train_ngram.py", Path, BEAM
    )
    ngram_lm_scale: tuple[float, ...] = option(
        (0.2,),
        "scale of the log-probabilities of each --ngram-lm (0.2). For LODR, add a low-order n-gram of the training "
        "transcripts with a negative scale: --rnn-lm lm.pt --ngram-lm transcripts-2gram.arpa --ngram-lm-scale -0.1",
        float,
        BEAM,
    )

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser, nbest: bool = False) -> None:
        """Add the options to a parser; --nbest only for programs that write alternatives."""
        group = parser.add_argument_group("search")
        group.add_argument("--method", "--decoding-method", choices=METHODS, default="greedy_search", help=METHOD_HELP)
        for one in _options():
            if one.name == "nbest" and not nbest:
                continue
            methods = one.metadata["methods"]
            prefix = HELP_PREFIXES.get(methods, f"{', '.join(methods)}: ")
            nargs = "+" if isinstance(one.default, tuple) else None
            help = prefix + one.metadata["help"]
            group.add_argument(f"--{_dashed(one.name)}", type=one.metadata["type"], nargs=nargs, help=help)

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "SearchOptions":
        """Read the options from parsed arguments.

        Raises:
            ValueError: an option does not apply to the method, is too small, or lacks another option.
        """
        given: dict[str, Any] = {"method": args.method}
        for one in _options():
            value = getattr(args, one.name, None)
            if value is None:
                continue
            methods, least = one.metadata["methods"], one.metadata["least"]
            if args.method not in methods:
                raise ValueError(
                    f"--{_dashed(one.name)} applies to --method {', '.join(methods)}, not to {args.method}"
                )
            if least is not None and value < least:
                raise ValueError(f"--{_dashed(one.name)} must be {least} or more")
            if not all(map(math.isfinite, _numbers(value))):
                raise ValueError(f"--{_dashed(one.name)} must be a finite number")
            given[one.name] = tuple(value) if isinstance(one.default, tuple) else value
        for name, file in NEEDED:
            if name in given and file not in given:
                raise ValueError(f"--{_dashed(name)} needs --{_dashed(file)}")
        options = cls(**given)
        if "ngram_lm" in given or "ngram_lm_scale" in given:
            models, scales = len(options.ngram_lm), len(options.ngram_lm_scale)
            if models != scales:
                raise ValueError(
                    f"--ngram-lm has {models} values, --ngram-lm-scale has {scales}: give one scale for each model"
                )
        return options

    def check_lattice(self, rnnt_type: str) -> None:
        """Check that the search fits the lattice of the model's training.

        Raises:
            ValueError: more than one token per frame is allowed, but each token took a frame of its own in training.
        """
        if self.max_sym_per_frame > 1 and rnnt_type != "regular":
            raise ValueError(
                f"--max-sym-per-frame {self.max_sym_per_frame}: this model was trained with --loss.rnnt-type "
                f"{rnnt_type}, at most one token per frame; leave out the option"
            )

    @property
    def label(self) -> str:
        """Label of the options, at most 120 bytes, for file names: ``beam-size-4-temperature-1.2``."""
        parts = []
        for one in _options():
            value = getattr(self, one.name)
            always = one.name == "beam_size" and self.method in BEAM
            if always or (value != one.default and one.name != "nbest"):
                values = value if isinstance(value, tuple) else (value,)
                parts += [_dashed(one.name), *map(_short, values)]
        return shortened("-".join(parts), MAX_LABEL_BYTES)

    def build(self, model: TransducerParts, tokenizer: Tokenizer, record_margins: bool = False) -> Search:
        """Make the search.

        Raises:
            ValueError, OSError, ImportError: the value of an option is invalid, its file is missing or invalid, or its
                method needs k2, which is missing.
        """
        unk_id, scaling = tokenizer.unk_id, Scaling(self.blank_penalty, self.temperature)
        if self.method == "greedy_search":
            return GreedySearch(model, self.max_sym_per_frame, unk_id, record_margins, scaling)
        if self.method in NEED_MODEL:
            if not isinstance(model, Transducer):
                raise ValueError(f"--method {self.method} needs the trained model, not an exported one")
            if self.method == "ctc_greedy_search":
                return CTCGreedySearch(model, unk_id, record_margins, scaling)
            if self.method in FAST_BEAM:
                num_paths = self.num_paths if self.method == "fast_beam_search_nbest" else 0
                options = FastBeamOptions(self.beam, self.max_contexts, self.max_states, num_paths, self.nbest_scale)
                graph = None if self.lg is None else read_lg(self.lg, tokenizer.tokens, self.lg_scale)
                return FastBeamSearch(model, options, graph, unk_id, record_margins, scaling)
        scorers: list[TokenScorer] = []
        if self.hotwords_file:
            scorers.append(ContextGraph(read_hotwords(self.hotwords_file, tokenizer, self.hotwords_score)))
        if self.rnn_lm:
            lm = load_rnn_lm(self.rnn_lm, tokenizer.tokens).to(model.device)
            scorers.append(RnnLMScorer(lm, self.rnn_lm_scale))
        for path, scale in zip(self.ngram_lm, self.ngram_lm_scale, strict=False):
            scorers.append(NgramLM(path, tokenizer.tokens, scale))
        beam_search = ModifiedBeamSearch if self.method == "modified_beam_search" else CTCPrefixBeamSearch
        return beam_search(model, self.beam_size, unk_id, record_margins, scaling, scorers)


def _options() -> list[Field[Any]]:
    """Return the fields of :class:`SearchOptions`, except the method."""
    return [one for one in fields(SearchOptions) if one.name != "method"]


def _numbers(value: Any) -> list[float]:
    """The numbers among the values of an option."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int | float)]


def _short(value: Any) -> str:
    """Format a value for a label; a file gives its name with a hash of its content."""
    if not isinstance(value, Path):
        return str(value)
    return f"{value.name.partition('.')[0][:20]}-{_hash_of(value)}"


@cache
def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    add_content(digest, path)
    return digest.hexdigest()[:6]


def _dashed(name: str) -> str:
    return name.replace("_", "-")
