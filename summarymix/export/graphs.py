"""The exported graphs: encoder, decoder and joiner, with the inputs and outputs of sherpa-onnx.

sherpa-onnx binds inputs and outputs by position, so their order is a contract. It keeps a stream's states as float32
tensors that begin as zeros, stacks the states of several streams, and does not read their contents. Its model type
``lstm`` has two states of any size, (layers, N, a) and (layers, N, b), which hold this library's state as one layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.chunking import ChunkConfig
from summarymix.encoder.subsampling import FEATURE_OVERLAP, FEATURES_PER_FRAME, features_needed
from summarymix.model import Transducer
from summarymix.predictor import StatelessPredictor
from summarymix.state import kind_of, pack_state, unpack_state


@dataclass(frozen=True)
class Graph:
    """A module with the names, shapes and metadata of its export.

    Args:
        name: stem of the file name: encoder, encoder-640, decoder or joiner.
        module: in evaluation mode.
        inputs: example inputs with batch size two, by name, in order.
        outputs: names of the outputs, in order.
        dynamic: for each input, its dynamic axes and the name of their size.
        metadata: keys that sherpa-onnx reads, and information about the model.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]
    metadata: dict[str, str]


class StreamingEncoder(nn.Module):
    """Encoder for one chunk of each stream, with the joiner's encoder projection.

    The state is split into the summaries and the inputs of convolutions. Without summaries, as in the local baseline,
    the first part gets one number of the second, because some runtimes mishandle empty tensors.

    Args:
        model: a model with a state of fixed size.
        chunk: chunk size, left context and look-ahead, fixed in the graph.
    """

    def __init__(self, model: Transducer, chunk: ChunkConfig) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.projection = model.joiner.encoder_proj
        self.chunk = chunk
        state = model.encoder.init_state(1, chunk)
        summaries = {name: tensor for name, tensor in state.items() if kind_of(name) != "convolutions"}
        self.state = summaries | state  # convolutions last
        total = pack_state(self.state).size(1)
        self.summary_size = max(sum(tensor.numel() for tensor in summaries.values()), 1)
        self.convolution_size = total - self.summary_size

    @property
    def state_bytes(self) -> int:
        """Size of a stream's states."""
        return 4 * (self.summary_size + self.convolution_size)

    def forward(
        self, x: Tensor, summary: Tensor, convolution: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, 4·(C + R) + 3, F) and the states (1, N, a), (1, N, b) to (N, C, J) and the next states.

        Exported graphs have no ``lengths`` (N,), the valid frames of partial chunks.
        """
        state = unpack_state(torch.cat([summary[0], convolution[0]], dim=1), self.state)
        frames, following = self.encoder.step(x, state, lengths, self.chunk.lookahead)  # (N, C, D)
        packed = pack_state({name: following[name] for name in self.state})[None]  # (1, N, a + b)
        return self.projection(frames), packed[..., : self.summary_size], packed[..., self.summary_size :]


class OfflineEncoder(nn.Module):
    """Encoder for whole utterances with full context, with the joiner's encoder projection.

    Args:
        model: any transducer.
    """

    def __init__(self, model: Transducer) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.projection = model.joiner.encoder_proj

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, F) and lengths (N,) int64 to frames (N, T', J), padded at the end, and their lengths (N,)."""
        # Pad to 4·T' + 3 features, T' a multiple of the slowest stack's frame, so that the exporter derives all inner
        # sizes without rounding. T' is at least two such frames: the exporter would specialise on a size of one.
        multiple = self.encoder.chunk_multiple
        frames = multiple * ((x.size(1) + 2 * FEATURES_PER_FRAME * multiple - 1) // (FEATURES_PER_FRAME * multiple))
        x = F.pad(x, (0, 0, 0, FEATURES_PER_FRAME * frames + FEATURE_OVERLAP - x.size(1)))
        out, lengths = self.encoder(x, x_lens, ChunkConfig())  # (N, T', D), (N,)
        return self.projection(out), lengths


class Decoder(nn.Module):
    """Stateless predictor with the joiner's predictor projection; token -1 stands for no token.

    A table has the weighted embedding of each token at each position, so that only their sum is left to compute. With
    ONNX Runtime's grouped convolution, the graph takes twice as long for one stream and ten times as long for 64.

    Args:
        predictor: the model's predictor.
        projection: the joiner's predictor projection.
    """

    table: Tensor
    first_rows: Tensor

    def __init__(self, predictor: StatelessPredictor, projection: nn.Module) -> None:
        super().__init__()
        size, vocab_size = predictor.context_size, predictor.embedding.num_embeddings
        alone = torch.full((size, vocab_size + 1, size), -1)  # (K, V + 1, K), each token at each position
        alone.diagonal(dim1=0, dim2=2).copy_(torch.arange(-1, vocab_size)[:, None])
        with torch.no_grad():
            self.register_buffer("table", predictor.weighted(alone.flatten(0, 1))[:, 0])  # (K·(V + 1), P)
        self.register_buffer("first_rows", torch.arange(size) * (vocab_size + 1) + 1)  # (K,), of token 0
        self.projection = projection

    def forward(self, y: Tensor) -> Tensor:
        """The last tokens (N, context_size) int64 to (N, J)."""
        weighted = F.embedding(y + self.first_rows, self.table)  # (N, K, P)
        return self.projection(weighted.sum(1).relu())


class Joiner(nn.Module):
    """Joiner of projected frames and projected predictor outputs.

    Args:
        model: any transducer.
    """

    def __init__(self, model: Transducer) -> None:
        super().__init__()
        self.joiner = model.joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """Encoder output (N, J) and decoder output (N, J) to logits (N, V)."""
        return self.joiner(encoder_out, decoder_out)


def streaming_graphs(model: Transducer, chunks: Sequence[ChunkConfig], about: dict[str, str]) -> list[Graph]:
    """Graphs for streaming: an encoder for each of ``chunks``, then decoder and joiner.

    Args:
        model: the model to export.
        chunks: chunk sizes and look-aheads, with one left context.
        about: further metadata.

    Raises:
        ValueError: the model cannot be exported, or not with this chunk size.
    """
    check_supported(model)
    for chunk in chunks:
        model.encoder.check_chunk(chunk)
    encoders = [encoder_graph(encoder_name(chunk, chunks), model, chunk, about) for chunk in chunks]
    return [*encoders, *token_graphs(model, about)]


def encoder_name(chunk: ChunkConfig, chunks: Sequence[ChunkConfig]) -> str:
    """Stem of the encoder's file: ``encoder``; beside others ``encoder-480``, with look-ahead ``encoder-480-160``."""
    if len(chunks) == 1:
        return "encoder"
    return f"encoder-{chunk.chunk_ms}" + (f"-{chunk.lookahead_ms}" if chunk.lookahead else "")


def encoder_graph(name: str, model: Transducer, chunk: ChunkConfig, about: dict[str, str]) -> Graph:
    """Graph of a streaming encoder; see :func:`streaming_graphs`."""
    assert chunk.chunk_size is not None
    encoder = StreamingEncoder(model, chunk).eval()
    num_features = features_needed(chunk.chunk_size + chunk.lookahead)
    inputs = {
        "x": torch.zeros(2, num_features, model.config.feature_dim),
        "summary": torch.zeros(1, 2, encoder.summary_size),
        "convolution": torch.zeros(1, 2, encoder.convolution_size),
    }
    metadata = {
        "model_type": "lstm",
        "T": num_features,
        "decode_chunk_len": FEATURES_PER_FRAME * chunk.chunk_size,
        "num_encoder_layers": 1,
        "d_model": encoder.summary_size,
        "rnn_hidden_size": encoder.convolution_size,
        "chunk_ms": chunk.chunk_ms,
        "left_chunks": chunk.left_chunks,
        "lookahead_ms": chunk.lookahead_ms,
    }
    return Graph(
        name,
        encoder,
        inputs,
        ("encoder_out", "new_summary", "new_convolution"),
        {"x": {0: "N"}, "summary": {1: "N"}, "convolution": {1: "N"}},
        {name: str(value) for name, value in metadata.items()} | about,
    )


def offline_graphs(model: Transducer, about: dict[str, str]) -> list[Graph]:
    """Graphs for whole utterances; see :func:`streaming_graphs`."""
    check_supported(model)
    inputs = {"x": torch.zeros(2, 100, model.config.feature_dim), "x_lens": torch.tensor([100, 57])}
    graph = Graph(
        "encoder",
        OfflineEncoder(model).eval(),
        inputs,
        ("encoder_out", "encoder_out_lens"),
        {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}},
        # For any encoder: sherpa-onnx requires an offline model type, and reads all of them alike.
        {"model_type": "conformer"} | about,
    )
    return [graph, *token_graphs(model, about)]


def token_graphs(model: Transducer, about: dict[str, str]) -> list[Graph]:
    """Graphs of decoder and joiner, for streaming and whole utterances."""
    assert isinstance(model.predictor, StatelessPredictor)
    context_size, joiner_dim = model.predictor.context_size, model.config.joiner_dim
    decoder = Graph(
        "decoder",
        Decoder(model.predictor, model.joiner.predictor_proj).eval(),
        {"y": torch.zeros(2, context_size, dtype=torch.int64)},
        ("decoder_out",),
        {"y": {0: "N"}},
        {"vocab_size": str(model.config.vocab_size), "context_size": str(context_size)} | about,
    )
    joiner = Graph(
        "joiner",
        Joiner(model).eval(),
        {"encoder_out": torch.zeros(2, joiner_dim), "decoder_out": torch.zeros(2, joiner_dim)},
        ("logit",),
        {"encoder_out": {0: "N"}, "decoder_out": {0: "N"}},
        {"joiner_dim": str(joiner_dim)} | about,
    )
    return [decoder, joiner]


def check_supported(model: Transducer) -> None:
    """Refuse models that sherpa-onnx cannot run.

    Raises:
        ValueError: the predictor is not stateless, or the mixing is attention.
    """
    if model.config.predictor != "stateless":
        raise ValueError(
            f"the predictor {model.config.predictor} cannot be exported: sherpa-onnx needs a stateless one. "
            "Train with --model.predictor stateless"
        )
    if model.config.mixing.mode == "attention":
        raise ValueError("self-attention cannot be exported: train with --model.mixing.mode merged")
