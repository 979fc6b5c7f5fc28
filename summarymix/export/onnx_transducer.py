"""Exported ONNX files with the interface of the model, for decoding and scoring them with this library."""

from pathlib import Path

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig
from summarymix.export.onnx import load_onnx, read_metadata
from summarymix.state import State


class OnnxTransducer:
    """Exported ONNX files with the transducer interface of recognisers and searches.

    Args:
        folder: output of ``export.py`` in the format onnx or onnx-streaming.
        int8: use the files with int8 weights.
        recipe: expected recipe; files of other recipes are refused. None takes any.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: the files come from another recipe.
    """

    def __init__(self, folder: Path, int8: bool = False, recipe: str | None = None) -> None:
        ending = ".int8.onnx" if int8 else ".onnx"
        paths = {name: folder / (name + ending) for name in ("encoder", "decoder", "joiner")}
        for path in paths.values():
            if not path.is_file():
                remedy = "export with --int8" if int8 else "make the folder with ./export.py --format onnx-streaming"
                raise FileNotFoundError(f"No {path}: {remedy}, or correct the folder")
        metadata = read_metadata(paths["encoder"])
        if recipe not in (None, metadata["recipe"]):
            raise ValueError(f"{folder} was exported from the recipe {metadata['recipe']}, this is {recipe}")
        self.epoch, self.avg = int(metadata["epoch"]), int(metadata["avg"])
        encoder = OnnxStreamingEncoder if "T" in metadata else OnnxOfflineEncoder
        self.encoder = encoder(paths["encoder"], metadata)
        self.chunk = self.encoder.chunk
        self.predictor = OnnxPredictor(paths["decoder"])
        self.joiner = OnnxJoiner(paths["joiner"])
        # Of older files the lattice is unknown: at most one token per frame suits all.
        self.rnnt_type = metadata.get("rnnt_type", "modified")
        self.feature_dim, self.sample_rate = int(metadata["feature_dim"]), int(metadata["sample_rate"])
        self.device, self.dtype = torch.device("cpu"), torch.float32


class OnnxOfflineEncoder:
    """Encoder for whole utterances, with the joiner's encoder projection.

    Args:
        path: the ONNX file.
        metadata: its metadata.
    """

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self.chunk = ChunkConfig()
        self._run = load_onnx(path)

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        _check_chunk(chunk, self.chunk)

    def __call__(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """See :meth:`summarymix.encoder.base.Encoder.forward`."""
        out, frames = self._run(features, lengths)
        return out, frames


class OnnxStreamingEncoder:
    """Encoder for chunks, with the joiner's encoder projection.

    Silence fills an utterance's last chunk. A word that is emitted late may have its time in that silence.

    Args:
        path: the ONNX file.
        metadata: its metadata.
    """

    takes_whole_chunks = True  # the graph cannot mask padding

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        lookahead_ms = int(metadata.get("lookahead_ms", 0))  # older files have none
        self.chunk = ChunkConfig.from_ms(int(metadata["chunk_ms"]), int(metadata["left_chunks"]), lookahead_ms)
        self._sizes = {"sum": int(metadata["d_model"]), "cache": int(metadata["rnn_hidden_size"])}  # as in state.KINDS
        self._run = load_onnx(path)

    def check_chunk(self, chunk: ChunkConfig) -> None:
        """See :meth:`summarymix.encoder.base.Encoder.check_chunk`."""
        _check_chunk(chunk, self.chunk)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """See :meth:`summarymix.encoder.base.Encoder.init_state`."""
        return {name: torch.zeros(batch_size, size) for name, size in self._sizes.items()}

    def step(
        self, features: Tensor, state: State, lengths: Tensor | None = None, lookahead: int = 0
    ) -> tuple[Tensor, State]:
        """See :meth:`summarymix.encoder.base.Encoder.step`; all chunks are whole."""
        assert (lengths, lookahead) == (None, self.chunk.lookahead)
        out, summary, convolution = self._run(features, *(tensor[None] for tensor in state.values()))
        return out, {"sum": summary[0], "cache": convolution[0]}


def _check_chunk(chunk: ChunkConfig, exported: ChunkConfig) -> None:
    if chunk != exported:
        raise ValueError(f"{chunk}: the model was exported with {exported}; export it again for other values")


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
