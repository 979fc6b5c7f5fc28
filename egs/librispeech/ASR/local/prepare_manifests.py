#!/usr/bin/env python3
"""Make lhotse manifests of the parts of LibriSpeech that lie in DL_DIR/LibriSpeech.

The same as lhotse's prepare_librispeech, which however ends at the first file that it cannot open, forgets missing
ones, lists utterances in the order of the file system, and leaves half a manifest behind when it is killed.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lhotse import Recording, SupervisionSegment
from lhotse.recipes.librispeech import parse_utterance

from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, separate


def prepare_part(folder: Path, out_dir: Path, num_jobs: int) -> None:
    """Write the recordings and supervisions of one part, and a list of what is left out."""
    lines = sorted(
        line for path in folder.rglob("*.trans.txt") for line in path.read_text(encoding="utf-8").splitlines() if line
    )

    def parse(line: str) -> tuple[Recording, SupervisionSegment] | Skipped:
        utterance, _, text = line.partition(" ")
        file = str(folder / Path(*utterance.split("-")[:-1]) / f"{utterance}.flac")
        if not text.strip():
            return Skipped(utterance, file, "empty transcript", "", "restore the .trans.txt beside it")
        try:
            found = parse_utterance(folder, line, alignments={})
        # What a broken file raises differs between formats and libraries; the text goes into the list.
        except Exception as error:
            return Skipped(utterance, file, "unreadable audio", f"{error}", "restore the file")
        return found or Skipped(utterance, file, "missing audio", "", "unpack the archive again")

    with ThreadPoolExecutor(num_jobs) as executor:
        utterances, skipped = separate(executor.map(parse, lines))
    skipped.write(out_dir / f"skipped-librispeech-{folder.name}.tsv")
    if not utterances:
        sys.exit(f"{folder}: no utterance of {len(lines)} in *.trans.txt is good; {skipped.summary()}")
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
