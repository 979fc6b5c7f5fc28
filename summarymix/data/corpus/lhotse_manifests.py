"""Reader of lhotse manifests: recordings with supervisions, or cuts."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.augmentation import Speed, Tempo
from lhotse.cut import MixedCut

from summarymix.data.corpus.base import Corpus, Row, file_of
from summarymix.data.corpus.gather import gather, no_utterance
from summarymix.data.corpus.on_disk import DiskDict, DiskList, DiskSet
from summarymix.data.corpus.recordings import AudioFindings, open_files, unnamed_audio
from summarymix.data.names import check_name, is_path, named_kinds, printable
from summarymix.data.skipped import Skipped, SkippedItems

_NAME = re.compile(
    r"(?:(?P<prefix>.+)[_-])?(?P<kind>recordings|supervisions|cuts)(?:[_-](?P<split>.+))?\.jsonl(?:\.gz)?"
)


def read_lhotse_corpus(
    manifest_dir: Path,
    audio_dir: Path,
    findings: AudioFindings,
    num_jobs: int = 1,
    corpus_dir: Path | None = None,
    **options: Any,
) -> Corpus:
    """Read ``[PREFIX_]{recordings,supervisions}[_SPLIT].jsonl.gz`` or ``[PREFIX_]cuts[_SPLIT].jsonl.gz``.

    If a split has both, its cuts are read. Every supervision becomes an utterance; features are ignored, and copies at
    other speeds are left out. Without ``_SPLIT``, a prefix with a word for training, dev or test data, such as
    ``corpus_dev``, names the split.

    Args:
        manifest_dir: folder of the manifests.
        audio_dir: base folder of relative paths in the manifests.
        findings: gets what is found about the recordings.
        num_jobs: files to open at a time.
        corpus_dir: folder of which audio files without a recording are listed; None for none.
        options: passed to :func:`summarymix.data.corpus.gather.gather`.

    Raises:
        ValueError: the folder has no such manifests with utterances, or one is damaged.
        FileNotFoundError: there is no such folder.
    """
    groups = _find(manifest_dir)
    rows: DiskList[Row] = DiskList()
    recordings: DiskDict[Recording | Skipped] = DiskDict()
    named: DiskList[str] = DiskList()
    notes: list[str] = []
    if len(unnamed := [name for name, group in groups.items() if group.split is None]) > 1:
        notes.append(f"these manifests name no split and are training data: {printable(', '.join(unnamed)):.500}")
    unusable = SkippedItems()
    places: DiskDict[str] = DiskDict()  # of all recordings in pairs; several splits may list the same
    used = DiskSet()  # their ids
    for name, (split, paths) in groups.items():
        if "cuts" in paths:
            pairs = _of_cuts(_items(CutSet, paths["cuts"]), paths["cuts"], unusable)
        elif len(paths) == 2:
            pairs = _of_pair(paths["recordings"], paths["supervisions"], unusable, places, used)
        else:
            (path,) = paths.values()
            notes.append(f"{path.name} is left out: it needs both recordings and supervisions")
            continue
        for recording, supervision in pairs:
            if any(isinstance(transform, Speed | Tempo) for transform in recording.transforms or ()):
                file, remedy = file_of(recording), "use the originals: prepare.sh --speed-perturb makes the copies"
                unusable.add(
                    Skipped(supervision.id, file, "copy at another speed", f"recording {recording.id}", remedy)
                )
                continue
            # Cuts of several corpora may have other recordings with the same id.
            key = f"{name} {recording.id} {' '.join(str(source.source) for source in recording.sources)}"
            if key not in recordings:
                for source in recording.sources:
                    if source.type == "file":
                        file = str(audio_dir / source.source)
                        named.append(file)
                        findings.note(file)  # also a missing one, or one of several
                recordings[key] = _with_absolute_paths(recording, audio_dir)
            rows.append(_row(key, supervision, split))
    for recording_id, place in places.items():
        if recording_id not in used:
            unusable.add(no_utterance(recording_id, place))
    if not rows and not unusable:
        raise ValueError(
            f"No utterances in {manifest_dir}: it needs PREFIX_recordings_SPLIT.jsonl.gz and "
            "PREFIX_supervisions_SPLIT.jsonl.gz, or PREFIX_cuts_SPLIT.jsonl.gz"
        )
    corpus = gather(rows, _measured(recordings, findings, num_jobs), findings, **options)
    corpus.skipped.extend(unusable.items)
    corpus.num_rows += len(unusable)
    corpus.notes += notes
    if corpus_dir is not None:
        corpus.unnamed_audio = unnamed_audio(corpus_dir, named, findings)
    return corpus


class _Group(NamedTuple):
    """Manifests of a split, by kind. Without a split they are training data."""

    split: str | None
    paths: dict[str, Path]


def _find(manifest_dir: Path) -> dict[str, _Group]:
    """The manifests in a folder. Those whose names differ only in the kind belong together."""
    groups: dict[str, _Group] = {}
    for path in sorted(manifest_dir.iterdir()):
        if match := _NAME.fullmatch(path.name):
            split = match["split"] or _split_in(match["prefix"] or "")
            if split:
                check_name(split, f"{printable(path)}: the split")
            name = path.name[: match.start("kind")] + "*" + path.name[match.end("kind") :]
            groups.setdefault(name, _Group(split, {})).paths[match["kind"]] = path
    return groups


def _split_in(prefix: str) -> str | None:
    """The split in the name of a manifest before its kind: from the first word for training, dev or test data on."""
    words = re.finditer(r"[^_-]+", prefix)
    return next((prefix[word.start() :] for word in words if named_kinds(word[0])), None)


def _items(kind: type[CutSet] | type[RecordingSet] | type[SupervisionSet], path: Path) -> Iterator[Any]:
    """Items of a manifest.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        yield from kind.from_jsonl_lazy(path)
    # The exception depends on what is damaged.
    except Exception as error:
        raise ValueError(f"{printable(path)} is damaged ({type(error).__name__}: {error}): make it again") from error


def _of_pair(
    recordings_path: Path,
    supervisions_path: Path,
    unusable: SkippedItems,
    places: DiskDict[str],
    used: DiskSet,
) -> Iterator[tuple[Recording, SupervisionSegment]]:
    recordings: DiskDict[Recording] = DiskDict()
    ambiguous = DiskSet()  # ids of several recordings
    for recording in _items(RecordingSet, recordings_path):
        if recordings.setdefault(recording.id, recording) != recording:
            ambiguous.add(recording.id)
    places.update((recording_id, str(recordings_path)) for recording_id in recordings)
    for supervision in _items(SupervisionSet, supervisions_path):
        id_ = supervision.recording_id
        used.add(id_)
        if id_ in recordings and id_ not in ambiguous:
            yield recordings[id_], supervision
            continue
        reason, remedy = "missing audio", "add the recording, or remove the supervision"
        if id_ in ambiguous:
            reason, remedy = "duplicate recording id", "give every recording its own id, also in its supervisions"
        unusable.add(Skipped(supervision.id, str(recordings_path), reason, f"recording {id_}", remedy))


def _of_cuts(cuts: Iterable[Any], path: Path, unusable: SkippedItems) -> Iterator[tuple[Recording, SupervisionSegment]]:
    for cut in cuts:
        if isinstance(cut, MixedCut) or not cut.has_recording:
            detail = "a mixture of cuts" if isinstance(cut, MixedCut) else "no recording"
            unusable.add(Skipped(cut.id, str(path), "unsuitable cut", detail, "use unmixed cuts with recordings"))
            continue
        if not cut.supervisions:
            unusable.add(no_utterance(cut.id, str(path)))
        for supervision in cut.supervisions:
            # Supervision times are relative to the cut's start.
            yield cut.recording, supervision.with_offset(cut.start)


def _row(key: str, supervision: SupervisionSegment, split: str | None) -> Row:
    channel = supervision.channel
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    return Row(
        audio=key,
        text=supervision.text,
        id=supervision.id,
        speaker=supervision.speaker,
        split=split,
        start=supervision.start,
        duration=supervision.duration,
        channel=channel,
        language=supervision.language,
    )


def _with_absolute_paths(recording: Recording, audio_dir: Path) -> Recording | Skipped:
    sources = []
    for source in recording.sources:
        if source.type == "file":
            source = replace(source, source=str(audio_dir / source.source))
            if not is_path(source.source) or not Path(source.source).is_file():
                remedy = "restore the file, or give the base folder of relative paths with --audio-dir"
                return Skipped(recording.id, source.source, "missing audio", "", remedy)
        sources.append(source)
    return replace(recording, sources=sources)


def _measured(
    recordings: DiskDict[Recording | Skipped], findings: AudioFindings, num_jobs: int
) -> DiskDict[Recording | Skipped]:
    """Give recordings the lengths of their files. Recordings of several files, or perturbed ones, keep their own."""
    single = ((file, recording.id) for recording in recordings.values() if (file := _only_file(recording)))
    opened = open_files(DiskDict(single), findings, num_jobs)

    def measured(recording: Recording | Skipped) -> Recording | Skipped:
        if not (file := _only_file(recording)):
            return recording
        assert isinstance(recording, Recording)
        found = opened[file]
        if isinstance(found, Skipped):
            return replace(found, id=recording.id)
        source = replace(recording.sources[0], source=found.sources[0].source)
        return replace(found, id=recording.id, sources=[source], channel_ids=recording.channel_ids)

    return DiskDict((key, measured(recording)) for key, recording in recordings.items())


def _only_file(recording: Recording | Skipped) -> str | None:
    """The file that a recording is, without changes; None for others."""
    if isinstance(recording, Skipped) or len(recording.sources) != 1 or recording.transforms:
        return None
    (source,) = recording.sources
    return str(source.source) if source.type == "file" else None
