"""Exported ONNX files in the place of the model, so that everything that decodes can decode with them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig
from summarymix.data.loading import Batch
from summarymix.data.silence import SILENCE
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed
from summarymix.export.onnx import load_onnx, read_metadata
from summarymix.state import State


class OnnxTransducer(nn.Module):
    """The files of a folder with the interface that recognisers and searches use of a transducer.

    Streams are of whole chunks, as in sherpa-onnx: see :meth:`with_tails`.

    Args:
        folder: that ``export.py`` made, in the format onnx or onnx-streaming.
        int8: take the files with weights in int8.
        recipe: refuse files of another one.

    Raises:
        FileNotFoundError: a file is missing; names it.
        ValueError: the files are of another recipe.
    """

    def __init__(self, folder: Path, int8: bool, recipe: str) -> None:
        super().__init__()
        ending = ".int8.onnx" if int8 else ".onnx"
        paths = {name: folder / (name + ending) for name in ("encoder", "decoder", "joiner")}
        for path in paths.values():
            if not path.is_file():
                remedy = "export with --int8" if int8 else "make the folder with ./export.py --format onnx-streaming"
                raise FileNotFoundError(f"No {path}: {remedy}, or correct --onnx")
        metadata = read_metadata(paths["encoder"])
        if metadata["recipe"] != recipe:
            raise ValueError(f"{folder} was exported from the recipe {metadata['recipe']}, this is {recipe}")
        self.epoch, self.avg = int(metadata["epoch"]), int(metadata["avg"])
        encoder = OnnxStreamingEncoder if "T" in metadata else OnnxOfflineEncoder
        self.encoder = encoder(paths["encoder"], metadata)
        self.chunk = self.encoder.chunk
        self.predictor = OnnxPredictor(paths["decoder"])
        self.joiner = OnnxJoiner(paths["joiner"])
        self.config = SimpleNamespace(feature_dim=int(metadata["feature_dim"]))
        self.device = nn.Parameter(torch.zeros(()), requires_grad=False)  # by which others find where to compute

    def with_tails(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """For files that stream, utterances with so much silence behind them that their last frame is in a whole chunk.
        It is what sherpa-onnx makes of an utterance with the tail padding of the export's README. A word emitted late
        may have its time in that silence."""
        if self.chunk.chunk_size is None:
            yield from batches
            return
        shift, size = FEATURES_PER_FRAME * self.chunk.chunk_size, features_needed(self.chunk.chunk_size)
        for batch in batches:
            lengths = batch.feature_lengths // shift * shift + size  # (N,)
            features = torch.full((len(lengths), max(lengths.tolist(), default=0), batch.features.size(-1)), SILENCE)
            for row, utterance, length in zip(features, batch.features, batch.feature_lengths.tolist(), strict=True):
                row[:length] = utterance[:length]
            yield replace(batch, features=features, feature_lengths=lengths)


class OnnxOfflineEncoder:
    """An encoder of whole utterances, up to the joiner's projection.

    Args:
        path: of the file.
        metadata: of the file.
    """

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self.chunk = ChunkConfig()
        self._run = load_onnx(path)

    def __call__(self, features: Tensor, lengths: Tensor, chunk: ChunkConfig) -> tuple[Tensor, Tensor]:
        """As :meth:`summarymix.encoder.base.Encoder.forward`."""
        out, frames = self._run(features, lengths)
        return out, frames


class OnnxStreamingEncoder:
    """An encoder of chunks, up to the joiner's projection.

    Args:
        path: of the file.
        metadata: of the file.
    """

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self.chunk = ChunkConfig.from_ms(int(metadata["chunk_ms"]), int(metadata["left_chunks"]))
        self._sizes = {"summary": int(metadata["d_model"]), "convolution": int(metadata["rnn_hidden_size"])}
        self._run = load_onnx(path)

    def init_state(self, batch_size: int, chunk: ChunkConfig) -> State:
        """As :meth:`summarymix.encoder.base.Encoder.init_state`."""
        return {name: torch.zeros(batch_size, size) for name, size in self._sizes.items()}

    def step(self, features: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """As :meth:`summarymix.encoder.base.Encoder.step`.

        Raises:
            ValueError: ``lengths`` says that frames of the chunk are padding, which exported graphs know nothing of.
        """
        if lengths is not None:
            raise ValueError("exported encoders take whole chunks: give utterances a tail of silence")
        out, summary, convolution = self._run(features, *(tensor[None] for tensor in state.values()))
        return out, {"summary": summary[0], "convolution": convolution[0]}


class OnnxPredictor:
    """A stateless predictor, the joiner's projection included.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.context_size = int(read_metadata(path)["context_size"])
        self._run = load_onnx(path)

    def init_state(self, batch_size: int, device: torch.device | None = None) -> State:
        """As :meth:`summarymix.predictor.StatelessPredictor.init_state`."""
        return {"history": torch.zeros(batch_size, self.context_size - 1, dtype=torch.int64)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """As :meth:`summarymix.predictor.StatelessPredictor.step`."""
        history = torch.cat([state["history"], tokens[:, None] + 1], dim=1)  # (N, context_size)
        [out] = self._run(history - 1)
        return out, {"history": history[:, 1:]}


class OnnxJoiner:
    """The joiner, whose projections encoder and decoder have.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.encoder_proj = self.predictor_proj = nn.Identity()
        self._run = load_onnx(path)

    def __call__(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        """(N, J) and (N, J) to (N, V)."""
        [logits] = self._run(encoder, decoder)
        return logits
