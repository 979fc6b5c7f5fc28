"""Extraction of features: recordings and supervisions become cuts with stored features.

It runs in parallel, can be restarted and is reproducible. Noise for augmentation is extracted from recordings alone.

The cuts are divided into shards. A shard's manifest is written after all of its features, and its name holds a
fingerprint of the cuts, audio files and options. So a restarted run reuses finished shards, a run with changed data or
options reuses none, and the number of jobs does not affect the result.
"""

import errno
import gzip
import hashlib
import json
import os
import random
import shutil
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import lhotse
import numpy as np
import torch
from lhotse import CutSet, Features, RecordingSet, SupervisionSet
from lhotse.cut import Cut
from lhotse.features.io import FeaturesWriter, get_writer
from lhotse.utils import fastcopy, is_module_available
from tqdm import tqdm

from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.data.manifests import cuts_path, manifest_path, write_manifest
from summarymix.data.names import file_name
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.files import atomic_write, check_disk_space, check_own, remove_own

Storage = Literal["numpy_files", "lilcom_chunky", "none"]

# The value for lilcom is measured on speech.
_BYTES_PER_VALUE: dict[Storage, float] = {"numpy_files": 4, "lilcom_chunky": 1.2, "none": 0}

# Files of a shard, also of one whose writing was interrupted.
_SHARD_FILES = r"\.?\d{5}-[0-9a-f]{16}\.(jsonl\.gz|tsv)(\.[0-9a-f]+\.part)?"

# Errors of the disk, which concern all cuts.
_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}

# Seed of the order of a manifest's cuts. They are shuffled, because training reads manifests from front to back through
# a limited buffer, and neighbours in a corpus share speaker and book.
_ORDER_SEED = 0


@dataclass(frozen=True)
class ExtractionOptions:
    """Options for making the cuts of a split."""

    fbank: FbankOptions = field(default_factory=FbankOptions)
    storage: Storage = "numpy_files"
    """One exact file per cut; lhotse's compressed archives (lossy, needs lilcom); or none, for features on the fly."""
    speeds: tuple[float, ...] = ()
    """Speeds of additional copies, such as 0.9 and 1.1."""
    shard_size: int = 250


def load_cuts(manifest_dir: Path, prefix: str, split: str) -> CutSet:
    """Load a cut for each supervision in ``{prefix}_{recordings,supervisions}_{split}.jsonl.gz``, with the same id.

    Raises:
        FileNotFoundError: one of the manifests is missing.
    """
    paths = [manifest_path(manifest_dir, prefix, kind, split) for kind in ("recordings", "supervisions")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"No manifest {path}: run ./prepare.sh from the manifest stage on")
    cuts = CutSet.from_manifests(
        recordings=RecordingSet.from_jsonl(paths[0]), supervisions=SupervisionSet.from_jsonl(paths[1])
    )
    return cuts.trim_to_supervisions(keep_overlapping=False).map(_with_id_of_supervision).to_eager()


def noise_windows(manifest_dir: Path, prefix: str, parts: Sequence[str], seconds: float) -> list[Cut]:
    """Cut the recordings of ``{prefix}_recordings_{part}.jsonl.gz`` into windows of ``seconds`` without transcripts.

    The remainder of a recording is kept if it is longer than half a window.

    Raises:
        FileNotFoundError: a manifest is missing.
        ValueError: a recording has several channels.
    """
    windows: list[Cut] = []
    for part in parts:
        path = manifest_path(manifest_dir, prefix, "recordings", part)
        if not path.is_file():
            raise FileNotFoundError(f"No manifest {path}: make it with local/prepare_musan.py, or correct the options")
        for recording in RecordingSet.from_jsonl_lazy(path):
            if recording.num_channels != 1:
                raise ValueError(f"{path}: recording {recording.id} has {recording.num_channels} channels instead of 1")
            windows += recording.to_cut().cut_into_windows(seconds).filter(lambda window: window.duration > seconds / 2)
    return windows


def extract_split(
    manifest_dir: Path, out_dir: Path, prefix: str, split: str, options: ExtractionOptions, executor: Executor
) -> SkippedItems:
    """Make ``{out_dir}/{prefix}_cuts_{split}.jsonl.gz`` and the features it refers to.

    Args:
        manifest_dir: folder of the recordings' and supervisions' manifests.
        out_dir: output folder of cuts and features.
        prefix: name of the corpus.
        split: name of the split.
        options: extraction options.
        executor: runs the shards, here or on other machines. Workers need the same files under the same absolute paths.

    Returns:
        The cuts whose audio cannot be read or whose features cannot be written. They are also listed in
        ``{out_dir}/skipped-{prefix}-{split}-audio.tsv``.

    Raises:
        FileNotFoundError: a manifest is missing.
        ValueError: no cut is left.
        ImportError: the storage needs a package that is not installed.
        OSError: the disk has too little free space, or another file is in the way.
    """
    return _extract(load_cuts(manifest_dir, prefix, split), out_dir, prefix, split, options, executor)


def extract_noise(
    manifest_dir: Path,
    out_dir: Path,
    prefix: str,
    parts: Sequence[str],
    seconds: float,
    options: ExtractionOptions,
    executor: Executor,
) -> SkippedItems:
    """Make ``{out_dir}/{prefix}_cuts.jsonl.gz`` from the :func:`noise_windows` of all parts, as :func:`extract_split`.

    Unreadable windows are listed in ``{out_dir}/skipped-{prefix}-audio.tsv``.
    """
    return _extract(noise_windows(manifest_dir, prefix, parts, seconds), out_dir, prefix, None, options, executor)


def _extract(
    cuts: Iterable[Cut], out_dir: Path, prefix: str, split: str | None, options: ExtractionOptions, executor: Executor
) -> SkippedItems:
    if options.storage == "lilcom_chunky" and not is_module_available("lilcom"):
        raise ImportError("--storage lilcom_chunky needs the package lilcom: pip install lilcom, or use numpy_files")
    out_dir = Path(out_dir)
    cuts = _in_order(cuts, options.speeds)
    shards = [cuts[i : i + options.shard_size] for i in range(0, len(cuts), options.shard_size)]
    manifest = cuts_path(out_dir, prefix, split)
    listing = out_dir / f"skipped-{prefix}{f'-{split}' if split else ''}-audio.tsv"
    suffix = f"_{split}" if split else ""
    shard_dir, feature_dir = out_dir / f"{prefix}_shards{suffix}", out_dir / f"{prefix}_feats{suffix}"
    done = out_dir / f".{prefix}-{split or 'cuts'}.done"
    names = [f"{i:05d}-{_fingerprint(shard, options)}" for i, shard in enumerate(shards)]
    everything = "\n".join(names) + "\n"
    if done.exists() and done.read_text() == everything and manifest.exists():
        return SkippedItems.read(listing)

    check_own(shard_dir, _SHARD_FILES)
    done.unlink(missing_ok=True)
    seconds = sum(
        cut.duration
        for name, shard in zip(names, shards, strict=True)
        if not (shard_dir / f"{name}.jsonl.gz").exists()
        for cut in shard
    )
    num_values = seconds * options.fbank.sample_rate / options.fbank.shift * options.fbank.num_mel_bins
    check_disk_space(
        out_dir, num_values * _BYTES_PER_VALUE[options.storage], f"Storing the features of {split or prefix}"
    )
    shard_dir.mkdir(parents=True, exist_ok=True)
    work = partial(_extract_shard, folder=Path.cwd(), shard_dir=shard_dir, feature_dir=feature_dir, options=options)
    for _ in tqdm(executor.map(work, names, shards), f"{split or prefix}: shards", len(shards), disable=None):
        pass
    skipped = SkippedItems()
    for name in names:
        skipped.extend(SkippedItems.read(shard_dir / f"{name}.tsv").items)
    skipped.write(listing)
    if len(skipped) == len(cuts):
        remove_own(shard_dir, _SHARD_FILES)
        raise ValueError(f"No audio of {manifest} can be read; the reasons are in {listing}")
    with (
        atomic_write(manifest, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        for name in names:
            with gzip.open(shard_dir / f"{name}.jsonl.gz") as shard_file:
                shutil.copyfileobj(shard_file, packed)
    with atomic_write(done) as file:
        file.write(everything)
    remove_own(shard_dir, _SHARD_FILES)
    return skipped


def _with_id_of_supervision(cut: Cut) -> Cut:
    return fastcopy(cut, id=cut.supervisions[0].id)


def _in_order(cuts: Iterable[Cut], speeds: Sequence[float]) -> list[Cut]:
    # Sorted first, because corpora are listed in file-system order.
    originals = sorted(cuts, key=lambda cut: cut.id)
    copies = originals + [cut.perturb_speed(speed) for speed in speeds for cut in originals]
    random.Random(_ORDER_SEED).shuffle(copies)
    return copies


def _fingerprint(cuts: Sequence[Cut], options: ExtractionOptions) -> str:
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for cut in cuts:
        digest.update(json.dumps(cut.to_dict(), sort_keys=True).encode())
        for source in cut.recording.sources:
            if source.type == "file" and os.path.exists(source.source):
                stat = os.stat(source.source)
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _extract_shard(
    name: str, cuts: Sequence[Cut], folder: Path, shard_dir: Path, feature_dir: Path, options: ExtractionOptions
) -> None:
    """Compute one shard. Paths are relative to ``folder``, because a worker may have been started elsewhere."""
    if not (folder / shard_dir).is_dir():
        raise FileNotFoundError(
            f"The worker on {socket.gethostname()} cannot find {folder / shard_dir}: use a disk that all workers mount "
            "under the same path"
        )
    manifest = folder / shard_dir / f"{name}.jsonl.gz"
    if manifest.exists():
        return
    torch.set_num_threads(1)  # the shards run in parallel
    skipped = SkippedItems()
    kept: list[Cut] = []
    if options.storage == "none":
        kept = list(cuts)
    else:
        extractor = FbankExtractor(options.fbank)
        archive = name.split("-")[0]  # without the fingerprint, so that it depends on the position only
        storage_path = feature_dir if options.storage == "numpy_files" else feature_dir / archive
        (folder / storage_path).parent.mkdir(parents=True, exist_ok=True)
        with get_writer(options.storage)(str(folder / storage_path)) as writer:
            # The path as given, relative or absolute, with the suffix that lhotse may have added.
            stored_path = storage_path.with_name(Path(writer.storage_path).name)
            for cut in cuts:
                try:
                    cut, features = _compute(cut, folder, extractor)
                # The exception for a broken file depends on format and library; its message goes into the list.
                except Exception as error:
                    files = " ".join(source.source for source in cut.recording.sources)
                    detail = f"{type(error).__name__}: {error}"
                    skipped.add(Skipped(cut.id, files, "unreadable audio", detail, "restore the file, then run again"))
                    continue
                try:
                    kept.append(_store(cut, features, extractor.options, writer, stored_path))
                except OSError as error:
                    if error.errno in _DISK_ERRORS:
                        raise
                    remedy = "correct this, then remove the split's .done file in the output folder, and run again"
                    skipped.add(Skipped(cut.id, str(writer.storage_path), "unwritable features", f"{error}", remedy))
    skipped.write(folder / shard_dir / f"{name}.tsv")
    write_manifest(kept, manifest)


def _compute(cut: Cut, folder: Path, extractor: FbankExtractor) -> tuple[Cut, np.ndarray]:
    if cut.sampling_rate != extractor.options.sample_rate:
        cut = cut.resample(extractor.options.sample_rate)
    samples = cut.with_recording_path_prefix(folder).load_audio()[0]
    return cut, extractor.extract(samples).numpy()  # (T, F)


def _store(cut: Cut, features: np.ndarray, options: FbankOptions, writer: FeaturesWriter, stored_path: Path) -> Cut:
    try:
        # lhotse's own method of storing uses random keys.
        key = writer.write(file_name(cut.id), features)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise OSError(
            error.errno,
            f"Cannot write the features of {cut.id} to {writer.storage_path} ({error.strerror}). "
            "Correct this and run the same command again: it reuses finished shards",
        ) from error
    return fastcopy(
        cut,
        features=Features(
            type=lhotse.Fbank.name,
            num_frames=features.shape[0],
            num_features=features.shape[1],
            frame_shift=options.shift / options.sample_rate,
            sampling_rate=options.sample_rate,
            start=cut.start,
            duration=cut.duration,
            channels=cut.channel,
            storage_type=writer.name,
            storage_path=str(stored_path),
            storage_key=key,
        ),
    )
