"""SummaryMixing encoders and pruned RNN-T for streaming and offline speech recognition."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from summarymix.decoding.backend import Backend
    from summarymix.decoding.recognizer import Recognizer


def load(
    model: Path | str,
    epoch: int | None = None,
    avg: int | None = None,
    device: str | None = None,
    int8: bool = False,
    backend: "Backend | None" = None,
) -> "Recognizer":
    """Load a trained or exported model for recognition.

        recognizer = summarymix.load("exp")
        print(recognizer.transcribe("talk.mp3").text)

    Args:
        model: folder of a training run, a checkpoint, or a folder that ``export.py`` wrote, which ONNX Runtime
            computes: faster for few streams, with the chunk size of the export.
        epoch: last epoch to average; None for the one that ``decode.py --select`` chose, else the last one.
        avg: number of epochs to average.
        device: cpu, cuda, cuda:1, …; None for a GPU if available.
        int8: of an exported model, use the files with int8 weights.
        backend: ``onnx`` computes streams of a trained model by ONNX Runtime, in half the CPU time for few streams. The
            model is exported at the first use of a chunk size, a minute of work, and kept in ``onnx-cache`` in
            its folder; a line on stderr says so. ``auto``: where that is possible; else, and by default, PyTorch.

    Raises:
        FileNotFoundError, ValueError: the model is missing or damaged.
    """
    # Imported late: at the top it would load the whole library with any of its modules.
    from summarymix.decoding.recognizer import Recognizer

    return Recognizer.load(model, epoch, avg, device, int8, backend)
