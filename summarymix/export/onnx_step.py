"""The streaming step of a trained model in ONNX Runtime: exported once, and kept in the folder of the run."""

import hashlib
import shutil
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths
from summarymix.export.bundle import Export
from summarymix.export.graphs import StreamingEncoder
from summarymix.export.onnx import check_installed
from summarymix.export.onnx_transducer import OnnxJoiner, OnnxPredictor, OnnxStreamingEncoder, OnnxTransducer
from summarymix.model import Transducer
from summarymix.runs import model_digest
from summarymix.state import State, select_slots

CACHE = "onnx-cache"
"""Folder of the exports, in the folder of the run. It may be deleted at any time."""
SOURCES = ("*.py", "blocks/*.py", "encoder/*.py", "export/*.py")
"""Files of this library that determine the graphs."""


class OnnxStep:
    """A trained model for streams of one setting, with ONNX Runtime in the place of PyTorch.

    Unlike exported files alone it recognises an input that ends within a chunk as the model does: PyTorch computes this
    last chunk, which the graph cannot mask.

    Args:
        model: the trained model, on the CPU.
        files: its export for ``chunk``.
        chunk: chunk size, left context and look-ahead.
        other: the step for another setting, to share decoder and joiner with; None: there is none yet.
    """

    def __init__(
        self, model: Transducer, files: OnnxTransducer, chunk: ChunkConfig, other: "OnnxStep | None" = None
    ) -> None:
        self.encoder = _Encoder(model, files, chunk)
        self.predictor: OnnxPredictor = (other or files).predictor
        self.joiner: OnnxJoiner = (other or files).joiner
        self.feature_dim, self.device, self.dtype = files.feature_dim, files.device, files.dtype


class _Encoder:
    """Encoder with the joiner's encoder projection; see :class:`OnnxStep`. Its state is that of the export."""

    takes_whole_chunks = False

    def __init__(self, model: Transducer, files: OnnxTransducer, chunk: ChunkConfig) -> None:
        assert isinstance(files.encoder, OnnxStreamingEncoder)
        self._files = files.encoder
        self._files.load()  # another process may replace the export
        self._module = StreamingEncoder(model, chunk).eval()
        self.check_chunk, self.init_state = self._files.check_chunk, self._files.init_state

    def step(
        self, features: Tensor, state: State, lengths: Tensor | None = None, lookahead: int = 0
    ) -> tuple[Tensor, State]:
        """See :meth:`summarymix.encoder.base.Encoder.step`."""
        if lengths is None:
            return self._files.step(features, state, None, lookahead)
        partial = lengths < output_lengths(features.size(1))  # (N,)
        rows = [torch.nonzero(chosen).flatten() for chosen in (partial, ~partial)]
        parts = [self._masked(features[rows[0]], select_slots(state, rows[0]), lengths[rows[0]])]
        if len(rows[1]):
            parts.append(self._files.step(features[rows[1]], select_slots(state, rows[1]), None, lookahead))
        order = torch.cat(rows).argsort()
        frames = torch.cat([out for out, _ in parts])[order]  # (N, C, J)
        return frames, {name: torch.cat([following[name] for _, following in parts])[order] for name in state}

    def _masked(self, features: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        """Compute partial chunks with PyTorch."""
        out, summary, convolution = self._module(features, state["sum"][None], state["cache"][None], lengths)
        return out, {"sum": summary[0], "cache": convolution[0]}


class Found(NamedTuple):
    """A model for streams, its folder, and true if this call exported it."""

    model: OnnxStep
    folder: Path
    is_new: bool


class OnnxCache:
    """Exports of a trained model, one for each setting of streams, made at the first use of a setting.

    Their names tell what they were made from: weights, tokens, setting, and the code of the exporter. Other weights get
    a new export, which replaces the earlier one of the setting. Several processes may share the folder.

    Args:
        run: folder of the run, or a checkpoint in it; the exports lie in ``onnx-cache`` in the folder.
        model: in evaluation mode, on the CPU.
        tokenizer: the model's tokenizer.
        info: see :func:`summarymix.runs.load_model`.
    """

    def __init__(self, run: Path, model: Transducer, tokenizer: Tokenizer, info: dict[str, Any]) -> None:
        self.folder = (run if run.is_dir() else run.parent) / CACHE
        self._model, self._tokenizer, self._info = model, tokenizer, info
        self._loaded: dict[ChunkConfig, OnnxStep] = {}

    def get(self, chunk: ChunkConfig) -> Found:
        """Return the model for streams of this setting.

        Raises:
            ImportError, OSError: see :meth:`Export.write`.
            ValueError: the model cannot be exported, or its export is damaged.
        """
        check_installed()
        setting = f"chunk-{chunk.chunk_ms}-lookahead-{chunk.lookahead_ms}-left-{chunk.left_chunks}"
        folder = self.folder / f"{setting}-{self._digest}"
        is_new = chunk not in self._loaded and not folder.is_dir()
        if is_new:
            try:
                self._export(chunk).write(folder)
            except RuntimeError as error:
                raise ValueError(f"the model cannot be exported: {error}") from error
            except OSError:
                if not folder.is_dir():  # no other process was faster
                    raise
            for earlier in self.folder.glob(f"{setting}-*"):
                if earlier != folder:
                    shutil.rmtree(earlier, ignore_errors=True)  # another process may remove it too
        if chunk not in self._loaded:
            try:
                other = next(iter(self._loaded.values()), None)
                self._loaded[chunk] = OnnxStep(self._model, OnnxTransducer(folder), chunk, other)
            except Exception as error:  # such as missing metadata
                raise ValueError(f"{folder} is damaged: delete it ({error})") from error
        return Found(self._loaded[chunk], folder, is_new)

    def _export(self, chunk: ChunkConfig) -> Export:
        return Export.of_run(self._model, self._tokenizer, self._info, "onnx-streaming", [chunk])

    @cached_property
    def _digest(self) -> str:
        """Digest of the model, its tokens, and the code that exports it."""
        digest = hashlib.blake2b(digest_size=6)
        package = Path(__file__).parents[1]
        for path in sorted(path for pattern in SOURCES for path in package.glob(pattern)):
            digest.update(path.read_bytes())
        export = self._export(ChunkConfig(1))
        versions = torch.__version__, version("onnx"), version("onnxscript")
        about = versions, export.fbank, export.rnnt_type
        digest.update(repr(about).encode() + model_digest(self._model, self._tokenizer).encode())
        return digest.hexdigest()
