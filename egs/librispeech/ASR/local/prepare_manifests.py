#!/usr/bin/env python3
"""Make lhotse manifests of parts of LibriSpeech in DL_DIR/LibriSpeech.

The manifests are those of lhotse's prepare_librispeech. But lhotse stops at the first file that it cannot open, drops
missing files silently, believes the headers of truncated ones, lists utterances in file-system order, and leaves half a
manifest when it is killed.
"""

import argparse
import itertools
import sys
from pathlib import Path

from lhotse import Recording, SupervisionSegment

from summarymix.cli import above_zero, clear_errors
from summarymix.data.corpus.recordings import AudioFindings, open_files, unnamed_audio
from summarymix.data.manifests import write_manifest
from summarymix.data.names import printable
from summarymix.data.skipped import Skipped, separate
from summarymix.files import write_list


def prepare_part(folder: Path, out_dir: Path, num_jobs: int) -> None:
    """Write the recordings and supervisions of one part, and the list of skipped utterances."""
    findings = AudioFindings(out_dir / "audio" / folder.name)
    lines = []
    for path in folder.rglob("*.trans.txt"):
        findings.note(path)
        lines += [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    lines.sort()

    transcripts = [(utterance, text.strip()) for utterance, _, text in (line.partition(" ") for line in lines)]
    files = {utterance: str(_file_of(folder, utterance)) for utterance, _ in transcripts}
    recordings = open_files({file: utterance for utterance, file in files.items()}, findings, num_jobs)

    def check(utterance: str, text: str) -> tuple[Recording, SupervisionSegment] | Skipped:
        file = files[utterance]
        recording = recordings[file]
        if not text:
            return Skipped(utterance, file, "empty transcript", "", "restore the .trans.txt in its folder")
        if isinstance(recording, Skipped):
            return recording
        if lengths := findings.truncation(file, recording):
            return Skipped(utterance, file, "truncated audio", lengths, "unpack the archive again")
        return recording, SupervisionSegment(
            id=utterance,
            recording_id=utterance,
            start=0.0,
            duration=recording.duration,
            channel=0,
            language="English",
            speaker=utterance.partition("-")[0],
            text=text,
        )

    utterances, skipped = separate(itertools.starmap(check, transcripts))
    skipped.write(out_dir / f"skipped-librispeech-{folder.name}.tsv")
    findings.write(out_dir / f"converted-librispeech-{folder.name}.tsv")
    if not utterances:
        sys.exit(f"{folder}: none of {len(lines)} utterances in *.trans.txt is usable; {skipped.summary()}")
    for kind, items in zip(("recordings", "supervisions"), zip(*utterances, strict=True), strict=True):
        write_manifest(items, out_dir / f"librispeech_{kind}_{folder.name}.jsonl.gz")
    print(f"{folder.name}: {len(utterances)} utterances, {skipped.summary()}")
    unnamed = unnamed_audio(folder, files.values(), findings)
    listing = out_dir / f"unnamed-audio-librispeech-{folder.name}.txt"
    write_list(listing, [printable(path) for path in unnamed])
    if unnamed:
        print(f"Warning: {len(unnamed)} audio files have no transcript, for example {unnamed[0]}; see {listing}")


def _file_of(folder: Path, utterance: str) -> Path:
    return folder / Path(*utterance.split("-")[:-1]) / f"{utterance}.flac"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", required=True, metavar="PART")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=above_zero(int), default=4, help="files to open at a time")
    args = parser.parse_args()
    for part in args.parts:
        prepare_part(args.dl_dir / "LibriSpeech" / part, args.out_dir, args.nj)


if __name__ == "__main__":
    with clear_errors("prepare_manifests.py"):
        main()
