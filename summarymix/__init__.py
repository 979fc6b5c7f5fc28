"""SummaryMixing encoders and pruned RNN-T for streaming and offline speech recognition."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from summarymix.decoding.recognizer import Recognizer


def load(
    model: Path | str, epoch: int | None = None, avg: int | None = None, device: str | None = None
) -> "Recognizer":
    """Load a trained model for recognition.

        recognizer = summarymix.load("exp")
        print(recognizer.transcribe("talk.mp3").text)

    Args:
        model: folder of a training run, or a checkpoint.
        epoch: last epoch to average; None for the one that ``decode.py --select`` chose, else the last one.
        avg: number of epochs to average.
        device: cpu, cuda, cuda:1, …; None for a GPU if available.

    Raises:
        FileNotFoundError, ValueError: the model is missing or damaged.
    """
    # Imported late: at the top it would load the whole library with any of its modules.
    from summarymix.decoding.recognizer import Recognizer

    return Recognizer.load(model, epoch, avg, device)
