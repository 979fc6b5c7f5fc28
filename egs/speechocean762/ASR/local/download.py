#!/usr/bin/env python3
"""Download speechocean762 (OpenSLR 101), unless DL_DIR/speechocean762 exists.

Run the same command again to continue an interrupted download.
"""

from summarymix.data.download import fetch_command

if __name__ == "__main__":
    # Kaldi's recipe gop_speechocean762 checks this size; no checksum is published.
    fetch_command(
        __doc__,
        "101/speechocean762.tar.gz",
        "speechocean762",
        num_bytes=520_810_923,
        md5=None,
        unpacked_bytes=700_000_000,
    )
