"""The command line options that say where a corpus is and how it is read, and the way from there to manifests."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from summarymix.data.corpus.base import Corpus, TextCase
from summarymix.data.corpus.kaldi import read_kaldi_corpus
from summarymix.data.corpus.lhotse_manifests import read_lhotse_corpus
from summarymix.data.corpus.report import corpus_report
from summarymix.data.corpus.splits import fill_splits
from summarymix.data.corpus.table import read_table_corpus


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus is: one of the first three is given."""

    table: Path | None
    kaldi_dir: Path | None
    lhotse_manifests: Path | None
    audio_dir: Path
    channel: int | None = None
    text: TextCase = "keep"

    def read(self, num_jobs: int = 1) -> Corpus:
        """Read and check it.

        Raises:
            ValueError: it is malformed.
            FileNotFoundError: it is not there.
        """
        options: dict[str, Any] = {"channel": self.channel, "text_case": self.text}
        if self.table is not None:
            return read_table_corpus(self.table, self.audio_dir, num_jobs, **options)
        if self.kaldi_dir is not None:
            return read_kaldi_corpus(self.kaldi_dir, self.audio_dir, num_jobs, **options)
        assert self.lhotse_manifests is not None
        return read_lhotse_corpus(self.lhotse_manifests, self.audio_dir, **options)

    def absolute(self) -> "CorpusSource":
        """The same with absolute paths."""
        table, kaldi_dir, lhotse_manifests = (
            None if path is None else path.absolute() for path in (self.table, self.kaldi_dir, self.lhotse_manifests)
        )
        return replace(
            self,
            table=table,
            kaldi_dir=kaldi_dir,
            lhotse_manifests=lhotse_manifests,
            audio_dir=self.audio_dir.absolute(),
        )

    @property
    def path(self) -> Path:
        """The table or folder."""
        path = self.table or self.kaldi_dir or self.lhotse_manifests
        assert path is not None
        return path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`source_of`."""
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--table", type=Path, metavar="T.tsv", help="a .tsv, .csv or .jsonl with columns audio and text")
    one.add_argument("--kaldi-dir", type=Path, metavar="DIR", help="a Kaldi data folder, or train, dev and test in it")
    one.add_argument("--lhotse-manifests", type=Path, metavar="DIR", help="recordings and supervisions, or cuts")
    parser.add_argument(
        "--audio-dir",
        type=Path,
        metavar="DIR",
        help="what relative paths of audio count from (the table's folder; else the current folder)",
    )
    parser.add_argument("--channel", type=int, metavar="N", help="channel to take of audio with several")
    parser.add_argument("--text", choices=get_args(TextCase), default="keep", help="case of the transcripts (keep)")


def source_of(args: argparse.Namespace) -> CorpusSource:
    """The corpus that a command line names."""
    audio_dir = args.audio_dir or (args.table.parent if args.table else Path())
    return CorpusSource(args.table, args.kaldi_dir, args.lhotse_manifests, audio_dir, args.channel, args.text)


def prepare_corpus(
    source: CorpusSource, prefix: str, out_dir: Path, num_jobs: int = 1, fill: bool = False
) -> tuple[Corpus, list[str]]:
    """Write a corpus's manifests and the report on it.

    Args:
        source: the corpus.
        prefix: its name in the manifests' names.
        out_dir: where they go.
        num_jobs: files to open at a time.
        fill: take dev and test out of the training data where there are none.

    Returns:
        The corpus, and the lines of the report.

    Raises:
        ValueError: it is malformed, or nothing of it is left.
        FileNotFoundError: it is not there.
    """
    corpus = source.read(num_jobs)
    try:
        if fill and corpus.utterances:
            fill_splits(corpus)
        corpus.write(prefix, out_dir)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    return corpus, corpus_report(corpus, out_dir)
