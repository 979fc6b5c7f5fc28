"""Exported ONNX files with the interface of the model, for decoding and scoring them with this library."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankOptions
from summarymix.export.onnx import ENDINGS, Precision, load_onnx, read_metadata
from summarymix.export.readme import About, EncoderFile
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
        encoders = encoder_files(folder, precision)
        decoder, joiner = (folder / (name + ending) for name in ("decoder", "joiner"))
        for path in (*(encoders or [folder / f"encoder{ending}"]), decoder, joiner):
            if not path.is_file():
                remedy = (
                    "make the folder with ./export.py --format onnx-streaming"
                    if precision == "fp32"
                    else f"export with --{precision}"
                )
                raise FileNotFoundError(f"No {path}: {remedy}, or correct the folder")
        self.folder = folder
        self.precision: Precision = precision
        metadata = read_metadata(encoders[0])
        if recipe not in (None, metadata["recipe"]):
            raise ValueError(f"{folder} was exported from the recipe {metadata['recipe']}, this is {recipe}")
        self.recipe, self.epoch, self.avg = metadata["recipe"], int(metadata["epoch"]), int(metadata["avg"])
        self.encoder: OnnxStreamingEncoder | OnnxOfflineEncoder
        self.encoder = OnnxStreamingEncoder(encoders) if "T" in metadata else OnnxOfflineEncoder(encoders[0])
        self.predictor = OnnxPredictor(decoder)
        self.joiner = OnnxJoiner(joiner)
        # Of older files the lattice is unknown: at most one token per frame suits all.
        self.rnnt_type = metadata.get("rnnt_type", "modified")
        self.feature_dim, self.sample_rate = int(metadata["feature_dim"]), int(metadata["sample_rate"])
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def about(self) -> About:
        """What the README of the folder describes."""
        format = "onnx"
        files = [EncoderFile("encoder", ChunkConfig(), None)]
        if isinstance(self.encoder, OnnxStreamingEncoder):
            format = "onnx-streaming"
            files = self.encoder.files
        title = f"{self.recipe}, epoch {self.epoch}, avg {self.avg}"
        fbank = FbankOptions(self.sample_rate, self.feature_dim)
        precisions = [precision for precision in ENDINGS if encoder_files(self.folder, precision)]
        return About(title, format, files, fbank, precisions)


def encoder_files(folder: Path, precision: Precision = "fp32") -> list[Path]:
    """Encoders of one precision in the folder of an exported model, by name; none in other folders."""
    name = re.compile(r"encoder(-\d+)*" + re.escape(ENDINGS[precision]))
    return sorted(path for path in folder.glob("encoder*") if name.fullmatch(path.name))


class OnnxOfflineEncoder:
    """Encoder for whole utterances, with the joiner's encoder projection.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.chunks = [ChunkConfig()]
        self._run = load_onnx(path)

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        _check_chunk(chunk, self.chunks)

    def __call__(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """See :meth:`summarymix.encoder.base.Encoder.forward`."""
        out, frames = self._run(features, lengths)
        return out, frames


class OnnxStreamingEncoder:
    """Encoder for chunks, with the joiner's encoder projection.

    Silence fills an utterance's last chunk. A word that is emitted late may have its time in that silence.

    Args:
        paths: the ONNX files, one for each chunk size and look-ahead.
    """

    takes_whole_chunks = True  # the graph cannot mask padding

    def __init__(self, paths: Sequence[Path]) -> None:
        contents = [(path, read_metadata(path)) for path in paths]
        self._files = {chunk_of(metadata): (path, metadata) for path, metadata in contents}
        self.chunks = list(self._files)
        self._loaded: dict[tuple[int, int], Callable[..., list[Tensor]]] = {}  # by numbers of features and look-ahead

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        _check_chunk(chunk, self.chunks)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """See :meth:`summarymix.encoder.base.Encoder.init_state`."""
        path, metadata = self._files[chunk]
        key = int(metadata["T"]), chunk.lookahead
        if key not in self._loaded:
            self._loaded[key] = load_onnx(path)
        sizes = {"sum": int(metadata["d_model"]), "cache": int(metadata["rnn_hidden_size"])}  # as in state.KINDS
        return {name: torch.zeros(batch_size, size) for name, size in sizes.items()}

    @property
    def files(self) -> list[EncoderFile]:
        """The files, for a README."""
        return [
            EncoderFile(path.name.split(".")[0], chunk, state_bytes(self.init_state(1, chunk)))
            for chunk, (path, _) in self._files.items()
        ]

    def step(
        self, features: Tensor, state: State, lengths: Tensor | None = None, lookahead: int = 0
    ) -> tuple[Tensor, State]:
        """See :meth:`summarymix.encoder.base.Encoder.step`; all chunks are whole."""
        assert lengths is None
        run = self._loaded[features.size(1), lookahead]
        out, summary, convolution = run(features, *(tensor[None] for tensor in state.values()))
        return out, {"sum": summary[0], "cache": convolution[0]}


def chunk_of(metadata: dict[str, str]) -> ChunkConfig:
    """Setting of a streaming encoder, from the metadata of its file."""
    lookahead_ms = int(metadata.get("lookahead_ms", 0))  # older files have none
    return ChunkConfig.from_ms(int(metadata["chunk_ms"]), int(metadata["left_chunks"]), lookahead_ms)


def _check_chunk(chunk: ChunkConfig, exported: list[ChunkConfig]) -> None:
    if chunk not in exported:
        known = "; ".join(map(str, exported))
        raise ValueError(f"{chunk}: the model was exported with {known}; export it again for other values")


class OnnxPredictor:
    """Stateless predictor, with the joiner's predictor projection.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.context_size = int(read_metadata(path)["context_size"])
        self._run = load_onnx(path)

    def init_state(self, batch_size: int, device: torch.device | None = None) -> State:
        """See :meth:`summarymix.predictor.StatelessPredictor.init_state`."""
        return {"history": torch.zeros(batch_size, self.context_size - 1, dtype=torch.int64)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """See :meth:`summarymix.predictor.StatelessPredictor.step`."""
        history = torch.cat([state["history"], tokens[:, None] + 1], dim=1)  # (N, context_size)
        [out] = self._run(history - 1)
        return out, {"history": history[:, 1:]}


class OnnxJoiner:
    """Joiner without its projections, which are in the encoder and decoder files.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        self.encoder_proj = self.predictor_proj = nn.Identity()
        self._run = load_onnx(path)

    def __call__(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Encoder output (N, J) and decoder output (N, J) to logits (N, V)."""
        [logits] = self._run(encoder, decoder)
        return logits
