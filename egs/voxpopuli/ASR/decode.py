#!/usr/bin/env python3
"""Decode VoxPopuli: ./decode.py --exp-dir exp-en --mode offline streaming --chunk-ms 640 320 --left-chunks 4 -1"""

from summarymix.decoding.cli import main

if __name__ == "__main__":
    main("voxpopuli", splits=["test"])
