"""Parts of lhotse's cuts: utterances, noise, silence, transcripts and files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.utils import fastcopy
from numpy.typing import NDArray

from summarymix.data.skipped import Skipped, described
from summarymix.data.tokens import Tokenizer
from summarymix.files import read_surely

NO_SPEECH = {"no_speech": True}
"""Field ``custom`` of the supervision of a recording without speech."""
IF_NO_SPEECH = "if the recording has no speech, prepare the corpus with --keep-empty"

# Audio lies in [-1, 1]; the energies of samples beyond this limit overflow.
_LOUDEST = 1e15


def parts(cut: Cut) -> list[Cut]:
    """The cuts mixed in a cut, utterances before noise; for an ordinary cut, the cut itself."""
    mixed = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    return [part for part in mixed if not isinstance(part, PaddingCut)]


def utterances(cut: Cut) -> list[Cut]:
    """The utterances in a cut, without added silence and noise."""
    if not isinstance(cut, MixedCut):
        return [cut]
    return [track.cut for track in cut.tracks if track.snr is None and not isinstance(track.cut, PaddingCut)]


def noise_in(cut: Cut) -> list[Cut]:
    """The noise in a cut, which is mixed in at a signal-to-noise ratio."""
    return [track.cut for track in cut.tracks if track.snr is not None] if isinstance(cut, MixedCut) else []


def without_noise(cut: MixedCut) -> Cut:
    """The utterances in a cut with the silence added to them, without noise."""
    tracks = [track for track in cut.tracks if track.snr is None]
    return tracks[0].cut if len(tracks) == 1 else fastcopy(cut, tracks=tracks)


def transcript(cut: Cut, tokenizer: Tokenizer | None = None) -> str:
    """The transcript of a cut: the texts of its supervisions in order of time.

    Args:
        cut: the cut.
        tokenizer: converts the transcript to the form that its tokens were trained on.
    """
    supervisions = sorted(cut.supervisions, key=lambda supervision: supervision.start)
    text = " ".join(" ".join(supervision.text or "" for supervision in supervisions).split())
    return text if tokenizer is None else tokenizer.normalize(text)


def has_no_speech(cut: Cut) -> bool:
    """True if the corpus says that nothing is spoken in the cut, so that its empty transcript is complete."""
    return bool(cut.supervisions) and all((s.custom or {}).items() >= NO_SPEECH.items() for s in cut.supervisions)


def skipped_cut(cut: Cut, reason: str, detail: str, remedy: str) -> Skipped:
    """Make the list entry of a skipped cut, with the cut's audio files."""
    files = " ".join(source.source for part in parts(cut) if part.has_recording for source in part.recording.sources)
    return Skipped(cut.id, files, reason, detail, remedy)


def unreadable_cut(cut: Cut, data: str, error: Exception, remedy: str, places: Iterable[str] = ()) -> Skipped:
    """Make the list entry of a cut whose data cannot be read.

    Args:
        cut: the cut.
        data: what was read, such as "audio".
        error: the exception of reading it.
        remedy: what to do.
        places: where the data are, apart from audio files.
    """
    reason = f"{'missing' if isinstance(error, FileNotFoundError) else 'unreadable'} {data}"
    return skipped_cut(cut, reason, described(error) + "".join(f" ({place})" for place in places), remedy)


def load_audio(cut: Cut) -> NDArray[np.float32]:
    """Load the samples (n,) of a cut's channel with :func:`read_surely`.

    Raises:
        ValueError: they include NaN, infinity or a huge number, which have no features.
    """
    samples = read_surely(cut.load_audio, audio_files(cut))[0]
    if not (usable := np.abs(samples) < _LOUDEST).all():
        place = int(usable.argmin())
        raise ValueError(f"the sample at {place / cut.sampling_rate:.2f} s is {samples[place]:g}")
    return samples


def audio_files(cut: Cut) -> list[str]:
    """The audio files of a cut, without commands and data in memory."""
    sources = [source for part in parts(cut) if part.has_recording for source in part.recording.sources]
    return [source.source for source in sources if source.type == "file"]


def features_file(cut: Cut) -> Path:
    """The file that holds a cut's features: its own, or an archive."""
    features = cut.features
    return Path(features.storage_path, features.storage_key if features.storage_type.endswith("_files") else "")


def occurs_twice(cut_id: str, *locations: str) -> ValueError:
    """The error of two cuts with the same id in one split, or in two splits."""
    if len(locations) == 1:
        return ValueError(f"The cut {cut_id} of {locations[0]} occurs twice: run local/validate_cuts.py")
    return ValueError(
        f"The cut {cut_id} occurs twice, in {' and in '.join(locations)}: remove it from one of them, or train on "
        "one of these splits only"
    )
