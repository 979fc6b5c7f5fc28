#!/usr/bin/env python3
"""Download parts of LibriSpeech (OpenSLR 12) or mini LibriSpeech (OpenSLR 31) with lhotse, where they are missing.

A part that lies in DL_DIR/LibriSpeech already is used as it is. An interrupted download goes on where it stopped.
"""

import argparse
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, download_librispeech


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", required=True, choices=[*LIBRISPEECH, *MINI_LIBRISPEECH], metavar="PART")
    args = parser.parse_args()
    for part in args.parts:
        folder, archive = args.dl_dir / "LibriSpeech" / part, args.dl_dir / f"{part}.tar.gz"
        # lhotse deletes what it has not marked as complete before it unpacks; a tree without an archive is not its own.
        if folder.is_dir() and not archive.exists():
            print(f"{folder} is there")
            continue
        download_librispeech(args.dl_dir, dataset_parts=part)


if __name__ == "__main__":
    main()
