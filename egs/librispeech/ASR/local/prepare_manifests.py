#!/usr/bin/env python3
"""Make lhotse manifests of parts of LibriSpeech in DL_DIR/LibriSpeech.

The manifests are those of lhotse's prepare_librispeech. But lhotse stops at the first file that it cannot open, drops
missing files silently, believes the headers of truncated ones, lists utterances in file-system order, and leaves half a
manifest when it is killed.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.recipes.librispeech import parse_utterance

from summarymix.data.corpus.recordings import AudioFindings, open_files
from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, separate


def prepare_part(folder: Path, out_dir: Path, num_jobs: int) -> None:
    """Write the recordings and supervisions of one part, and the list of skipped utterances."""
    lines = sorted(
        line for path in folder.rglob("*.trans.txt") for line in path.read_text(encoding="utf-8").splitlines() if line
    )

    findings = AudioFindings(out_dir / "audio")

    def parse(line: str) -> tuple[Recording, SupervisionSegment] | Skipped:
        utterance, _, text = line.partition(" ")
        file = str(folder / Path(*utterance.split("-")[:-1]) / f"{utterance}.flac")
        if not text.strip():
            return Skipped(utterance, file, "empty transcript", "", "restore the .trans.txt in its folder")
        try:
            found = parse_utterance(folder, line, alignments={})
        # The exception for a broken file depends on format and library; its text goes into the list.
        except Exception as error:
            return Skipped(utterance, file, "unreadable audio", f"{error}", "restore the file")
        if found is None:
            return Skipped(utterance, file, "missing audio", "", "unpack the archive again")
        recording = open_files({file: utterance}, 1, findings)[file]
        if isinstance(recording, Skipped):
            return recording
        if file in findings.truncated:
            lengths = f"{recording.duration:.2f} of {findings.truncated[file]:.2f} s"
            return Skipped(utterance, file, "truncated audio", lengths, "unpack the archive again")
        return recording, replace(found[1], duration=recording.duration)

    with ThreadPoolExecutor(num_jobs) as executor:
        utterances, skipped = separate(executor.map(parse, lines))
    skipped.write(out_dir / f"skipped-librispeech-{folder.name}.tsv")
    findings.write(out_dir / f"converted-librispeech-{folder.name}.tsv")
    if not utterances:
        sys.exit(f"{folder}: none of {len(lines)} utterances in *.trans.txt is usable; {skipped.summary()}")
    for kind, items in zip(("recordings", "supervisions"), zip(*utterances, strict=True), strict=True):
        write_manifest(items, out_dir / f"librispeech_{kind}_{folder.name}.jsonl.gz")
    print(f"{folder.name}: {len(utterances)} utterances, {skipped.summary()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", required=True, metavar="PART")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=int, default=4, help="files to open at a time")
    args = parser.parse_args()
    for part in args.parts:
        prepare_part(args.dl_dir / "LibriSpeech" / part, args.out_dir, args.nj)


if __name__ == "__main__":
    main()
