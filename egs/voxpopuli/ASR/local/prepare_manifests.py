#!/usr/bin/env python3
"""Make lhotse manifests of one language of VoxPopuli, from whole sessions or from segmented audio.

  sessions   DL_DIR/voxpopuli/raw_audios/{LANG or original}/YEAR/SESSION_{LANG or original}.ogg
             DL_DIR/voxpopuli/asr_LANG.tsv.gz
  segmented  DL_DIR/voxpopuli/transcribed_data/LANG/YEAR/ID.ogg
             DL_DIR/voxpopuli/transcribed_data/LANG/asr_{train,dev,test}.tsv

Writes OUT_DIR/voxpopuli-LANG_{recordings,supervisions}_{train,dev,test}.jsonl.gz, skipped-voxpopuli-LANG.tsv and
characters-LANG.tsv. For sessions, the manifests are those of lhotse's prepare_voxpopuli with VoxPopuli's own ids. But
skipped segments are listed, transcripts are normalised, and neither the Internet nor every session is needed.
"""

import argparse
import gzip
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lhotse import Recording, SupervisionSegment
from normalize import LETTERS, CharacterReport, clean, normalize

from summarymix.cli import above_zero, clear_errors
from summarymix.data.audio_length import END_TOLERANCE
from summarymix.data.corpus.recordings import AudioFindings, open_files
from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, SkippedItems

SPLITS = ("train", "dev", "test")

TextKind = Literal["normed", "raw"]
NORMALIZERS: dict[TextKind, Callable[[str, str], str]] = {"normed": normalize, "raw": clean}


@dataclass(frozen=True)
class Segment:
    """One annotated utterance."""

    id: str
    split: str
    audio: Path
    recording_id: str
    start: float  # seconds
    end: float | None  # None: the end of the file
    text: str  # normalised
    speaker: str | None
    gender: str | None


@dataclass(frozen=True)
class Limits:
    """Limits of the segments in train."""

    max_seconds: float
    min_words: int


def read_sessions(corpus: Path, language: str, kind: TextKind, findings: AudioFindings) -> Iterator[Segment | Skipped]:
    """Read the annotation table of whole sessions, and note it in ``findings``."""
    name = f"asr_{language}.tsv.gz"
    tables = [corpus / name, corpus / "transcribed_data" / language / name]
    table = next((path for path in tables if path.is_file()), tables[0])
    channel = language if (corpus / "raw_audios" / language).is_dir() else "original"
    column = {"normed": "normed_text", "raw": "original_text"}[kind]
    findings.note(table)
    for row in _rows(table, "|", ("session_id", "id_", "split", "start_time", "end_time", "speaker_id", column)):
        if isinstance(row, Skipped):
            yield row
            continue
        session = row["session_id"]
        try:
            start, end = float(row["start_time"]), float(row["end_time"])
        except ValueError as error:
            yield Skipped(
                f"{session}-{row['id_']}", str(table), "malformed row", str(error), "download the table again"
            )
            continue
        yield Segment(
            id=f"{session}-{row['id_']}",
            split=row["split"],
            audio=corpus / "raw_audios" / channel / session[:4] / f"{session}_{channel}.ogg",
            recording_id=session,
            start=start,
            end=end,
            text=NORMALIZERS[kind](row[column], language),
            speaker=row["speaker_id"] or None,
            gender=row.get("gender") or None,
        )


def read_segmented(corpus: Path, language: str, kind: TextKind, findings: AudioFindings) -> Iterator[Segment | Skipped]:
    """Read the annotation tables of segmented audio, one per split, and note them in ``findings``."""
    folder = corpus / "transcribed_data" / language
    column = {"normed": "normalized_text", "raw": "raw_text"}[kind]
    for split in SPLITS:
        findings.note(folder / f"asr_{split}.tsv")
        for row in _rows(folder / f"asr_{split}.tsv", "\t", ("id", "split", "speaker_id", column)):
            if isinstance(row, Skipped):
                yield row
                continue
            yield Segment(
                id=row["id"],
                split=row["split"],
                audio=folder / row["id"][:4] / f"{row['id']}.ogg",
                recording_id=row["id"],
                start=0.0,
                end=None,
                text=NORMALIZERS[kind](row[column], language),
                speaker=row["speaker_id"] or None,
                gender=row.get("gender") or None,
            )


def _rows(table: Path, delimiter: str, needed: Iterable[str]) -> Iterator[dict[str, str] | Skipped]:
    if not table.is_file():
        sys.exit(f"No table {table}: run ./prepare.sh from stage 0 on, or correct --dl-dir")
    # Not csv: in these tables, quotation marks are ordinary characters.
    open_table = gzip.open if table.suffix == ".gz" else open
    try:
        with open_table(table, "rt", encoding="utf-8", newline="\n") as file:
            lines = [line.rstrip("\r\n").split(delimiter) for line in file]
    except (EOFError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"{table} cannot be read: {error}. Download it again")
    header = lines[0] if lines else []
    for column in needed:
        if column not in header:
            sys.exit(f"{table} has no column {column!r}, only {', '.join(header)}: download it again")
    for number, values in enumerate(lines[1:], start=2):
        if len(values) == len(header):
            yield dict(zip(header, values, strict=True))
        else:
            detail = f"{len(values)} columns instead of {len(header)}"
            yield Skipped(f"line {number}", str(table), "malformed row", detail, "download the table again")


def prepare(
    segments: Sequence[Segment | Skipped],
    language: str,
    findings: AudioFindings,
    out_dir: Path,
    limits: Limits,
    num_jobs: int,
) -> None:
    """Write the manifests of all splits, the list of skipped segments, and the report on characters.

    Args:
        segments: annotated segments, and skipped rows.
        language: code of the language.
        findings: gets what is found about the recordings.
        out_dir: output folder.
        limits: limits of the segments in train.
        num_jobs: files to open at a time.

    Raises:
        SystemExit: a split has no utterances.
    """
    prefix = f"voxpopuli-{language}"
    files = {str(segment.audio): segment.recording_id for segment in segments if isinstance(segment, Segment)}
    recordings = open_files(files, findings, num_jobs)
    skipped = SkippedItems()
    kept: dict[str, list[tuple[Segment, Recording]]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for segment in segments:
        if isinstance(segment, Skipped):
            skipped.add(segment)
            continue
        recording = recordings[str(segment.audio)]
        if segment.id in seen:
            problem = ("duplicate id", "the first is kept", "download the table again")
        elif segment.split not in SPLITS:
            problem = ("not in a split", f"split {segment.split!r}", "none needed")
        elif not isinstance(recording, Recording):
            problem = (recording.reason, recording.detail, "download or unpack this file again")
        elif segment.end is None and (lengths := findings.truncation(str(segment.audio), recording)):
            problem = ("truncated audio", lengths, "download or unpack this file again")
        elif found := _problem(segment, recording.duration, limits):
            problem = found
        else:
            seen.add(segment.id)
            kept[segment.split].append((segment, recording))
            continue
        skipped.add(Skipped(segment.id, str(segment.audio), *problem))
    listing = out_dir / f"skipped-{prefix}.tsv"
    skipped.write(listing)
    findings.write(out_dir / f"converted-{prefix}.tsv")
    for split, pairs in kept.items():
        if not pairs:
            sys.exit(f"No utterance of {split} is left; {skipped.summary()}; see {listing}")
        hours = _write_split(pairs, language, out_dir / f"{prefix}_{{}}_{split}.jsonl.gz") / 3600
        print(f"{split}: {len(pairs)} utterances, {hours:.2f} hours")
    print(f"{skipped.summary()}; see {listing}")

    characters = CharacterReport(language)
    for segment, _ in itertools.chain.from_iterable(kept.values()):
        characters.add(segment.id, segment.text)
    characters.write(out_dir / f"characters-{language}.tsv")
    print(f"{characters.summary()}; see {out_dir}/characters-{language}.tsv")


def _problem(segment: Segment, file_seconds: float, limits: Limits) -> tuple[str, str, str] | None:
    """Reason, detail and remedy of a segment to skip; None if it is kept."""
    if not segment.text:
        return "empty transcript", "", "--text normed has more transcripts than raw"
    end = _end(segment, file_seconds)
    if not 0 <= segment.start < end or (segment.end or 0) > file_seconds + END_TOLERANCE:
        times = f"{segment.start} to {segment.end} s of {file_seconds} s"
        return "outside its recording", times, "download this file again"
    # The limits do not apply to dev and test, which are scored as published.
    if segment.split == "train" and end - segment.start > limits.max_seconds:
        return "too long for train", f"{end - segment.start:.2f} s", "raise --max-seconds to train on it"
    if segment.split == "train" and len(segment.text.split()) < limits.min_words:
        return "too few words for train", segment.text, "lower --min-words to train on it"
    return None


def _write_split(pairs: Iterable[tuple[Segment, Recording]], language: str, path: Path) -> float:
    """Write both manifests of a split to ``path``, with their kind for ``{}``; return the seconds in it."""
    recordings: dict[str, Recording] = {}
    supervisions = []
    for segment, recording in pairs:
        recordings[recording.id] = recording
        supervisions.append(
            SupervisionSegment(
                id=segment.id,
                recording_id=recording.id,
                start=round(segment.start, ndigits=8),
                duration=round(_end(segment, recording.duration) - segment.start, ndigits=8),
                channel=recording.channel_ids[0],
                language=language,
                speaker=segment.speaker,
                gender=segment.gender,
                text=segment.text,
            )
        )
    for kind, items in (("recordings", recordings.values()), ("supervisions", supervisions)):
        write_manifest(sorted(items, key=lambda item: item.id), path.with_name(path.name.format(kind)))
    return sum(supervision.duration for supervision in supervisions)


def _end(segment: Segment, file_seconds: float) -> float:
    return file_seconds if segment.end is None else min(segment.end, file_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--lang", required=True, choices=list(LETTERS), metavar="LANG")
    parser.add_argument("--segmented", action="store_true", help="use segmented audio")
    parser.add_argument("--text", choices=get_args(TextKind), default="normed", help="raw: with case and punctuation")
    parser.add_argument("--max-seconds", type=float, default=100.0, help="leave longer segments out of train")
    parser.add_argument("--min-words", type=int, default=3, help="leave segments with fewer words out of train")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=above_zero(int), default=4, help="files to open at a time")
    args = parser.parse_args()
    read = read_segmented if args.segmented else read_sessions
    findings = AudioFindings(args.out_dir / "audio" / f"voxpopuli-{args.lang}")
    segments = list(read(args.dl_dir / "voxpopuli", args.lang, args.text, findings))
    prepare(segments, args.lang, findings, args.out_dir, Limits(args.max_seconds, args.min_words), args.nj)


if __name__ == "__main__":
    with clear_errors("prepare_manifests.py"):
        main()
