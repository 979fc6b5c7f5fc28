#!/usr/bin/env python3
"""Print a file of a corpus that has changed, gone or come since the manifest stage read it, if there is one: audio, or
transcripts that the stage has noted.
"""

import argparse
from pathlib import Path

from summarymix.cli import clear_errors
from summarymix.data.corpus.measured import changed_file
from summarymix.data.names import printable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="+", help="folders with the findings of the manifest stage about the corpus"
    )
    args = parser.parse_args()
    if changed := next(filter(None, map(changed_file, args.folder)), None):
        print(printable(changed))


if __name__ == "__main__":
    with clear_errors("changed_audio.py"):
        main()
