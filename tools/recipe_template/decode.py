#!/usr/bin/env python3
"""Decode @NAME@: ./decode.py --mode offline streaming --chunk-ms 640 320 --left-chunks 2"""

from summarymix.decoding.cli import main

if __name__ == "__main__":
    main("@NAME@", splits=["@TEST_STRINGS@"])
