#!/usr/bin/env python3
"""Install a package whose wheels, one for each torch, CUDA and Python, are listed on web pages instead of PyPI.

Used by install_k2.sh and install_kaldifeat.sh. From the page for this torch (cpu.html or cuda.html) it installs the
newest wheel built for exactly this environment, without dependencies. It installs nothing from PyPI, whose package k2
is for Python 3.9 and torch 1.13.
"""

import argparse
import platform
import re
import subprocess
import sys
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version


@dataclass(frozen=True)
class Wheel:
    url: str
    version: Version
    """The local part is the build: ``cuda12.6.torch2.6.0`` or ``cpu.torch2.6.0``."""
    tags: frozenset[str]


def main() -> None:
    args = parse_args()
    import torch  # takes seconds; wrong options are reported before

    page = args.page or f"{args.site}/{'cuda' if torch.version.cuda else 'cpu'}.html"
    if "://" not in page:
        page = Path(page).resolve().as_uri()
    try:
        with urllib.request.urlopen(page, timeout=60) as response:
            listing = response.read().decode()
    except OSError as error:
        sys.exit(f"Cannot read {page}, the list of {args.package}'s wheels: {error}. Check the network connection")

    wheels = list_wheels(listing, page, args.package)
    build = build_label(torch.__version__, torch.version.cuda)
    tags = {str(tag) for tag in sys_tags()}
    wheel = newest(wheels, build, tags)
    if wheel is None:
        machine = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
        sys.exit(
            f"{page} lists no {args.package} for {describe(build)} and {machine}. "
            f"For this Python and machine it lists {summary(wheels, tags)}"
        )
    # Without index and dependencies: pip would prefer PyPI's wheel, or install another torch.
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", wheel.url]
    print(" ".join(command), flush=True)
    if not args.dry_run:
        sys.exit(1 if subprocess.run(command).returncode else 0)  # 2 means a wrong option


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("package", help="name of the package")
    parser.add_argument("site", help="address of the folder with cpu.html and cuda.html")
    parser.add_argument("--page", help="address or file of another page that lists wheels, such as a mirror")
    parser.add_argument("--dry-run", action="store_true", help="print the pip command without running it")
    return parser.parse_args()


def build_label(torch_version: str, cuda: str | None) -> str:
    """Build in a wheel's version for a torch: ``cuda13.0.torch2.11.0`` for 2.11.0+cu130 with CUDA 13.0."""
    return f"{f'cuda{cuda}' if cuda else 'cpu'}.torch{torch_version.partition('+')[0]}"


def list_wheels(listing: str, page: str, package: str) -> list[Wheel]:
    """Wheels of ``package`` among the links of an HTML page."""
    wheels = []
    for link in re.findall(r"""href=["']([^"']+\.whl)""", listing):
        try:
            name, version, _, tags = parse_wheel_filename(unquote(link).rpartition("/")[2])
        except InvalidWheelFilename:
            continue
        if name == package and version.local:
            wheels.append(Wheel(urljoin(page, link), version, frozenset(map(str, tags))))
    return wheels


def newest(wheels: list[Wheel], build: str, tags: set[str]) -> Wheel | None:
    """Newest wheel for this build and one of the interpreter's tags; None if there is none."""
    fitting = [wheel for wheel in wheels if wheel.version.local == build and tags & wheel.tags]
    return max(fitting, key=lambda wheel: wheel.version, default=None)


def describe(build: str) -> str:
    """Build in words: ``torch 2.6.0 (CUDA 12.6)`` for ``cuda12.6.torch2.6.0``."""
    device, _, torch_version = build.partition(".torch")
    return f"torch {torch_version} ({device.replace('cuda', 'CUDA ').replace('cpu', 'CPU')})"


def summary(wheels: list[Wheel], tags: set[str], most: int = 5) -> str:
    """List the newest torch versions with wheels, each with its builds (CPU, CUDA 12.6)."""
    kinds: dict[Version, set[str]] = defaultdict(set)
    for wheel in wheels:
        build = re.fullmatch(r"(cpu|cuda[\d.]+)\.torch(\d[\d.]*)", wheel.version.local or "")  # no nightly builds
        if build and tags & wheel.tags:
            kinds[Version(build[2])].add(build[1].replace("cuda", "CUDA ").replace("cpu", "CPU"))
    if not kinds:
        return "nothing"
    newest_first = sorted(kinds, reverse=True)
    shown = [f"torch {version} ({', '.join(sorted(kinds[version]))})" for version in newest_first[:most]]
    return ", ".join(shown) + (f" and {len(kinds) - most} older ones" if len(kinds) > most else "")


if __name__ == "__main__":
    main()
