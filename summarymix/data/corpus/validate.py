"""Check cuts before training."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import lhotse.qa
from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut

from summarymix.data.audio_file import open_audio
from summarymix.data.corpus.measured import Measured
from summarymix.data.cuts import IF_NO_SPEECH, has_no_speech, transcript
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.skipped import Skipped, SkippedItems

NOTHING_MEASURED: Mapping[str, Measured] = MappingProxyType({})


def validate_split(
    manifest_dir: Path, prefix: str, split: str, num_jobs: int = 1, measured: Mapping[str, Measured] = NOTHING_MEASURED
) -> SkippedItems:
    """Check every cut of a split and remove bad ones from its manifest.

    Each cut needs a unique id, a transcript, and consistent times and numbers of frames. Each audio file must open,
    have the sample rate and number of samples in the manifest, and be readable to its end.

    Args:
        manifest_dir: folder of the cuts.
        prefix: name of the corpus.
        split: name of the split.
        num_jobs: files to open at a time.
        measured: files as preparation has found them; those of the same size and time are not read again.

    Returns:
        The cuts removed by this check and by earlier ones. They are also listed in
        ``{manifest_dir}/skipped-{prefix}-{split}-validate.tsv``.

    Raises:
        FileNotFoundError: the manifest is missing.
        ValueError: no cut is valid; the manifest is unchanged.
    """
    manifest = cuts_path(manifest_dir, prefix, split)
    cuts = list(read_cuts(manifest))
    # Of a file with perturbed copies, the original, because only that states the file's number of samples.
    by_transforms = sorted((cut for cut in cuts if cut.has_recording), key=lambda cut: not cut.recording.transforms)
    recordings = {source: cut.recording for cut in by_transforms for source in _files(cut)}
    check = partial(audio_problem, measured=measured)
    with ThreadPoolExecutor(num_jobs) as executor:
        bad_files = {
            file: problem
            for file, problem in zip(recordings, executor.map(check, recordings.values()), strict=True)
            if problem
        }
    occurrences = Counter(cut.id for cut in cuts)
    found = SkippedItems()
    kept: list[Cut] = []
    seen: set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            problem = (
                "duplicate id",
                f"occurs {occurrences[cut.id]} times, the first is kept",
                "give every cut its own id",
            )
        elif not transcript(cut) and not has_no_speech(cut):
            problem = ("empty transcript", "", f"add the transcript, or remove the utterance; {IF_NO_SPEECH}")
        elif bad := [bad_files[file] for file in _files(cut) if file in bad_files]:
            problem = ("bad audio", bad[0], "restore the file, then prepare this split again")
        elif inconsistency := _inconsistency(cut):
            problem = ("inconsistent manifest", inconsistency, "prepare this split again")
        else:
            kept.append(cut)
            seen.add(cut.id)
            continue
        found.add(Skipped(cut.id, " ".join(_files(cut)), *problem))
    if not kept:
        raise ValueError(f"{manifest}: none of {len(cuts)} cuts is valid; {found.summary()}")

    listing = Path(manifest_dir) / f"skipped-{prefix}-{split}-validate.tsv"
    # Cuts removed by an earlier check stay listed, unless the manifest has been rewritten since.
    before = SkippedItems.read(listing).items if listing.exists() else []
    skipped = SkippedItems([item for item in before if item.id not in occurrences] + found.items)
    # The list is written first: if the program is killed in between, the next check finds the same cuts again.
    skipped.write(listing)
    if len(found):
        write_manifest(kept, manifest)
    return skipped


def audio_problem(recording: Recording, measured: Mapping[str, Measured] = NOTHING_MEASURED) -> str | None:
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
        promised, found = _original_num_samples(recording), audio.libsndfile_samples()
        if found is None:
            return "libsndfile cannot read it to its end: truncated, or not to be jumped in"
        if promised is not None and found != promised:
            return f"{found} samples instead of {promised}: truncated or replaced"
    return None


def _is_as_measured(recording: Recording, path: str, measured: Mapping[str, Measured]) -> bool:
    """True if a file has not changed since preparation, and is as its recording says."""
    if (before := measured.get(path)) is None:
        return False
    # A perturbed copy has other numbers.
    rate, num_samples = before.sample_rate, before.num_samples
    if not recording.transforms:
        rate, num_samples = recording.sampling_rate, recording.num_samples
    return before == Measured.of(path, rate, num_samples)


def speaker_overlap(splits: dict[str, Iterable[Cut]]) -> dict[tuple[str, str], list[str]]:
    """Speakers that occur in two splits, by pair of splits."""
    return shared_speakers({split: [s for cut in cuts for s in cut.supervisions] for split, cuts in splits.items()})


def shared_speakers(splits: dict[str, list[SupervisionSegment]]) -> dict[tuple[str, str], list[str]]:
    """Speakers that occur in two splits, by pair of splits, from supervisions instead of cuts."""
    speakers = {
        split: {supervision.speaker for supervision in supervisions if supervision.speaker}
        for split, supervisions in splits.items()
    }
    names = list(speakers)
    overlap = {(a, b): sorted(speakers[a] & speakers[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {pair: common for pair, common in overlap.items() if common}


def duration_statistics(cuts: Iterable[Cut]) -> str:
    """One line with the number of utterances, hours, and quantiles of the durations in seconds."""
    durations = sorted(cut.duration for cut in cuts)
    quantiles = "  ".join(
        f"{percent}%: {durations[math.ceil(percent / 100 * (len(durations) - 1))]:.1f}"
        for percent in (0, 5, 25, 50, 75, 95, 99, 100)
    )
    return f"{len(durations)} utterances, {sum(durations) / 3600:.2f} h; seconds {quantiles}"


def _original_num_samples(recording: Recording) -> int | None:
    # A perturbed copy has only the perturbed number.
    return None if recording.transforms else recording.num_samples


def _files(cut: Cut) -> list[str]:
    return [source.source for source in cut.recording.sources if source.type == "file"] if cut.has_recording else []


def _inconsistency(cut: Cut) -> str | None:
    try:
        lhotse.qa.validate(cut)
    except AssertionError as error:
        return str(error) or "lhotse's validation fails"
    return None
