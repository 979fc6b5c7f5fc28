"""Parts of lhotse's cuts: utterances, noise, silence, transcripts and files."""

from lhotse.cut import Cut, MixedCut, PaddingCut

from summarymix.data.skipped import Skipped


def parts(cut: Cut) -> list[Cut]:
    """The cuts mixed in a cut, utterances before noise; for an ordinary cut, the cut itself."""
    mixed = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    return [part for part in mixed if not isinstance(part, PaddingCut)]


def utterances(cut: Cut) -> list[Cut]:
    """The utterances in a cut, without added silence and noise."""
    if not isinstance(cut, MixedCut):
        return [cut]
    return [track.cut for track in cut.tracks if track.snr is None and not isinstance(track.cut, PaddingCut)]


def transcript(cut: Cut) -> str:
    """The transcript of a cut: the texts of its supervisions in order of time."""
    supervisions = sorted(cut.supervisions, key=lambda supervision: supervision.start)
    return " ".join(" ".join((supervision.text or "").split()) for supervision in supervisions).strip()


def skipped_cut(cut: Cut, reason: str, detail: str, remedy: str) -> Skipped:
    """Make the list entry of a skipped cut, with the cut's audio files."""
    files = " ".join(source.source for part in parts(cut) if part.has_recording for source in part.recording.sources)
    return Skipped(cut.id, files, reason, detail, remedy)
