"""Cuts with their data in a few large files: lhotse's Shar format, on disk or at a URL.

A split is a folder of shards. A shard is ``cuts.NNNNNN.jsonl.gz`` and a tar file for each kind of data, such as
``features.NNNNNN.tar``. lhotse's ``CutSet.from_shar`` reads cuts and data from front to back. Training here does not:
cuts carry the location of their data in the tar files, batches are drawn from the index of the cuts, as from any
manifest, and a batch's bytes are fetched when it is loaded.

So batches are the same as without Shar, every cut comes once an epoch for any number of processes, a process reads only
the batches that it trains on, also after resuming, and no shuffle buffer takes memory. Reading from front to back would
only save requests, whose latency does not limit training: those of a batch are in flight together, over connections
that stay open, and workers read ahead.
"""

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lhotse import CutSet
from lhotse.cut import Cut, MixedCut
from lhotse.shar import SharWriter
from lhotse.shar.utils import fill_shar_placeholder
from lhotse.utils import fastcopy
from tqdm import tqdm

from summarymix.data.cuts import audio_files, features_file, parts, unreadable_cut
from summarymix.data.lines import run_in_order
from summarymix.data.manifests import CutManifest, CutSource, check_manifest, cuts_path, write_manifest
from summarymix.data.names import check_name
from summarymix.data.remote_files import AT_A_TIME, Span, read_bytes, read_many
from summarymix.data.skipped import SkippedItems, described
from summarymix.files import GZIP_ERRORS, add_content, atomic_write, check_own, is_disk_error, read_surely, remove_own

Field = Literal["features", "recording"]

# Key in a cut's custom data for the tar file and bytes of its features or audio.
_PLACE = "shar"

# Shards whose cuts are read ahead for the processes.
_SHARDS_AHEAD = 100

# The cuts are not read again while the manifest is the same.
_REMEDY = "restore the file, then remove the .done files in the output folder and export again"

# Files of a split's folder, and of one that is being written.
_FILES = r"(cuts|features|recording)\.\d{6}\.(jsonl\.gz|tar)|\.\d{6}\.(tsv|part)|\..*\.part"


def export_split(
    manifest_dir: Path,
    prefix: str,
    split: str,
    out_dir: Path,
    fields: dict[Field, str],
    shard_size: int,
    executor: Executor,
) -> SkippedItems:
    """Write ``{out_dir}/{split}/*`` and then ``{out_dir}/{split}.json``, which lists them.

    A call after an interrupted one reuses its complete shards. The same cuts give the same bytes.

    Args:
        manifest_dir: folder of ``{prefix}_cuts_{split}.jsonl.gz``.
        prefix: name of the corpus.
        split: name of the split.
        out_dir: output folder.
        fields: kinds of data to export, with their formats: ``features`` as lhotse's ``numpy`` (exact) or ``lilcom``,
            ``recording`` as ``flac``, ``opus`` or ``wav``.
        shard_size: cuts in a shard.
        executor: runs the shards.

    Returns:
        The cuts whose data cannot be read. They are also listed in ``{out_dir}/skipped-{split}-shar.tsv``.

    Raises:
        FileNotFoundError: the manifest is missing.
        ValueError: a cut lacks the data to export, or no cut is left.
        FileExistsError: the split's folder has files that are not from an export, or is that of another corpus.
    """
    manifest, out_dir = check_manifest(cuts_path(manifest_dir, prefix, split)), Path(out_dir)
    index, listing = out_dir / f"{split}.json", out_dir / f"skipped-{split}-shar.tsv"
    if (other := _corpus_of(index)) not in (None, prefix):
        raise FileExistsError(f"{index} is the export of {other}: choose another --out-dir for {prefix}")
    fingerprint = _fingerprint(manifest, fields, shard_size)
    done = out_dir / f".{split}.done"
    if index.exists() and done.exists() and done.read_text() == fingerprint:
        return SkippedItems.read(listing)

    check_own(out_dir / split, _FILES)
    work_dir = out_dir / f".{split}-{fingerprint}.part"
    work = partial(_export_shard, manifest=manifest, folder=work_dir, fields=fields, shard_size=shard_size)
    shards = enumerate(CutManifest(manifest).blocks(shard_size))
    counts = list(tqdm(run_in_order(executor, work, shards, _SHARDS_AHEAD), f"{split}: shards", disable=None))
    names = [f"{number:06d}" for number in range(len(counts))]
    skipped = SkippedItems()
    for name in names:
        skipped.extend(SkippedItems.read(work_dir / f".{name}.tsv").items)
        (work_dir / f".{name}.tsv").unlink()
    skipped.write(listing)
    if len(skipped) == sum(counts):
        raise ValueError(f"No cut of {manifest} can be read; the reasons are in {listing}")
    done.unlink(missing_ok=True)
    index.unlink(missing_ok=True)
    remove_own(out_dir / split, _FILES)
    work_dir.rename(out_dir / split)
    _write_index(index, prefix, out_dir / split, fields)
    with atomic_write(done) as file:
        file.write(fingerprint)
    for stale in out_dir.glob(f".{split}-{'?' * len(fingerprint)}.part"):
        remove_own(stale, _FILES)
    return skipped


def _fingerprint(manifest: Path, fields: dict[Field, str], shard_size: int) -> str:
    # With the modification time, because recomputed features may have the same manifest.
    checksum = hashlib.sha256(json.dumps([fields, shard_size, manifest.stat().st_mtime_ns]).encode())
    add_content(checksum, manifest)
    return checksum.hexdigest()[:16]


def _write_index(index: Path, prefix: str, folder: Path, fields: Iterable[Field]) -> None:
    """Write the name of the corpus and the list of a folder's shards."""
    manifests = sorted(folder.glob("cuts.*"))
    checksum = hashlib.blake2b(digest_size=8)
    for path in manifests:
        checksum.update(path.read_bytes())
    about = {"prefix": prefix, "fields": sorted(fields), "checksum": checksum.hexdigest()}
    listed = {**about, "cuts": [path.name for path in manifests]}
    with atomic_write(index) as file:
        json.dump(listed, file, indent=1)


def _corpus_of(index: Path) -> str | None:
    """The name of the corpus in an index; None without one, as in exports by earlier versions."""
    with suppress(FileNotFoundError, ValueError, AttributeError):
        return json.loads(index.read_text(encoding="utf-8")).get("prefix")
    return None


def index_location(base: str, split: str) -> str:
    """The path or URL of the list of a split's shards."""
    return f"{base}/{check_name(split, 'the split')}.json"


def read_shar(base: str, prefix: str, split: str, field: Field) -> "SharCuts":
    """Open the cuts of a split lazily, with the locations of one kind of data; :func:`read_data` reads the data.

    Args:
        base: folder or URL with the output of :func:`export_split`.
        prefix: name of the corpus.
        split: name of the split.
        field: kind of data to read.

    Raises:
        FileNotFoundError: the split does not exist.
        ValueError: the split was exported without this field or from another corpus, or there is another file.
    """
    location = index_location(base, split)
    try:
        content = read_bytes(location)
    except OSError as error:
        raise FileNotFoundError(
            f"No Shar index {location} ({error}): make it with local/export_shar.py, or correct --data.shar_dir or the "
            "names of the splits"
        ) from error
    try:
        index = json.loads(content)
        corpus = index.get("prefix", prefix)  # earlier exports do not name it
        fields, shards = list(index["fields"]), tuple(index["cuts"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{location} is no index by local/export_shar.py ({described(error)}): it begins with {content[:40]!r}. "
            "Correct --data.shar_dir, or export again"
        ) from error
    if corpus != prefix:
        raise ValueError(f"{location} is the export of {corpus}, not of {prefix}: correct the prefix or shar_dir")
    if field not in fields:
        option = {"recording": "--data.on_the_fly true", "features": "--data.on_the_fly false"}[field]
        raise ValueError(
            f"{location} has no {field}, only {', '.join(fields)}: {option} needs an export with --{field}"
        )
    checksum = hashlib.blake2b(content, digest_size=8).hexdigest()
    return SharCuts(f"{base}/{split}", shards, field, checksum)


def read_data(cuts: Iterable[Cut]) -> "Contents":
    """Read the data of cuts from :func:`read_shar`, several at a time; errors are raised by :func:`with_data`."""
    places = {place: None for cut in cuts for part in parts(cut) if (place := place_in_shar(part))}
    contents = read_many([Span(place.tar, place.offset, place.size) for place in places])
    return dict(zip(places, contents, strict=True))


def with_data(cut: Cut, contents: "Contents") -> Cut:
    """A cut from :func:`read_shar` with its data in memory; any other cut is returned unchanged.

    Args:
        cut: the cut.
        contents: result of :func:`read_data` for this cut and others.

    Raises:
        OSError: the data could not be read.
    """
    if isinstance(cut, MixedCut):
        return fastcopy(cut, tracks=[fastcopy(track, cut=with_data(track.cut, contents)) for track in cut.tracks])
    place = place_in_shar(cut)
    if place is None:
        return cut
    content = contents[place]
    if isinstance(content, Exception):
        raise content
    manifest = getattr(cut, place.field)
    # A copy, because lhotse fills in the bytes in place.
    manifest = fastcopy(manifest, sources=[fastcopy(manifest.sources[0])]) if place.is_audio else fastcopy(manifest)
    fill_shar_placeholder(manifest, content, place.tar + place.suffix)
    return fastcopy(cut, **{place.field: manifest})


@dataclass(frozen=True)
class Place:
    """The location of a cut's data in a tar file."""

    field: Field
    tar: str
    offset: int
    size: int
    suffix: str  # suffix of the file in the tar, which shows the format

    @property
    def is_audio(self) -> bool:
        """True if the data are audio."""
        return self.field == "recording"

    def __str__(self) -> str:
        return f"{self.tar}, byte {self.offset}"


Contents = Mapping[Place, bytes | Exception]
"""The data at places of tar files, or why they could not be read."""


def place_in_shar(cut: Cut) -> Place | None:
    """The location of the data of a cut from :func:`read_shar`; None for any other cut."""
    return (cut.custom or {}).get(_PLACE)


@dataclass(frozen=True)
class SharCuts(CutSource):
    """The cuts of a split, from front to back."""

    folder: str
    shards: tuple[str, ...]
    field: Field
    checksum: str

    @property
    def location(self) -> str:
        return self.folder

    def mark(self) -> str:
        """A checksum of the index, which holds one of the shards' cuts."""
        return self.checksum

    def lines(self) -> Iterator[bytes]:
        for begin in range(0, len(self.shards), AT_A_TIME):
            shards = self.shards[begin : begin + AT_A_TIME]
            contents = read_many([Span(f"{self.folder}/{shard}") for shard in shards])
            for shard, content in zip(shards, contents, strict=True):
                if isinstance(content, Exception):
                    raise content
                try:
                    lines = gzip.decompress(content)
                except GZIP_ERRORS as error:
                    raise ValueError(f"{self.folder}/{shard} is damaged ({error}): copy or export it again") from error
                yield from lines.splitlines(keepends=True)

    def parse(self, line: bytes) -> Cut:
        cut = super().parse(line)
        tar, offset, size, suffix = cut.custom[_PLACE][self.field]
        cut.custom = {**cut.custom, _PLACE: Place(self.field, f"{self.folder}/{tar}", offset, size, suffix)}
        return cut


def _export_shard(
    shard: tuple[int, list[bytes]], manifest: Path, folder: Path, fields: dict[Field, str], shard_size: int
) -> int:
    """Write a shard, unless that is done, of lines of the manifest, and return their number."""
    number, lines = shard
    name = f"{number:06d}"
    packed, listing = folder / f"cuts.{name}.jsonl.gz", folder / f".{name}.tsv"
    if listing.exists():
        return len(lines)
    cuts = list(CutManifest(manifest).parse_all(lines, number * shard_size))
    for field in fields:
        if lacking := next((cut for cut in cuts if not getattr(cut, f"has_{field}")), None):
            raise ValueError(f"The cut {lacking.id} of {manifest} has no {field}: add the data, or set --{field} none")
    partial_dir = folder / f".{name}.part"
    remove_own(partial_dir, _FILES)
    partial_dir.mkdir(parents=True)
    skipped = SkippedItems()
    data = " or ".join("audio" if field == "recording" else field for field in fields)
    parts_to_load = {"load_audio": "recording" in fields, "load_features": "features" in fields, "load_custom": False}
    writer = SharWriter(partial_dir, fields, shard_size=None, shard_suffix=f".{name}", warn_unused_fields=False)
    with writer:
        for cut in cuts:
            stored = [features_file(cut)] if "features" in fields else []
            audio = audio_files(cut) if "recording" in fields else []
            try:
                # Load all data first: once a part is written, the cut can no longer be left out.
                whole = read_surely(partial(cut.move_to_memory, **parts_to_load), [*stored, *audio])
            # The exception for a broken file depends on format and library; its message goes into the list.
            except Exception as error:
                if is_disk_error(error):
                    raise
                skipped.add(unreadable_cut(cut, data, error, _REMEDY, map(str, stored)))
                continue
            writer.write(whole)
    if len(skipped) < len(cuts):
        places = {field: _places(partial_dir / f"{field}.{name}.tar") for field in fields}
        write_manifest((_with_places(cut, places) for cut in CutSet.from_jsonl_lazy(partial_dir / packed.name)), packed)
        for field in fields:
            os.replace(partial_dir / f"{field}.{name}.tar", folder / f"{field}.{name}.tar")
    remove_own(partial_dir, _FILES)
    skipped.write(listing)  # last, because it marks the shard as complete
    return len(lines)


def _places(tar: Path) -> dict[str, list[Any]]:
    """Map each cut's id to the location of its data: tar file name, first byte, number of bytes, suffix."""
    places = {}
    with tarfile.open(tar) as archive:
        for member in archive.getmembers()[::2]:  # each data file is followed by its manifest
            cut_id, _, suffix = member.name.rpartition(".")
            places[cut_id] = [tar.name, member.offset_data, member.size, f".{suffix}"]
    return places


def _with_places(cut: Cut, places: dict[Field, dict[str, list[Any]]]) -> Cut:
    """Add the locations of the exported data to a cut, and remove the other data."""
    left_behind: dict[str, None] = {field: None for field in ("features", "recording") if field not in places}
    custom = {**(cut.custom or {}), _PLACE: {field: of_field[cut.id] for field, of_field in places.items()}}
    return fastcopy(cut, custom=custom, **left_behind)
