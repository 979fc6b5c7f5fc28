#!/usr/bin/env python3
"""Installs the k2 that fits this environment's torch, if its authors have built one.

    python tools/install_k2.py [--dry-run]

k2 is optional: the native loss gives the same results. A k2 works only with the very torch, CUDA and Python it
was built for. PyPI has none for a current torch; builds are listed on pages of their own, from which this
program picks the newest that fits and has pip install it.
"""

import argparse
import re
import subprocess
import sys
import urllib.request
from urllib.parse import unquote

import torch
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

PAGES = "https://k2-fsa.github.io/k2"
FROM_SOURCE = f"{PAGES}/installation/from_source.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="only say what would be installed")
    args = parser.parse_args()

    page = f"{PAGES}/{'cuda' if torch.version.cuda else 'cpu'}.html"
    build = build_label(torch.__version__, torch.version.cuda)
    try:
        with urllib.request.urlopen(page, timeout=60) as response:
            listing = response.read().decode()
    except OSError as error:
        sys.exit(f"Cannot read the list of k2's builds, {page}: {error}")
    version = newest_version(listing, build, {str(tag) for tag in sys_tags()})
    if version is None:
        sys.exit(
            f"{page} lists no k2 for {build} and this Python and platform. Install a torch that it lists, or "
            f"build k2 ({FROM_SOURCE}), or stay with the native loss, which needs nothing"
        )
    command = [sys.executable, "-m", "pip", "install", f"k2=={version}", "--find-links", page]
    print(" ".join(command), flush=True)
    if args.dry_run:
        return
    subprocess.run(command, check=True)
    subprocess.run([sys.executable, "-c", "import k2; print('k2 works:', k2.__file__)"], check=True)


def build_label(torch_version: str, cuda: str | None) -> str:
    """What k2's versions call a torch: 2.11.0+cu130 with CUDA 13.0 is ``cuda13.0.torch2.11.0``."""
    return f"{f'cuda{cuda}' if cuda else 'cpu'}.torch{torch_version.partition('+')[0]}"


def newest_version(listing: str, build: str, tags: set[str]) -> str | None:
    """The newest version in a page of wheels for this build and one of the interpreter's tags."""
    versions = []
    for name in set(re.findall(r"k2-[^\s\"'<>/]+\.whl", unquote(listing))):
        _, version, _, wheel_tags = parse_wheel_filename(name)
        if version.local == build and tags & {str(tag) for tag in wheel_tags}:
            versions.append(version)
    return str(max(versions)) if versions else None


if __name__ == "__main__":
    main()
