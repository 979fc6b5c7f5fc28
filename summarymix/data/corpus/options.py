"""Command line options for the source of a corpus, and its preparation."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from summarymix.data.corpus.base import Corpus, skipped_path
from summarymix.data.corpus.commands import TIMEOUT
from summarymix.data.corpus.kaldi import read_kaldi_corpus
from summarymix.data.corpus.lhotse_manifests import read_lhotse_corpus
from summarymix.data.corpus.lhotse_recipes import LhotseRecipe, prepare_with_lhotse
from summarymix.data.corpus.on_disk import full_disk_explained
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.corpus.report import corpus_report
from summarymix.data.corpus.splits import fill_splits
from summarymix.data.corpus.table import read_table_corpus
from summarymix.data.names import check_name
from summarymix.data.transcripts import Punctuation, TextCase


@dataclass(frozen=True)
class CorpusSource:
    """Source of a corpus and how to read it. Exactly one of the first three fields and ``lhotse_recipe`` is set."""

    table: Path | None
    kaldi_dir: Path | None
    lhotse_manifests: Path | None
    audio_dir: Path
    channel: int | None = None
    text_case: TextCase = "keep"
    command_timeout: float = TIMEOUT
    punctuation: Punctuation = "keep"
    keep_empty: bool = False
    lhotse_recipe: LhotseRecipe | None = None

    def read(self, findings: AudioFindings, lhotse_dir: Path, num_jobs: int = 1) -> Corpus:
        """Read and check the corpus.

        Args:
            findings: gets what is found about the recordings.
            lhotse_dir: folder for the manifests of ``lhotse_recipe``.
            num_jobs: files to open at a time.

        Raises:
            ValueError: the corpus is malformed.
            FileNotFoundError: a file is missing.
        """
        options: dict[str, Any] = {
            "channel": self.channel,
            "text_case": self.text_case,
            "punctuation": self.punctuation,
            "keep_empty": self.keep_empty,
        }
        if self.table is not None:
            return read_table_corpus(self.table, self.audio_dir, findings, num_jobs, **options)
        if self.kaldi_dir is not None:
            return read_kaldi_corpus(
                self.kaldi_dir, self.audio_dir, findings, num_jobs, self.command_timeout, **options
            )
        if self.lhotse_recipe is not None:
            notes = prepare_with_lhotse(self.lhotse_recipe, lhotse_dir, num_jobs)
            options["corpus_dir"] = self.lhotse_recipe.corpus_dir
            corpus = read_lhotse_corpus(lhotse_dir, self.audio_dir, findings, num_jobs, **options)
            corpus.notes = notes + corpus.notes
            return corpus
        assert self.lhotse_manifests is not None
        return read_lhotse_corpus(self.lhotse_manifests, self.audio_dir, findings, num_jobs, **options)

    def absolute(self) -> "CorpusSource":
        """Copy with absolute paths."""
        table, kaldi_dir, lhotse_manifests = (
            None if path is None else path.absolute() for path in (self.table, self.kaldi_dir, self.lhotse_manifests)
        )
        return replace(
            self,
            table=table,
            kaldi_dir=kaldi_dir,
            lhotse_manifests=lhotse_manifests,
            audio_dir=self.audio_dir.absolute(),
            lhotse_recipe=self.lhotse_recipe and self.lhotse_recipe.absolute(),
        )

    @property
    def path(self) -> Path:
        """The table or folder."""
        corpus_dir = self.lhotse_recipe.corpus_dir if self.lhotse_recipe else None
        path = self.table or self.kaldi_dir or self.lhotse_manifests or corpus_dir
        assert path is not None
        return path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`source_of` reads."""
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--table", type=Path, metavar="T.tsv", help=".tsv, .csv or .jsonl with columns audio and text")
    one.add_argument("--kaldi-dir", type=Path, metavar="DIR", help="Kaldi data folder, or a folder with one per split")
    one.add_argument(
        "--lhotse-manifests", type=Path, metavar="DIR", help="folder with recordings and supervisions, or cuts"
    )
    one.add_argument(
        "--lhotse-recipe", metavar="NAME", help="recipe of lhotse that prepares the corpus in --corpus-dir, as aishell"
    )
    parser.add_argument("--corpus-dir", type=Path, metavar="DIR", help="folder of the corpus, for --lhotse-recipe")
    parser.add_argument(
        "--lhotse-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of lhotse's recipe, as languages=en,de (a comma makes a list, also at the end); may be repeated",
    )
    parser.add_argument(
        "--audio-dir",
        type=Path,
        metavar="DIR",
        help="base folder of relative audio paths (default: the table's folder, --corpus-dir, or the current folder)",
    )
    parser.add_argument("--channel", type=int, metavar="N", help="channel to use of multi-channel audio")
    parser.add_argument(
        "--text-case", choices=get_args(TextCase), default="keep", help="case of the transcripts (default: keep)"
    )
    parser.add_argument(
        "--punctuation",
        choices=get_args(Punctuation),
        default="keep",
        help="punctuation of the transcripts; apostrophes and hyphens within words stay (default: keep)",
    )
    parser.add_argument(
        "--keep-empty",
        action="store_true",
        help="an empty transcript means that the recording has no speech: use it, in place of leaving it out",
    )
    parser.add_argument(
        "--command-timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"time that a command in wav.scp may take (default: {TIMEOUT:g})",
    )


def source_of(args: argparse.Namespace) -> CorpusSource:
    """Source given on a command line with :func:`add_source_options`.

    Raises:
        ValueError: an option lacks another.
    """
    if args.lhotse_recipe and not args.corpus_dir:
        raise ValueError(f"--lhotse-recipe {args.lhotse_recipe} needs --corpus-dir DIR, the folder of the corpus")
    if not args.lhotse_recipe and (args.corpus_dir or args.lhotse_option):
        raise ValueError("--corpus-dir and --lhotse-option belong to --lhotse-recipe: name a recipe")
    recipe = None
    if args.lhotse_recipe:
        recipe = LhotseRecipe(args.lhotse_recipe, args.corpus_dir, tuple(args.lhotse_option))
    audio_dir = args.audio_dir or (args.table.parent if args.table else args.corpus_dir or Path())
    return CorpusSource(
        args.table,
        args.kaldi_dir,
        args.lhotse_manifests,
        audio_dir,
        args.channel,
        args.text_case,
        args.command_timeout,
        args.punctuation,
        args.keep_empty,
        recipe,
    )


def prepare_corpus(
    source: CorpusSource, prefix: str, out_dir: Path, num_jobs: int = 1, fill: bool = False
) -> tuple[Corpus, list[str]]:
    """Write the manifests of a corpus and the lists of its report.

    Args:
        source: source of the corpus.
        prefix: name of the corpus in the manifests' file names.
        out_dir: output folder.
        num_jobs: files to open at a time.
        fill: take missing dev and test splits from the training data.

    Returns:
        The corpus, and the lines of the report.

    Raises:
        ValueError: the corpus is malformed, or no utterance can be used.
        FileNotFoundError: a file is missing.
        OSError: there is no room for the temporary files.
    """
    check_name(prefix, "the prefix")
    if source.lhotse_manifests and source.lhotse_manifests.resolve() == out_dir.resolve():
        raise ValueError(f"{out_dir} has the manifests to read: choose another folder to write to")
    with full_disk_explained():
        findings = AudioFindings(Path(out_dir) / "audio" / prefix)
        corpus = source.read(findings, Path(out_dir) / "lhotse" / prefix, num_jobs)
        try:
            if fill and corpus.utterances:
                _fill_splits(corpus, skipped_path(out_dir, prefix))
            corpus.write(prefix, out_dir)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from error
        return corpus, corpus_report(corpus, prefix, out_dir)


def _fill_splits(corpus: Corpus, listing: Path) -> None:
    """Call :func:`fill_splits`; if too few utterances are left, list what was left out and say so."""
    try:
        fill_splits(corpus)
    except ValueError as error:
        if not corpus.skipped.items:
            raise
        corpus.skipped.write(listing)
        raise ValueError(f"{error}. {corpus.skipped.summary()}; see {listing}") from error
