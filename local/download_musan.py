#!/usr/bin/env python3
"""Download MUSAN (OpenSLR 17), noise for augmentation, unless DL_DIR/musan exists.

Run the same command again to continue an interrupted download.
"""

from summarymix.data.download import fetch_command

if __name__ == "__main__":
    # The published size is rounded to gigabytes. Unpacked: 109 hours of 16-bit audio at 16 kHz.
    fetch_command(
        __doc__,
        "17/musan.tar.gz",
        "musan",
        num_bytes=11_000_000_000,
        md5="0c472d4fc0c5141eca47ad1ffeb2a7df",
        unpacked_bytes=12_600_000_000,
    )
