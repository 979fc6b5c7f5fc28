#!/usr/bin/env python3
"""Download missing parts of LibriSpeech (OpenSLR 12) or mini LibriSpeech (OpenSLR 31).

Existing parts in DL_DIR/LibriSpeech are used as they are. Run the same command again to continue an interrupted
download.
"""

import argparse
import sys
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.data.download import OPENSLR, Archive, fetch

MINI = ("dev-clean-2", "train-clean-5")

# Published sizes in bytes, rounded for mini LibriSpeech, and MD5 sums of the archives.
PARTS = {
    "dev-clean": (337926286, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": (314305928, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": (346663984, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": (328757843, "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-100": (6387309499, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": (23049477885, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": (30593501606, "d1a0fd59409feb2c614ce4d30c387708"),
    "dev-clean-2": (126000000, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": (332000000, "5df7d4e78065366204ca6845bb08f490"),
}


def archive(part: str, base_url: str) -> Archive:
    """Published archive of a part."""
    num_bytes, md5 = PARTS[part]
    # FLAC is compressed already, so the unpacked files take as much space as the archive.
    return Archive(f"{base_url}/{31 if part in MINI else 12}/{part}.tar.gz", num_bytes, md5, unpacked_bytes=num_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parts = parser.add_mutually_exclusive_group(required=True)
    parts.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART")
    parts.add_argument("--mini", dest="parts", action="store_const", const=MINI, help=" and ".join(MINI))
    parser.add_argument("--base-url", default=OPENSLR, help="URL of OpenSLR or a mirror (default: %(default)s)")
    args = parser.parse_args()
    try:
        for part in args.parts:
            new = fetch(archive(part, args.base_url), args.dl_dir, f"LibriSpeech/{part}")
            print(f"{args.dl_dir}/LibriSpeech/{part} is there" + ("" if new else " already"))
    except OSError as error:
        sys.exit(f"{part}: {error}")


if __name__ == "__main__":
    with clear_errors("download.py"):
        main()
