#!/usr/bin/env python3
"""Download missing sessions of VoxPopuli, and the annotations of one language, to DL_DIR/voxpopuli.

The sessions are in the original languages (raw_audios/original), as VoxPopuli prescribes for transcribed data; one copy
serves all languages. Existing audio in raw_audios/original or raw_audios/LANG is used as it is.
Run the same command again to continue an interrupted download.
"""

import argparse
import sys
import urllib.request
from pathlib import Path

from lhotse.recipes import voxpopuli
from lhotse.utils import resumable_download
from normalize import LETTERS

from summarymix.cli import clear_errors
from summarymix.data.download import gzip_damage, unpack
from summarymix.files import check_disk_space


def download_annotations(corpus: Path, language: str) -> None:
    """Download ``asr_LANG.tsv.gz``. The file appears when it is complete.

    Raises:
        OSError: the server cannot be reached, or the file is incomplete or damaged.
    """
    name = f"asr_{language}.tsv.gz"
    for path in (corpus / name, corpus / "transcribed_data" / language / name):
        if path.is_file():
            if problem := gzip_damage(path):
                raise OSError(f"{path} is incomplete or damaged ({problem}): delete it")
            print(f"{name} is there")
            return
    partial = corpus / f"{name}.part"
    resumable_download(f"{voxpopuli.DOWNLOAD_BASE_URL}/annotations/asr/{name}", partial)
    if problem := gzip_damage(partial):
        partial.unlink()
        raise OSError(f"{name} has arrived incomplete or damaged ({problem})")
    partial.rename(corpus / name)


def download_sessions(corpus: Path, language: str) -> None:
    """Download and unpack the missing years of ``raw_audios/original``."""
    audio = corpus / "raw_audios"
    if (audio / language).is_dir():
        print(f"{audio / language} is there")
        return
    archives = [audio / f"original_{year}.tar" for year in voxpopuli.YEARS]
    # An archive is deleted after unpacking: a year's folder without its archive is complete.
    missing = [path for path in archives if path.exists() or not _folder(path).is_dir()]
    sizes = {path: _size(_url(path)) for path in missing}
    total = sum(sizes.values())
    if missing:
        print(f"{len(missing)} archives with {total / 1e9:.1f} GB to download to {audio}", flush=True)
        # During unpacking, an archive takes its space twice. Partial downloads take space already.
        there = sum(path.stat().st_size for path in missing if path.exists())
        check_disk_space(audio, total + max(sizes.values()) - there, "VoxPopuli's audio")
    for path in missing:
        resumable_download(_url(path), path, completed_file_size=sizes[path])
        unpack(path, audio)
        path.unlink()


def _folder(archive: Path) -> Path:
    return archive.parent / Path(*archive.stem.split("_"))  # original_2009.tar has original/2009/*.ogg


def _url(archive: Path) -> str:
    return f"{voxpopuli.DOWNLOAD_BASE_URL}/audios/{archive.name}"


def _size(url: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as response:
        return int(response.headers["Content-Length"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dl-dir", type=Path, required=True)
    parser.add_argument("--lang", required=True, choices=list(LETTERS), metavar="LANG")
    args = parser.parse_args()
    corpus = args.dl_dir / "voxpopuli"
    (corpus / "raw_audios").mkdir(parents=True, exist_ok=True)
    try:
        download_annotations(corpus, args.lang)
        download_sessions(corpus, args.lang)
    except OSError as error:
        sys.exit(f"{error}. Run the same command again to continue")


if __name__ == "__main__":
    with clear_errors("download.py"):
        main()
