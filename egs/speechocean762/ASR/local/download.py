#!/usr/bin/env python3
"""Download speechocean762 (OpenSLR 101), unless it lies in DL_DIR/speechocean762 already.

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
    # The size is the one that Kaldi's recipe gop_speechocean762 checks.
    archive = Archive(
        f"{args.base_url}/101/speechocean762.tar.gz", num_bytes=520_810_923, md5=None, unpacked_bytes=700_000_000
    )
    try:
        new = fetch(archive, args.dl_dir, "speechocean762")
    except OSError as error:
        sys.exit(f"speechocean762: {error}")
    print(f"{args.dl_dir}/speechocean762 is there" + ("" if new else " already"))


if __name__ == "__main__":
    main()
