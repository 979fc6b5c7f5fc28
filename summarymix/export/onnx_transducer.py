"""Exported ONNX files with the interface of the model, for decoding and scoring them with this library."""

import re
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankOptions
from summarymix.export.onnx import ENDINGS, Precision, load_onnx, read_metadata
from summarymix.export.readme import About, EncoderFile
from summarymix.predictor import append_tokens, init_history
from summarymix.state import State, state_bytes


class OnnxTransducer:
    """Exported ONNX files with the transducer interface of recognisers and searches.

    Args:
        folder: output of ``export.py`` in the format onnx or onnx-streaming.
        precision: precision of the files to use.
        recipe: expected recipe; files of other recipes are refused. None takes any.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: the files come from another recipe.
    """

    def __init__(self, folder: Path, precision: Precision = "fp32", recipe: str | None = None) -> None:
        ending = ENDINGS[precision]
        stems = encoder_stems(folder) or ["encoder"]
        *encoders, decoder, joiner = (folder / (stem + ending) for stem in (*stems, "decoder", "joiner"))
        for path in (*encoders, decoder, joiner):
            if not path.is_file():
                remedy = "./export.py --format onnx-streaming" + ("" if precision == "fp32" else f" --{precision}")
                raise FileNotFoundError(f"No {path}: make the whole folder with {remedy}, or correct the folder")
        self.folder, self.precision = folder, precision
        files = {path: read_metadata(path) for path in encoders}
        metadata = files[encoders[0]]
        _check_settings(files)
        _check_origin(files | {path: read_metadata(path) for path in (decoder, joiner)})
        if recipe not in (None, metadata["recipe"]):
            raise ValueError(f"{folder} was exported from the recipe {metadata['recipe']}, this is {recipe}")
        self.recipe, self.epoch, self.avg = metadata["recipe"], int(metadata["epoch"]), int(metadata["avg"])
        self.digest = metadata.get("model_digest")  # older files have none
        self.encoder: OnnxStreamingEncoder | OnnxOfflineEncoder
        self.encoder = OnnxStreamingEncoder(files) if "T" in metadata else OnnxOfflineEncoder(encoders[0])
        self.predictor = OnnxPredictor(decoder)
        self.joiner = OnnxJoiner(joiner)
        # Of older files the lattice is unknown: at most one token per frame suits all.
        self.rnnt_type = metadata.get("rnnt_type", "modified")
        self.feature_dim = int(metadata["feature_dim"])
        self.fbank = FbankOptions(
            int(metadata["sample_rate"]), self.feature_dim, tail_frames=int(metadata.get("tail_frames", 0))
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def about(self) -> About:
        """Contents of the folder's README."""
        precisions = {name: ending for name, ending in ENDINGS.items() if (self.folder / f"decoder{ending}").is_file()}
        files = [
            EncoderFile(stem, precision, chunk, size)
            for stem, chunk, size in self.encoder.files()
            for precision, ending in precisions.items()
            if (self.folder / (stem + ending)).is_file()
        ]
        title = f"{self.recipe}, epoch {self.epoch}, avg {self.avg}"
        format = "onnx-streaming" if isinstance(self.encoder, OnnxStreamingEncoder) else "onnx"
        return About(title, format, files, self.fbank)


def encoder_stems(folder: Path) -> list[str]:
    """Names of the encoders in the folder of an exported model, without endings; none in other folders."""
    endings = "|".join(map(re.escape, ENDINGS.values()))
    found = (re.fullmatch(rf"(encoder(?:-\d+)*)(?:{endings})", path.name) for path in folder.glob("encoder*"))
    return sorted({match[1] for match in found if match})


def _check_settings(encoders: dict[Path, dict[str, str]]) -> None:
    """Check that encoders, given with their metadata, differ in chunk or look-ahead and have one left context.

    Raises:
        ValueError: they do not; the message names two files.
    """
    first, *others = encoders
    seen = {_values(encoders[first], "chunk_ms", "lookahead_ms"): first}
    for path in others:
        # An encoder for whole recordings has no left_chunks.
        if encoders[first].get("left_chunks") != encoders[path].get("left_chunks"):
            raise ValueError(f"{first} and {path.name} come from different exports: remove one of them")
        if (same := seen.setdefault(_values(encoders[path], "chunk_ms", "lookahead_ms"), path)) != path:
            raise ValueError(f"{same} and {path.name} have the same chunk and look-ahead: remove one of them")


def _check_origin(files: dict[Path, dict[str, str]]) -> None:
    """Check that all files of a folder, given with their metadata, come from one model.

    Raises:
        ValueError: they do not; the message names two files.
    """
    first, *others = files
    origin = "recipe", "epoch", "avg", "model_digest"  # older files have no digest
    for path in others:
        if _values(files[first], *origin) != _values(files[path], *origin):
            raise ValueError(f"{first} and {path.name} come from different exports: export again")


def _values(metadata: dict[str, str], *keys: str) -> tuple[str | None, ...]:
    return tuple(metadata.get(key) for key in keys)


class OnnxOfflineEncoder:
    """Encoder for whole utterances, with the joiner's encoder projection.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.chunks = [ChunkConfig()]
        self._run = load_onnx(path)

    def files(self) -> list[tuple[str, ChunkConfig, int | None]]:
        """Name, setting and size of a stream's state, for a README."""
        return [("encoder", ChunkConfig(), None)]

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        if chunk.chunk_size is not None:
            raise ValueError("this export recognises whole recordings only: --mode offline; others stream")

    def __call__(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """See :meth:`summarymix.encoder.base.Encoder.forward`."""
        out, frames = self._run(features, lengths)
        return out, frames


class OnnxStreamingEncoder:
    """Encoder for chunks, with the joiner's encoder projection.

    Silence fills an utterance's last chunk. A word that is emitted late may have its time in that silence.

    Args:
        files: metadata of the ONNX files, one for each chunk size and look-ahead.
    """

    takes_whole_chunks = True  # the graph cannot mask padding

    def __init__(self, files: dict[Path, dict[str, str]]) -> None:
        self._files = {chunk_of(metadata): (path, metadata) for path, metadata in files.items()}
        self.chunks = list(self._files)
        # A file is loaded when its first chunk comes; a chunk is told by its numbers of features and look-ahead.
        self._paths = {(int(metadata["T"]), chunk.lookahead): path for chunk, (path, metadata) in self._files.items()}
        self._load = cache(load_onnx)

    def load(self) -> None:
        """Load all files, which are not needed afterwards."""
        for path in self._paths.values():
            self._load(path)

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        if chunk not in self.chunks:
            known = "; ".join(map(str, self.chunks))
            raise ValueError(f"{chunk}: the model was exported with {known}; export it again for other values")

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """See :meth:`summarymix.encoder.base.Encoder.init_state`."""
        _, metadata = self._files[chunk]
        sizes = {"sum": int(metadata["d_model"]), "cache": int(metadata["rnn_hidden_size"])}  # as in state.KINDS
        return {name: torch.zeros(batch_size, size) for name, size in sizes.items()}

    def files(self) -> list[tuple[str, ChunkConfig, int | None]]:
        """Names, settings and sizes of a stream's state, for a README."""
        return [
            (path.name.split(".")[0], chunk, state_bytes(self.init_state(1, chunk)))
            for chunk, (path, _) in self._files.items()
        ]

    def step(
        self, features: Tensor, state: State, lengths: Tensor | None = None, lookahead: int = 0
    ) -> tuple[Tensor, State]:
        """See :meth:`summarymix.encoder.base.Encoder.step`; all chunks are whole."""
        assert lengths is None
        run = self._load(self._paths[features.size(1), lookahead])
        out, summary, convolution = run(features, *(tensor[None] for tensor in state.values()))
        return out, {"sum": summary[0], "cache": convolution[0]}


def chunk_of(metadata: dict[str, str]) -> ChunkConfig:
    """Setting of a streaming encoder, from the metadata of its file."""
    lookahead_ms = int(metadata.get("lookahead_ms", 0))  # older files have none
    return ChunkConfig.from_ms(int(metadata["chunk_ms"]), int(metadata["left_chunks"]), lookahead_ms)


class OnnxPredictor:
    """Stateless predictor, with the joiner's predictor projection.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.context_size = int(read_metadata(path)["context_size"])
        self._run = load_onnx(path, num_threads=1)  # more would wait for each other longer than they compute

    def init_state(self, batch_size: int, device: torch.device | None = None) -> State:
        """See :func:`summarymix.predictor.init_history`."""
        return init_history(batch_size, self.context_size)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """See :meth:`summarymix.predictor.StatelessPredictor.step`."""
        context, state = append_tokens(tokens, state)
        [out] = self._run(context)
        return out, state


class OnnxJoiner:
    """Joiner without its projections, which are in the encoder and decoder files.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.encoder_proj = self.predictor_proj = nn.Identity()
        self._run = load_onnx(path, num_threads=1)  # see OnnxPredictor

    def __call__(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Encoder output (N, J) and decoder output (N, J) to logits (N, V)."""
        [logits] = self._run(encoder, decoder)
        return logits
