"""Reading and writing lhotse manifests (``.jsonl.gz``: one JSON object a line)."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from lhotse import CutSet

from summarymix.files import atomic_write


class _Item(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def write_manifest(items: Iterable[_Item], path: Path) -> int:
    """Write recordings, supervisions or cuts to ``path`` and return their number.

    lhotse's own writers leave half a file behind when they are killed, and their gzip header holds the time.
    This writes whole files, and the same bytes for the same items.
    """
    count = 0
    with (
        atomic_write(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        for item in items:
            packed.write(json.dumps(item.to_dict(), ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def cuts_path(manifest_dir: Path | str, prefix: str, split: str | None) -> Path:
    """Where the cuts of a split are, ``{prefix}_cuts_{split}.jsonl.gz``; of noise, which has no splits, without it."""
    return Path(manifest_dir) / f"{prefix}_cuts{f'_{split}' if split else ''}.jsonl.gz"


def read_cuts(path: Path) -> CutSet:
    """Open the cuts lazily: nothing is held in memory, every iteration reads the file anew.

    Raises:
        FileNotFoundError: there is no such file; the message lists the splits that there are.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*_cuts_*.jsonl.gz"))
        raise FileNotFoundError(
            f"No manifest {path}. In that folder there are: {', '.join(there) or 'none'}. "
            "Run ./prepare.sh, or correct --data.manifest_dir, --data.prefix or the names of the splits"
        )
    return CutSet.from_jsonl_lazy(path)
