#!/usr/bin/env python3
"""Decode speechocean762: ./decode.py --mode offline streaming --chunk-ms 640 320 --left-chunks 4"""

from summarymix.decoding.cli import main

if __name__ == "__main__":
    main("speechocean762", splits=["test"])
