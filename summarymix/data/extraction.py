"""Extraction of features: recordings and supervisions become cuts with stored features.

It runs in parallel, can be restarted and is reproducible. Noise for augmentation is extracted from recordings alone.

The cuts are divided into shards. A shard's manifest is written after all of its features, and its name holds a
fingerprint of the cuts, audio files and options. So another run reuses the shards of which all are as before and whose
features are still there, and the number of jobs does not affect the result.
"""

import hashlib
import json
import os
import random
import shutil
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import lhotse
import numpy as np
import torch
from lhotse import Features
from lhotse.cut import Cut
from lhotse.features.io import FeaturesWriter, get_writer
from lhotse.utils import fastcopy, is_module_available
from tqdm import tqdm

from summarymix.cli import say
from summarymix.data.audio import has_small_filter
from summarymix.data.cuts import features_file, load_audio, unreadable_cut
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.data.lines import id_hash, run_in_order
from summarymix.data.manifests import (
    CutManifest,
    cuts_path,
    manifest_path,
    read_items,
    removed_path,
    write_lines_packed,
    write_manifest,
)
from summarymix.data.names import file_name
from summarymix.data.segments import CutLines, Cuts, Segments, check_visible, open_segments
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.files import atomic_write, check_disk_space, check_own, is_disk_error, remove_own

ResultT = TypeVar("ResultT")
Storage = Literal["numpy_files", "lilcom_chunky", "none"]

# The value for lilcom is measured on speech.
_BYTES_PER_VALUE: dict[Storage, float] = {"numpy_files": 4, "lilcom_chunky": 1.2, "none": 0}

LARGE_HOURS = 1000
"""Hours of audio, without copies, from which a disk should not have a file for each cut."""

# Files of a shard and of the cuts' copies, also those whose writing was interrupted.
_SHARD_FILES = (
    r"\.?(\d{5,}-[0-9a-f]{16}\.(jsonl\.gz|tsv)|cuts|[0-9a-f]{16}|\w+\.(jsonl|npy)|options)(\.[0-9a-f]+\.part)?"
)

# Files of features, in folders named by the beginnings of their names.
_FEATURE_FILES = r".+\.(npy|lca)|.{1,3}"

# Shards that wait for a worker, more than any cluster has workers.
_SHARDS_AHEAD = 4000

# Seed of the order of a manifest's cuts. They are shuffled, because training reads manifests from front to back through
# a limited buffer, and neighbours in a corpus share speaker and book.
_ORDER_SEED = 0


@dataclass(frozen=True)
class ExtractionOptions:
    """Options for making the cuts of a split."""

    fbank: FbankOptions = field(default_factory=FbankOptions)
    storage: Storage | None = None
    """One exact file per cut; lhotse's compressed archives (lossy, needs lilcom); or none, for features on the fly.
    By default archives above LARGE_HOURS, otherwise files."""
    speeds: tuple[float, ...] = ()
    """Speeds of additional copies, such as 0.9 and 1.1."""
    shard_size: int = 250


def noise_windows(manifest_dir: Path, prefix: str, parts: Sequence[str], seconds: float) -> list[Cut]:
    """Cut the recordings of ``{prefix}_recordings_{part}.jsonl.gz`` into windows of ``seconds`` without transcripts.

    The remainder of a recording is kept if it is longer than half a window. Recordings without a window are counted.

    Raises:
        FileNotFoundError: a manifest is missing.
        ValueError: a recording has several channels.
    """
    windows: list[Cut] = []
    num_short = 0
    for part in parts:
        path = manifest_path(manifest_dir, prefix, "recordings", part)
        if not path.is_file():
            raise FileNotFoundError(f"No manifest {path}: make it with local/prepare_musan.py, or correct the options")
        for recording in read_items(path):
            if recording.num_channels != 1:
                raise ValueError(
                    f"{path}: recording {recording.id} has {recording.num_channels} channels instead of 1: make the "
                    "manifest again with local/prepare_musan.py, which leaves it out"
                )
            cut = recording.to_cut().cut_into_windows(seconds).filter(lambda window: window.duration > seconds / 2)
            kept = list(cut)
            num_short += not kept
            windows += kept
    if num_short:
        say(f"{prefix}: {num_short} recordings of {seconds / 2:g} s or less are left out")
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
        ValueError: no cut is left, or a copy at another speed would have the id of a cut.
        ImportError: the storage needs a package that is not installed.
        OSError: the disk has too little free space, or another file is in the way.
    """
    recordings, supervisions = (
        manifest_path(manifest_dir, prefix, kind, split) for kind in ("recordings", "supervisions")
    )
    for path in (recordings, supervisions):
        if not path.is_file():
            raise FileNotFoundError(f"No manifest {path}: run ./prepare.sh from the manifest stage on")

    def open_cuts(folder: Path) -> tuple[Cuts, float]:
        cuts = open_segments(recordings, supervisions, folder, executor)
        if options.speeds:
            _check_ids_of_copies(cuts, options.speeds, supervisions)
        return cuts, cuts.seconds

    return _extract(open_cuts, out_dir, prefix, split, options, executor)


def _check_ids_of_copies(cuts: Segments, speeds: Sequence[float], supervisions: Path) -> None:
    """Check that no copy at one of these speeds would have the id of a cut, and replace its features.

    Raises:
        ValueError: one would have it.
    """
    endings = tuple(f"_sp{speed}" for speed in speeds)  # as lhotse names the copies

    def original(id_: str) -> int:
        return id_hash(id_[: id_.rindex("_sp")])

    ids, originals = array("q"), array("q")
    for id_ in cuts.ids():
        ids.append(id_hash(id_))
        if id_.endswith(endings):
            originals.append(original(id_))
    if len(found := np.intersect1d(originals, ids)):
        id_ = next(id_ for id_ in cuts.ids() if id_.endswith(endings) and original(id_) in found)
        source, _, speed = id_.rpartition("_sp")
        raise ValueError(
            f"{supervisions}: {id_} is an utterance, and would be the copy of {source} at speed {speed}: if the corpus "
            f"has copies at other speeds, leave {speed} out of --speed-perturb; otherwise give {id_} another id where "
            "the manifests are made (stage 1 of prepare.sh)"
        )


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
    windows = sorted(noise_windows(manifest_dir, prefix, parts, seconds), key=lambda window: window.id)

    def open_cuts(folder: Path) -> tuple[Cuts, float]:
        seconds = sum(window.duration for window in windows)
        return CutLines.write(windows, folder.absolute() / "windows.jsonl"), seconds

    return _extract(open_cuts, out_dir, prefix, None, options, executor)


def _extract(
    open_cuts: Callable[[Path], tuple[Cuts, float]],
    out_dir: Path,
    prefix: str,
    split: str | None,
    options: ExtractionOptions,
    executor: Executor,
) -> SkippedItems:
    """Make a manifest and its features.

    Args:
        open_cuts: opens the cuts in the order of their ids, with a folder for what this needs; returns them with their
            duration in seconds. They are pickled for each shard.
    """
    out_dir = Path(out_dir)
    manifest = cuts_path(out_dir, prefix, split)
    listing = out_dir / f"skipped-{prefix}{f'-{split}' if split else ''}-audio.tsv"
    suffix = f"_{split}" if split else ""
    shard_dir, feature_dir = out_dir / f"{prefix}_shards{suffix}", out_dir / f"{prefix}_feats{suffix}"
    check_own(shard_dir, _SHARD_FILES)
    shard_dir.mkdir(parents=True, exist_ok=True)
    cuts, seconds = open_cuts(shard_dir / "cuts")
    storage = options.storage or _default_storage(split or prefix, seconds / 3600)
    if storage == "lilcom_chunky" and not is_module_available("lilcom"):
        raise ImportError("--storage lilcom_chunky needs the package lilcom: pip install lilcom, or use numpy_files")
    options = replace(options, storage=storage)
    order = array("i", range(len(cuts) * (1 + len(options.speeds))))
    random.Random(_ORDER_SEED).shuffle(order)
    count = -(-len(order) // options.shard_size)

    def cuts_of(number: int) -> _Shard:
        begin = number * options.shard_size
        return _Shard(number, cuts, options.speeds, order[begin : begin + options.shard_size])

    made_from, wanted = shard_dir / ".options", f"{len(cuts)} cuts, {options}"
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != wanted:
        # No shard can be used again, and features of the same names take the places of theirs.
        manifest.unlink(missing_ok=True)
        for path in shard_dir.glob("[0-9]*"):
            path.unlink()
        remove_own(feature_dir, _FEATURE_FILES)
        with atomic_write(made_from) as file:
            file.write(wanted)
    title = f"{split or prefix}: shards"
    # All of an earlier run are checked before the features of a cut replace those of another with its id.
    written = sorted({int(path.name.split("-")[0]) for path in shard_dir.glob("[0-9]*.jsonl.gz")})
    find = partial(_find_shard, folder=Path.cwd(), shard_dir=shard_dir, options=options)
    checked = _for_each(written, cuts_of, find, executor, f"{title} of an earlier run")
    found = {number: name for number, name in checked.items() if name is not None}
    missing = [number for number in range(count) if number not in found]
    seconds *= (1 + sum(1 / speed for speed in options.speeds)) * len(missing) / max(count, 1)
    num_values = seconds * options.fbank.sample_rate / options.fbank.shift * options.fbank.num_mel_bins
    check_disk_space(out_dir, num_values * _BYTES_PER_VALUE[storage], f"Storing the features of {split or prefix}")
    extract = partial(_extract_shard, folder=Path.cwd(), shard_dir=shard_dir, feature_dir=feature_dir, options=options)
    found |= _for_each(missing, cuts_of, extract, executor, title)
    names = [found[number] for number in range(count)]
    skipped = SkippedItems()
    for name in names:
        skipped.extend(SkippedItems.read(shard_dir / f"{name}.tsv").items)
    skipped.write(listing)
    if len(skipped) == len(order):
        remove_own(shard_dir, _SHARD_FILES)
        raise ValueError(f"No audio of {manifest} can be read; the reasons are in {listing}")
    shards = (CutManifest(shard_dir / f"{name}.jsonl.gz") for name in names)
    removed_path(out_dir, prefix, split).unlink(missing_ok=True)
    write_lines_packed((line for shard in shards for line in shard.lines()), manifest)
    shutil.rmtree(shard_dir / "cuts", ignore_errors=True)
    for path in shard_dir.glob(".*.part"):  # of a run that was killed
        path.unlink()
    return skipped


def _for_each(
    numbers: Sequence[int],
    cuts_of: "Callable[[int], _Shard]",
    work: "Callable[[_Shard], ResultT]",
    executor: Executor,
    title: str,
) -> dict[int, ResultT]:
    """Do the work on the shards with these numbers, with a progress bar; return the results by number."""
    results = run_in_order(executor, work, map(cuts_of, numbers), _SHARDS_AHEAD)
    return dict(tqdm(zip(numbers, results, strict=True), title, len(numbers), disable=None))


@dataclass(frozen=True)
class _Shard:
    """Some of the cuts of a split and of their copies, which are made where they are needed."""

    number: int
    originals: Cuts  # of the whole split
    speeds: Sequence[float]
    chosen: Sequence[int]  # original i is number i; at the k-th speed it is number i + k * len(originals)

    def cuts(self) -> list[Cut]:
        """The cuts of this shard."""
        return [self._cut(*divmod(number, len(self.originals))) for number in self.chosen]

    def _cut(self, copy: int, number: int) -> Cut:
        cut = self.originals[number]
        if not copy:
            return cut
        speed, rate = self.speeds[copy - 1], cut.sampling_rate
        # lhotse changes the speed as if it resampled; the filter of an odd pair of rates takes gigabytes and seconds.
        if not has_small_filter(round(rate * speed), rate):
            raise ValueError(
                f"{cut.recording_id} has {rate} Hz, of which the speed {speed:g} needs a filter of a huge size: leave "
                "that speed out of --speed-perturb, or resample the corpus to 16000 Hz first"
            )
        return cut.perturb_speed(speed)


def _default_storage(name: str, hours: float) -> Storage:
    if hours < LARGE_HOURS:
        return "numpy_files"
    print(
        f"{name}: {hours:,.0f} h, so its features go into compressed archives (--storage lilcom_chunky). Exact files, "
        "one for each utterance (numpy_files), take three times as much room; none computes features in training"
    )
    return "lilcom_chunky"


def _shard_name(shard: _Shard, cuts: Sequence[Cut], folder: Path, options: ExtractionOptions) -> str:
    """Name of the files of a shard with these cuts: its number, and a digest of cuts, audio files and options."""
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for cut in cuts:
        digest.update(json.dumps(cut.to_dict(), sort_keys=True).encode())
        for source in cut.recording.sources:
            if source.type == "file" and os.path.exists(folder / source.source):
                stat = os.stat(folder / source.source)
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return f"{shard.number:05d}-{digest.hexdigest()[:16]}"


def _find_shard(shard: _Shard, folder: Path, shard_dir: Path, options: ExtractionOptions) -> str | None:
    """Return the name of the files of a shard that is done. If it was made of other cuts, or features are missing,
    remove its files.

    Paths are relative to ``folder``, because a worker may have been started elsewhere.
    """
    check_visible(folder / shard_dir)
    name = _shard_name(shard, shard.cuts(), folder, options)
    manifest = folder / shard_dir / f"{name}.jsonl.gz"
    if manifest.exists():
        with_features = (cut for cut in read_items(manifest) if cut.has_features)
        if all((folder / features_file(cut)).exists() for cut in with_features):
            return name
    for path in (folder / shard_dir).glob(f"{shard.number:05d}-*"):
        path.unlink()
    return None


def _extract_shard(shard: _Shard, folder: Path, shard_dir: Path, feature_dir: Path, options: ExtractionOptions) -> str:
    """Compute one shard, and return the name of its files; see :func:`_find_shard`."""
    check_visible(folder / shard_dir)
    cuts = shard.cuts()
    name = _shard_name(shard, cuts, folder, options)
    torch.set_num_threads(1)  # the shards run in parallel
    # A file may be restored with its former size and time, on which the shard's name depends.
    again = f"then remove {shard_dir} and compute the features again (stage 2 of prepare.sh)"
    skipped = SkippedItems()
    kept: list[Cut] = []
    if options.storage == "none":
        kept = list(cuts)
    else:
        extractor = FbankExtractor(options.fbank)
        archive = f"{shard.number:05d}"  # without the fingerprint, so that it depends on the position only
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
                    if is_disk_error(error):
                        raise
                    skipped.add(unreadable_cut(cut, "audio", error, f"restore the file, {again}"))
                    continue
                try:
                    kept.append(_store(cut, features, extractor.options, writer, stored_path))
                except OSError as error:
                    if is_disk_error(error):
                        raise
                    remedy = f"correct this, {again}"
                    skipped.add(Skipped(cut.id, str(writer.storage_path), "unwritable features", f"{error}", remedy))
    skipped.write(folder / shard_dir / f"{name}.tsv")
    write_manifest(kept, folder / shard_dir / f"{name}.jsonl.gz")
    return name


def _compute(cut: Cut, folder: Path, extractor: FbankExtractor) -> tuple[Cut, np.ndarray]:
    if cut.sampling_rate != extractor.options.sample_rate:
        cut = cut.resample(extractor.options.sample_rate)
    samples = load_audio(cut.with_recording_path_prefix(folder))
    return cut, extractor.extract(samples).numpy()  # (T, F)


def _store(cut: Cut, features: np.ndarray, options: FbankOptions, writer: FeaturesWriter, stored_path: Path) -> Cut:
    try:
        # lhotse's own method of storing uses random keys.
        key = writer.write(file_name(cut.id), features)
    except OSError as error:
        if not is_disk_error(error):
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
