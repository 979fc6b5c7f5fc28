"""Choice between PyTorch and ONNX Runtime for the streams of a trained model."""

import argparse
from time import perf_counter
from typing import Literal, get_args

from summarymix.chunking import ChunkConfig
from summarymix.cli import say
from summarymix.decoding.search import Search, TransducerSearch
from summarymix.export.onnx_step import Found, OnnxCache

Backend = Literal["auto", "torch", "onnx"]


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Add --backend to a command line."""
    parser.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="auto",
        help="streams of a trained model: onnx exports the model once, into onnx-cache in its folder, and takes half "
        "the CPU time of torch; auto: onnx where it is possible (auto)",
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
        self.exports = True
        """False: auto takes only exports that exist, so that no stream waits for one."""
        self._said: set[str] = set()
        self._failed: Exception | None = None

    def prepare(self, search: Search, chunk: ChunkConfig) -> Search:
        """Return ``search`` with the model for streams of this setting.

        Raises:
            ImportError, ValueError, OSError, RuntimeError: ONNX Runtime is asked for, but impossible.
        """
        begin = perf_counter()
        try:
            if search.model.device.type != "cpu":
                raise ValueError(f"the model is on {search.model.device}, ONNX Runtime computes on the CPU")
            if not isinstance(search, TransducerSearch):
                raise ValueError(f"{type(search).__name__} needs the trained model, not an exported one")
            if self._backend == "auto" and not self.exports and not self._cache.has(chunk):
                raise ValueError("chunk sizes and look-aheads that are not exported yet; --backend onnx exports them")
            model, folder, is_new = self._get(chunk)
        except (ImportError, ValueError, OSError, RuntimeError) as error:
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
        try:
            if self._failed is None:
                return self._cache.get(chunk)
        except (ImportError, ValueError, OSError, RuntimeError) as error:
            self._failed = error
        raise self._failed

    def _say(self, text: str) -> None:
        """Print a line that has not been printed yet."""
        if text not in self._said:
            self._said.add(text)
            say(text)
