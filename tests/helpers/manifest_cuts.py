"""Cuts of recordings and supervisions, as lhotse joins them."""

from pathlib import Path

from lhotse import CutSet, RecordingSet, SupervisionSet

from summarymix.data.manifests import manifest_path


def load_cuts(manifest_dir: Path, prefix: str, split: str) -> CutSet:
    """Load a cut for each supervision in ``{prefix}_{recordings,supervisions}_{split}.jsonl.gz``, with the same id."""
    recordings, supervisions = (
        manifest_path(manifest_dir, prefix, kind, split) for kind in ("recordings", "supervisions")
    )
    cuts = CutSet.from_manifests(
        recordings=RecordingSet.from_jsonl(recordings), supervisions=SupervisionSet.from_jsonl(supervisions)
    )
    return cuts.trim_to_supervisions(keep_overlapping=False).to_eager()
