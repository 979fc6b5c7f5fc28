"""Choice between PyTorch and ONNX Runtime for the streams of a trained model."""

import argparse
from time import perf_counter
from typing import Literal, get_args

from summarymix.chunking import ChunkConfig
from summarymix.cli import say
from summarymix.decoding.search import Search, TransducerSearch
from summarymix.export.onnx_step import Found, OnnxCache

Backend = Literal["auto", "torch", "onnx"]


def add_backend_option(parser: argparse.ArgumentParser, default: Literal["auto"] | None) -> None:
    """Add --backend to a command line. Without a default, PyTorch computes trained models."""
    parser.add_argument(
        "--backend",
        choices=get_args(Backend),
        default=default,
        help="streams of a trained model: onnx exports the model once for each chunk size, into onnx-cache in its "
        "folder, and takes half the CPU time of torch for one stream; auto: onnx for live audio, "
        f"where it is possible ({default or 'torch'})",
    )


class StreamBackend:
    """Prepares searches for streams, and says on stderr what computes them.

    ONNX Runtime takes the place of PyTorch on the CPU, for greedy search and modified beam search. Other searches use
    parts of the model that are not exported.

    Args:
        backend: onnx, or auto to fall back on PyTorch if ONNX Runtime is impossible.
        cache: exports of the model.
    """

    def __init__(self, backend: Literal["auto", "onnx"], cache: OnnxCache) -> None:
        self._backend = backend
        self._cache = cache
        self._said: set[str] = set()
        self._failed: dict[ChunkConfig, Exception] = {}

    def prepare(self, search: Search, chunk: ChunkConfig) -> Search:
        """Return ``search`` with the model for streams of this setting.

        Raises:
            ImportError, ValueError, OSError: ONNX Runtime is asked for, but impossible.
        """
        begin = perf_counter()
        try:
            if search.model.device.type != "cpu":
                raise ValueError(f"the model is on {search.model.device}; ONNX Runtime needs the device cpu")
            if not isinstance(search, TransducerSearch):
                raise ValueError("ONNX Runtime needs the method greedy_search or modified_beam_search")
            model, folder, is_new = self._get(chunk)
        except (ImportError, ValueError, OSError) as error:
            if self._backend == "onnx":
                raise
            reason = str(error).partition("\n")[0]
            self._say(f"streaming step: PyTorch ({reason})")
            return search
        seconds = perf_counter() - begin
        self._say(
            f"streaming step: ONNX Runtime, exported to {folder} (once, {seconds:.0f} s)"
            if is_new
            else f"streaming step: ONNX Runtime, exported in {self._cache.folder}"
        )
        return search.with_model(model)

    def _get(self, chunk: ChunkConfig) -> Found:
        """Get the export of a setting. After a failure there is no second attempt."""
        if chunk in self._failed:
            raise self._failed[chunk].with_traceback(None)
        try:
            return self._cache.get(chunk)
        except (ImportError, ValueError, OSError) as error:
            self._failed[chunk] = error
            raise

    def _say(self, text: str) -> None:
        """Print a line that has not been printed yet."""
        if text not in self._said:
            self._said.add(text)
            say(text)
