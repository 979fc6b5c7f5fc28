"""Check cuts before training."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import lhotse.qa
import numpy as np
from lhotse import Recording
from lhotse.cut import Cut
from numpy.typing import NDArray

from summarymix.data.audio_file import open_audio
from summarymix.data.corpus.measured import Measured
from summarymix.data.cuts import IF_NO_SPEECH, audio_files, features_file, has_no_speech, transcript
from summarymix.data.lines import id_hash, run_in_order
from summarymix.data.manifests import (
    CutManifest,
    check_manifest,
    cuts_path,
    naming_line,
    removed_path,
    write_lines_packed,
)
from summarymix.data.skipped import Skipped, SkippedItems

# Lines that a process checks at a time, and blocks of them that wait for each process.
_BLOCK = 1000
_BLOCKS_AHEAD = 4

# Hashes are sorted in parts, because sorting takes several times their memory.
_PARTS = 16


class MeasuredBefore(Protocol):
    """Files as preparation has found them."""

    def get(self, path: str, /) -> Measured | None:
        """Return the findings in a file, or None."""


NOTHING_MEASURED: Mapping[str, Measured] = MappingProxyType({})

Problem = tuple[str, str, str]
"""Reason, detail and remedy."""


@dataclass(frozen=True)
class Validated:
    """Findings in a split."""

    skipped: SkippedItems
    """The cuts removed by this check and by earlier ones."""
    seconds: NDArray[np.float64]
    """Duration of each cut that is left."""
    speakers: Set[str]
    """Speakers of the cuts that are left."""


def validate_split(
    manifest_dir: Path, prefix: str, split: str, num_jobs: int = 1, measured: MeasuredBefore = NOTHING_MEASURED
) -> Validated:
    """Check every cut of a split and remove bad ones from its manifest.

    Each cut needs a unique id, a transcript, consistent times and numbers of frames, and the file of its features. Each
    audio file must open, have the sample rate and number of samples in the manifest, and be readable to its end.

    The manifest is read several times, because the cuts of a large corpus do not fit into memory.

    Args:
        manifest_dir: folder of the cuts.
        prefix: name of the corpus.
        split: name of the split.
        num_jobs: processes that check cuts, and threads that open files.
        measured: files as preparation has found them; those of the same size and time are not read again.

    Returns:
        The cuts removed, which ``{manifest_dir}/skipped-{prefix}-{split}-validate.tsv`` also lists, and what is left.

    Raises:
        FileNotFoundError: the manifest is missing.
        ValueError: the manifest is damaged, or no cut is valid; the manifest is unchanged.
    """
    manifest = check_manifest(cuts_path(manifest_dir, prefix, split))
    source = CutManifest(manifest)
    cuts = _Columns()
    with ProcessPoolExecutor(num_jobs) as processes:
        blocks = enumerate(source.blocks(_BLOCK))
        for block in run_in_order(processes, partial(_columns, source), blocks, _BLOCKS_AHEAD * num_jobs):
            cuts.extend(block)
    bad = np.array(cuts.bad, bool)
    bad_files = _bad_files(source, cuts, num_jobs, measured)
    bad[np.asarray(cuts.owners)[np.isin(cuts.files, [id_hash(file) for file in bad_files])]] = True
    ids = np.asarray(cuts.ids)
    repeated = _repeated(ids, bad)
    bad[list(repeated)] = True

    found = SkippedItems()
    for number, line in zip(np.flatnonzero(bad).tolist(), compress(source.lines(), bad), strict=True):
        cut = source.parse(line)
        if number in repeated:
            detail = f"occurs {repeated[number]} times, the first is kept"
            problem: Problem | None = ("duplicate id", detail, "give every cut its own id")
        else:
            problem = _problem(cut, bad_files)
        assert problem is not None
        found.add(Skipped(cut.id, " ".join(audio_files(cut)), *problem))
        cuts.speakers.subtract(_speakers(cut))
    if bad.all():
        raise ValueError(f"{manifest}: none of {len(bad)} cuts is valid; {found.summary()}")

    listing = removed_path(manifest_dir, prefix, split)
    # Cuts removed by an earlier check stay listed, unless the manifest has been rewritten since and has them again.
    again = {item.id for item in found.items}
    kept = [item for item in SkippedItems.read(listing).items if item.id not in again] if listing.exists() else []
    if kept and manifest.stat().st_mtime_ns > listing.stat().st_mtime_ns:
        back = {*ids[np.isin(ids, [id_hash(item.id) for item in kept])].tolist()}
        kept = [item for item in kept if id_hash(item.id) not in back]
    skipped = SkippedItems(kept + found.items)
    # The list is written first: if the program is killed in between, the next check finds the same cuts again.
    skipped.write(listing)
    if len(found):
        write_lines_packed(compress(source.lines(), ~bad), manifest)
        listing.touch()  # now newer than the manifest again
    return Validated(skipped, np.asarray(cuts.seconds)[~bad], (+cuts.speakers).keys())


@dataclass
class _Columns:
    """Values of cuts, one of each a cut, and of their files."""

    ids: "array[int]" = field(default_factory=lambda: array("q"))  # hashes
    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    bad: "array[int]" = field(default_factory=lambda: array("b"))  # 1 if the cut has a problem apart from its audio
    speakers: Counter[str] = field(default_factory=Counter)
    files: "array[int]" = field(default_factory=lambda: array("q"))  # hashes of the paths
    owners: "array[int]" = field(default_factory=lambda: array("i"))  # number of each file's cut
    derived: "array[int]" = field(default_factory=lambda: array("b"))  # 1 if the cut is a perturbed copy of the file

    def append(self, cut: Cut) -> None:
        files = audio_files(cut)
        self.files.extend(id_hash(file) for file in files)
        self.owners.extend([len(self.ids)] * len(files))
        self.derived.extend([bool(files and cut.recording.transforms)] * len(files))
        self.ids.append(id_hash(cut.id))
        self.seconds.append(cut.duration)
        self.bad.append(_problem(cut) is not None)
        self.speakers.update(_speakers(cut))

    def extend(self, block: "_Columns") -> None:
        self.owners.extend(array("i", (len(self.ids) + owner for owner in block.owners)))
        for name in ("ids", "seconds", "bad", "files", "derived"):
            getattr(self, name).extend(getattr(block, name))
        self.speakers.update(block.speakers)


def _columns(source: CutManifest, block: tuple[int, list[bytes]]) -> _Columns:
    columns = _Columns()
    for number, line in enumerate(block[1], block[0] * _BLOCK + 1):
        with naming_line(source.location, number):
            columns.append(source.parse(line))
    return columns


def _bad_files(source: CutManifest, cuts: _Columns, num_jobs: int, measured: MeasuredBefore) -> dict[str, str]:
    """The problem of each file that has one."""
    files, derived, owners = np.asarray(cuts.files), np.asarray(cuts.derived), np.asarray(cuts.owners)
    chosen = np.zeros(len(cuts.ids), bool)
    for numbers in _equal_together(files):
        # Of a file with perturbed copies, the original, because only that states the file's number of samples.
        numbers = numbers[np.lexsort((derived[numbers], files[numbers]))]
        first = np.ones(len(numbers), bool)
        first[1:] = files[numbers[1:]] != files[numbers[:-1]]
        chosen[owners[numbers[first]]] = True
    problems: dict[str, str] = {}
    with ThreadPoolExecutor(num_jobs) as threads:
        check = partial(_audio_problems, measured=measured)
        for found in run_in_order(threads, check, map(source.parse, compress(source.lines(), chosen)), 4 * num_jobs):
            problems |= found
    return problems


def _audio_problems(cut: Cut, measured: MeasuredBefore) -> dict[str, str]:
    problem = audio_problem(cut.recording, measured)
    return {} if problem is None else dict.fromkeys(audio_files(cut), problem)


def _problem(cut: Cut, bad_files: Mapping[str, str] = MappingProxyType({})) -> Problem | None:
    """The problem of a cut, or None."""
    if not transcript(cut) and not has_no_speech(cut):
        return "empty transcript", "", f"add the transcript, or remove the utterance; {IF_NO_SPEECH}"
    if bad := [bad_files[file] for file in audio_files(cut) if file in bad_files]:
        return "bad audio", bad[0], "restore the file, then prepare this split again"
    if cut.has_features and not features_file(cut).exists():
        return "missing features", str(features_file(cut)), "compute the features again (stage 2 of prepare.sh)"
    if inconsistency := _inconsistency(cut):
        return "inconsistent manifest", inconsistency, "prepare this split again"
    return None


def _repeated(ids: NDArray[np.int64], bad: NDArray[np.bool_]) -> dict[int, int]:
    """The number of each cut whose id an earlier cut without a problem has, and how often the id occurs."""
    found: dict[int, int] = {}
    for numbers in _equal_together(ids):
        ordered = ids[numbers]
        for repeated in np.unique(ordered[1:][ordered[1:] == ordered[:-1]]):
            same = numbers[np.searchsorted(ordered, repeated) : np.searchsorted(ordered, repeated, side="right")]
            good = same[~bad[same]]
            found |= {number: len(same) for number in same.tolist() if len(good) and number > good[0]}
    return found


def _equal_together(values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of all values in several parts, equal values in the same one, sorted by value and number."""
    part = values.view(np.uint8)[:: values.itemsize] % _PARTS
    for i in range(_PARTS):
        numbers = np.flatnonzero(part == i)
        yield numbers[np.argsort(values[numbers], kind="stable")]


def audio_problem(recording: Recording, measured: MeasuredBefore = NOTHING_MEASURED) -> str | None:
    """Problem of the audio file of a recording, or None.

    Unless it is as in ``measured``, the file is opened as preparation does, and its end is read.
    """
    for source in recording.sources:
        if source.type != "file":
            continue
        try:
            if _is_as_measured(recording, source.source, measured):
                continue
            audio = open_audio(source.source)
        except (ValueError, OSError) as error:
            return str(error)
        if audio.libsndfile_problem:
            return audio.libsndfile_problem
        if recording.transforms is None and audio.sample_rate != recording.sampling_rate:
            return f"sample rate {audio.sample_rate} Hz instead of {recording.sampling_rate} Hz"
        found = audio.libsndfile_samples()
        if found is None:
            return "libsndfile cannot read it to its end: truncated, or not to be jumped in"
        # A perturbed copy has only the perturbed number.
        if not recording.transforms and found != recording.num_samples:
            return f"{found} samples instead of {recording.num_samples}: truncated or replaced"
    return None


def _is_as_measured(recording: Recording, path: str, measured: MeasuredBefore) -> bool:
    """True if a file has not changed since preparation, and is as its recording says."""
    if (before := measured.get(path)) is None:
        return False
    # A perturbed copy has other numbers.
    rate, num_samples = before.sample_rate, before.num_samples
    if not recording.transforms:
        rate, num_samples = recording.sampling_rate, recording.num_samples
    return before == Measured.of(path, rate, num_samples)


def shared_speakers(speakers: Mapping[str, Set[str]]) -> dict[tuple[str, str], list[str]]:
    """Speakers that occur in two splits, by pair of splits."""
    names = list(speakers)
    overlap = {(a, b): sorted(speakers[a] & speakers[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {pair: common for pair, common in overlap.items() if common}


def duration_statistics(seconds: NDArray[np.float64]) -> str:
    """One line with the number of utterances, hours, and quantiles of the durations in seconds."""
    durations = np.sort(seconds)
    quantiles = "  ".join(
        f"{percent}%: {durations[math.ceil(percent / 100 * (len(durations) - 1))]:.1f}"
        for percent in (0, 5, 25, 50, 75, 95, 99, 100)
    )
    return f"{len(durations)} utterances, {durations.sum() / 3600:.2f} h; seconds {quantiles}"


def _speakers(cut: Cut) -> list[str]:
    return [supervision.speaker for supervision in cut.supervisions if supervision.speaker]


def _inconsistency(cut: Cut) -> str | None:
    try:
        lhotse.qa.validate(cut)
    except AssertionError as error:
        return str(error) or "lhotse's validation fails"
    return None
