#!/usr/bin/env python3
"""Make lhotse manifests of MUSAN (OpenSLR 17), noise for augmentation: DL_DIR/musan/{music,noise,speech}/**/*.wav.

The recordings are those of lhotse's prepare_musan. But lhotse stops at the first file that it cannot open, lists files
in file-system order, and leaves half a manifest when it is killed. Its supervisions (musicians and genres) are not
written, because noise has no transcripts. A recording's id has its folders, because other noise may repeat names.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lhotse import Recording

from summarymix.cli import above_zero, clear_errors
from summarymix.data.corpus.gather import name_of
from summarymix.data.manifests import write_manifest
from summarymix.data.skipped import Skipped, described, separate

PARTS = ("music", "noise", "speech")


def prepare_part(folder: Path, out_dir: Path, num_jobs: int) -> None:
    """Write the recordings of one part, and the list of skipped files."""

    def scan(path: Path) -> Recording | Skipped:
        try:
            recording = Recording.from_file(path, recording_id=name_of(path.relative_to(folder.parent)))
        # The exception for a broken file depends on format and library; its text goes into the list.
        except Exception as error:
            return Skipped(path.stem, str(path), "unreadable audio", described(error), "unpack the archive again")
        if recording.num_channels == 1:
            return recording
        channels = f"{recording.num_channels} channels"
        return Skipped(path.stem, str(path), "several channels", channels, "write one channel, or the mean of all")

    files = sorted(folder.rglob("*.wav"))
    with ThreadPoolExecutor(num_jobs) as executor:
        recordings, skipped = separate(executor.map(scan, files))
    skipped.write(out_dir / f"skipped-musan-{folder.name}.tsv")
    if not recordings:
        sys.exit(f"{folder}: none of {len(files)} *.wav files can be read. --dl-dir must contain musan/{folder.name}")
    write_manifest(recordings, out_dir / f"musan_recordings_{folder.name}.jsonl.gz")
    hours = sum(recording.duration for recording in recordings) / 3600
    print(f"musan {folder.name}: {len(recordings)} recordings, {hours:.2f} h, {skipped.summary()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="default: all three")
    parser.add_argument("--out-dir", type=Path, default=Path("data/manifests"))
    parser.add_argument("--nj", type=above_zero(int), default=4, help="files to open at a time")
    args = parser.parse_args()
    for part in args.parts:
        prepare_part(args.dl_dir / "musan" / part, args.out_dir, args.nj)


if __name__ == "__main__":
    with clear_errors("prepare_musan.py"):
        main()
