"""Corpora as they are published: archives behind a URL."""

import argparse
import gzip
import hashlib
import shutil
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.utils import resumable_download, safe_extract

from summarymix.files import check_disk_space

OPENSLR = "https://www.openslr.org/resources"


@dataclass(frozen=True)
class Archive:
    """A published ``.tar.gz``."""

    url: str
    num_bytes: int
    """Its size; where it is published in rounded megabytes, about."""
    md5: str | None
    """The sum published beside it. None: there is none; then ``num_bytes`` is exact, and gzip's own sum is checked."""
    unpacked_bytes: int
    """About what comes out of it."""


def fetch(archive: Archive, dl_dir: Path, folder: str) -> bool:
    """Download and unpack, unless ``dl_dir / folder`` is there: what is there is used as it is, and never touched.

    An interrupted download goes on where it stopped. The folder appears whole or not at all.

    Args:
        archive: what to get. Its file stays in ``dl_dir``.
        dl_dir: where it goes.
        folder: what the archive holds, such as ``LibriSpeech/dev-clean``. Other files beside it, such as a license, are
            unpacked as well unless they are there.

    Returns:
        Whether there was anything to do.

    Raises:
        OSError: a server cannot be reached, the disk is too small, or the archive is incomplete or damaged.
    """
    target = dl_dir / folder
    if target.exists():
        return False
    dl_dir.mkdir(parents=True, exist_ok=True)
    file = dl_dir / archive.url.rpartition("/")[2]
    there = file.stat().st_size if file.exists() else 0
    check_disk_space(dl_dir, max(archive.num_bytes - there, 0) + archive.unpacked_bytes, archive.url)
    resumable_download(archive.url, file)
    if problem := _damage(file, archive):
        raise OSError(
            f"{file} is incomplete or damaged ({problem}): run the same command again, to go on where the download "
            "stopped. If that does not help, delete the file first"
        )
    # In the same folder, hence on the same disk: unpacked things are renamed into place, the folder itself last.
    temporary = dl_dir / f".{file.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    with tarfile.open(file) as tar:
        safe_extract(tar, temporary)
    unpacked = temporary / folder
    if not unpacked.is_dir():
        raise OSError(f"{file} holds no {folder}: delete it and run the same command again")
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in [*(path for path in unpacked.parent.iterdir() if path != unpacked), unpacked]:
        if not (target.parent / path.name).exists():
            path.rename(target.parent / path.name)
    shutil.rmtree(temporary)
    return True


def fetch_command(description: str | None, path: str, folder: str, **published: Any) -> None:
    """A command line that fetches an archive of OpenSLR, unless ``folder`` is in its ``--dl-dir`` already.

    Args:
        description: of the command.
        path: of the archive, behind OpenSLR's address or that of a mirror.
        folder: what the archive holds.
        published: the other fields of :class:`Archive`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--base-url", default=OPENSLR, help="of OpenSLR or a mirror of it (default: %(default)s)")
    args = parser.parse_args()
    try:
        new = fetch(Archive(f"{args.base_url}/{path}", **published), args.dl_dir, folder)
    except OSError as error:
        sys.exit(f"{folder}: {error}")
    print(f"{args.dl_dir}/{folder} is there" + ("" if new else " already"))


def _damage(file: Path, archive: Archive) -> str:
    """In what a downloaded file differs from what is published; nothing if in nothing."""
    if archive.md5 is not None:
        found = _md5(file)
        return "" if found == archive.md5 else f"MD5 {found} instead of {archive.md5}"
    if (size := file.stat().st_size) != archive.num_bytes:
        return f"{size} bytes instead of {archive.num_bytes}"
    try:
        with gzip.open(file) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:  # the sum stands at the end
        return f"{error}"
    return ""


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
