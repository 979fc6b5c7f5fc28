"""Manifests of a table, without the report of a corpus."""

from pathlib import Path

from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.corpus.table import read_table_corpus
from summarymix.data.skipped import SkippedItems


def prepare_table(table: Path, audio_dir: Path, prefix: str, out_dir: Path, num_jobs: int = 1) -> SkippedItems:
    """Write the manifests of a table; return the rows that were left out."""
    corpus = read_table_corpus(table, audio_dir, AudioFindings(out_dir / "audio"), num_jobs)
    corpus.write(prefix, out_dir)
    return corpus.skipped
