"""SummaryMixing encoders and pruned RNN-T for streaming and offline speech recognition."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from summarymix.decoding.recognizer import Recognizer


def load(
    model: Path | str, epoch: int | None = None, avg: int | None = None, device: str | None = None
) -> "Recognizer":
    """A trained model, ready to recognise audio.

        recognizer = summarymix.load("exp")
        print(recognizer.transcribe("talk.mp3").text)

    Args:
        model: folder of a training run, or a checkpoint.
        epoch: last epoch to average; None for what ``decode.py --select`` has chosen, or else the last one.
        avg: number of epochs to average.
        device: cpu, cuda, cuda:1, …; None for a GPU if there is one.

    Raises:
        FileNotFoundError, ValueError: there is no such model, or it is damaged.
    """
    # Not at the top: every module of the library would load all the others.
    from summarymix.decoding.recognizer import Recognizer

    return Recognizer.load(model, epoch, avg, device)
