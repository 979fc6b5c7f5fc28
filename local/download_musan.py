#!/usr/bin/env python3
"""Download MUSAN (OpenSLR 17), noise for augmentation, unless it lies in DL_DIR/musan already.

An interrupted download goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from summarymix.data.download import OPENSLR, Archive, fetch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--base-url", default=OPENSLR, help="of OpenSLR or a mirror of it (default: %(default)s)")
    args = parser.parse_args()
    # Published in rounded gigabytes. Unpacked: 109 hours with 16 bits at 16 kHz.
    musan = Archive(
        f"{args.base_url}/17/musan.tar.gz",
        num_bytes=11_000_000_000,
        md5="0c472d4fc0c5141eca47ad1ffeb2a7df",
        unpacked_bytes=12_600_000_000,
    )
    try:
        new = fetch(musan, args.dl_dir, "musan")
    except OSError as error:
        sys.exit(f"musan: {error}")
    print(f"{args.dl_dir}/musan is there" + ("" if new else " already"))


if __name__ == "__main__":
    main()
