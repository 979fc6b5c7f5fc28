"""Download of published corpora: archives at a URL."""

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

from lhotse.utils import resumable_download

from summarymix.files import add_content, check_disk_space

OPENSLR = "https://www.openslr.org/resources"


@dataclass(frozen=True)
class Archive:
    """A published ``.tar.gz``."""

    url: str
    num_bytes: int
    """Size of the archive; approximate if published in rounded megabytes."""
    md5: str | None
    """Published MD5 sum. None: no sum is published; then ``num_bytes`` is exact, and gzip's checksum is verified."""
    unpacked_bytes: int
    """Approximate size after unpacking."""


def fetch(archive: Archive, dl_dir: Path, folder: str) -> bool:
    """Download and unpack an archive, unless ``dl_dir / folder`` exists; an existing folder is never changed.

    An interrupted download is resumed; a whole archive in ``dl_dir`` needs no server. The folder appears whole or not
    at all.

    Args:
        archive: the archive; its file stays in ``dl_dir``.
        dl_dir: download folder.
        folder: folder in the archive, such as ``LibriSpeech/dev-clean``. Other files next to it, such as a licence, are
            unpacked as well unless they exist.

    Returns:
        True if the archive was unpacked, False if the folder existed.

    Raises:
        OSError: the server cannot be reached, the disk is too small, or the archive is incomplete or damaged.
    """
    target = dl_dir / folder
    if target.exists():
        return False
    dl_dir.mkdir(parents=True, exist_ok=True)
    file = dl_dir / archive.url.rpartition("/")[2]
    there = file.stat().st_size if file.exists() else 0
    check_disk_space(dl_dir, max(archive.num_bytes - there, 0) + archive.unpacked_bytes, archive.url)
    if not there or _damage(file, archive):
        resumable_download(archive.url, file)
        if problem := _damage(file, archive):
            raise OSError(
                f"{file} is incomplete or damaged ({problem}): run the same command again to resume the download. "
                "If that does not help, delete the file first"
            )
    # In the same folder, so on the same disk: unpacked files are renamed into place, the folder itself last.
    temporary = dl_dir / f".{file.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    unpack(file, temporary)
    unpacked = temporary / folder
    if not unpacked.is_dir():
        raise OSError(f"{file} holds no {folder}: delete it and run the same command again")
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in [*(path for path in unpacked.parent.iterdir() if path != unpacked), unpacked]:
        if not (target.parent / path.name).exists():
            path.rename(target.parent / path.name)
    shutil.rmtree(temporary)
    return True


def unpack(file: Path, folder: Path) -> None:
    """Unpack the files and folders of a tar archive into ``folder``.

    Raises:
        OSError: the archive is damaged, or has a link, a device or a name that leads out of ``folder``; what came
            before it is unpacked.
    """
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                path = (folder / member.name).resolve()
                if not (member.isfile() or member.isdir()) or not path.is_relative_to(folder.resolve()):
                    raise tarfile.TarError(f"{member.name} is a link or device, or leads out of the folder")
                tar.extract(member, folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise OSError(
            f"{file} is damaged or no archive of a corpus ({error}): delete it, and download it again"
        ) from error


def fetch_command(description: str | None, path: str, folder: str, **published: Any) -> None:
    """Run a command line that fetches an archive of OpenSLR, unless ``folder`` is in its ``--dl-dir`` already.

    Args:
        description: help text of the command.
        path: path of the archive below the base URL of OpenSLR or a mirror.
        folder: folder in the archive.
        published: the other fields of :class:`Archive`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--base-url", default=OPENSLR, help="URL of OpenSLR or a mirror (default: %(default)s)")
    args = parser.parse_args()
    try:
        new = fetch(Archive(f"{args.base_url}/{path}", **published), args.dl_dir, folder)
    except OSError as error:
        sys.exit(f"{folder}: {error}")
    print(f"{args.dl_dir}/{folder} is there" + ("" if new else " already"))


def _damage(file: Path, archive: Archive) -> str:
    """The difference between a downloaded file and the published archive; empty if they match."""
    if archive.md5 is not None:
        found = _md5(file)
        return "" if found == archive.md5 else f"MD5 {found} instead of {archive.md5}"
    if (size := file.stat().st_size) != archive.num_bytes:
        return f"{size} bytes instead of {archive.num_bytes}"
    return gzip_damage(file)


def gzip_damage(file: Path) -> str:
    """Read a gzip file to its end, where its checksum is, and return the fault; empty if it is whole."""
    try:
        with gzip.open(file) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    return ""


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    add_content(digest, file)
    return digest.hexdigest()
