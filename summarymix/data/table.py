"""From a table of audio files and transcripts to lhotse manifests: the way in for any corpus of one's own."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhotse import Recording, SupervisionSegment

from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, SkippedItems

NEEDED_COLUMNS = ("audio", "text")


@dataclass(frozen=True)
class Row:
    """One utterance of a table."""

    audio: Path
    text: str
    id: str
    speaker: str | None
    split: str


def read_table(table: Path, audio_dir: Path) -> Iterator[Row]:
    """Read a ``.tsv``, ``.csv`` or ``.jsonl`` file with the columns audio, text and optionally id, speaker, split.

    Audio paths are relative to ``audio_dir``. The id defaults to the audio path without its suffix, slashes
    replaced by dashes; the split to ``train``.

    Raises:
        ValueError: the kind of file is unknown, or a needed column is missing.
    """
    table = Path(table)
    with open(table, encoding="utf-8", newline="") as file:
        rows: Iterator[dict[str, str]]
        if table.suffix == ".jsonl":
            rows = (json.loads(line) for line in file if line.strip())
        elif table.suffix in (".tsv", ".csv"):
            tabs = table.suffix == ".tsv"
            # In a .tsv a quotation mark is a character like any other.
            rows = csv.DictReader(
                file, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            )
        else:
            raise ValueError(f"{table}: a table is a .tsv, .csv or .jsonl file")
        for number, row in enumerate(rows, start=1):
            for column in NEEDED_COLUMNS:
                if row.get(column) is None:
                    raise ValueError(
                        f"{table}, utterance {number}: no {column!r}. The columns there are: {', '.join(map(str, row))}"
                    )
            yield Row(
                audio=Path(audio_dir) / row["audio"],
                text=" ".join(row["text"].split()),
                id=row.get("id") or str(Path(row["audio"]).with_suffix("")).replace("/", "-"),
                speaker=row.get("speaker") or None,
                split=row.get("split") or "train",
            )


def prepare_table(table: Path, audio_dir: Path, prefix: str, out_dir: Path, num_jobs: int = 1) -> SkippedItems:
    """Write ``{prefix}_recordings_{split}.jsonl.gz`` and ``{prefix}_supervisions_{split}.jsonl.gz`` for every split.

    Returns:
        The rows that were left out: no readable audio, no transcript, or an id that came before. They are also listed
        in ``{out_dir}/skipped-table.tsv``.

    Raises:
        ValueError: the table is malformed, or no row is left.
    """
    skipped = SkippedItems()
    splits: dict[str, list[tuple[Recording, SupervisionSegment]]] = {}
    seen: set[str] = set()
    rows = list(read_table(table, audio_dir))
    # Only headers are read, so threads do.
    with ThreadPoolExecutor(num_jobs) as executor:
        recordings = executor.map(_open, rows)
        for row, recording in zip(rows, recordings, strict=True):
            if row.id in seen:
                problem = Skipped(row.id, str(row.audio), "duplicate id", "", "give every utterance an id of its own")
            elif not row.text:
                problem = Skipped(row.id, str(row.audio), "empty transcript", "", "add the transcript to the table")
            elif isinstance(recording, Skipped):
                problem = recording
            else:
                seen.add(row.id)
                supervision = SupervisionSegment(
                    id=row.id,
                    recording_id=row.id,
                    start=0.0,
                    duration=recording.duration,
                    channel=recording.channel_ids[0],
                    text=row.text,
                    speaker=row.speaker,
                )
                splits.setdefault(row.split, []).append((recording, supervision))
                continue
            skipped.add(problem)
    skipped.write(Path(out_dir) / "skipped-table.tsv")
    if not splits:
        raise ValueError(f"{table}: no utterance of {len(rows)} is left; {skipped.summary()}")
    for split, pairs in splits.items():
        write_manifest((recording for recording, _ in pairs), _path(out_dir, prefix, "recordings", split))
        write_manifest((supervision for _, supervision in pairs), _path(out_dir, prefix, "supervisions", split))
    return skipped


def _path(out_dir: Path, prefix: str, kind: str, split: str) -> Path:
    return Path(out_dir) / f"{prefix}_{kind}_{split}.jsonl.gz"


def _open(row: Row) -> Recording | Skipped:
    if not row.audio.is_file():
        return Skipped(row.id, str(row.audio), "missing audio", "", "restore the file, or correct the table")
    try:
        recording = Recording.from_file(row.audio, recording_id=row.id)
    # What a broken file raises differs between formats and libraries; the text goes into the list.
    except Exception as error:
        return Skipped(row.id, str(row.audio), "unreadable audio", f"{error}", "restore the file")
    if recording.num_samples == 0:
        return Skipped(row.id, str(row.audio), "unreadable audio", "no samples", "restore the file")
    return recording
