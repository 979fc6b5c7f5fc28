#!/usr/bin/env python3
"""Download speechocean762 (OpenSLR 101), unless it lies in DL_DIR/speechocean762 already.

An interrupted download goes on where it stopped.
"""

from summarymix.data.download import fetch_command

if __name__ == "__main__":
    # The size is the one that Kaldi's recipe gop_speechocean762 checks; no sum is published.
    fetch_command(
        __doc__,
        "101/speechocean762.tar.gz",
        "speechocean762",
        num_bytes=520_810_923,
        md5=None,
        unpacked_bytes=700_000_000,
    )
