"""Check of an export: its files must compute what the model computes."""

from collections.abc import Callable

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.encoder.subsampling import FEATURES_PER_FRAME, features_needed
from summarymix.export.onnx import Precision
from summarymix.model import Transducer

# Largest errors: absolute for values up to one, relative to the largest value above.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
# Root mean square of the errors, relative to that of the values. It depends on the model: 3 % of a trained one, 55 % of
# a tiny one with random weights. So only wrong files exceed it; without weights the error is 100 %.
INT8_TOLERANCE = 0.7
MIN_CHUNKS = 5

Graphs = dict[str, Callable[..., list[Tensor]]]
"""Encoders, decoder and joiner of an export as functions, by name."""


class ExportCheck:
    """Compares the outputs of exported files with the model's.

    Args:
        model: the exported model, on the CPU.
        graphs: its exported graphs.
        precision: precision of the files.
    """

    def __init__(self, model: Transducer, graphs: Graphs, precision: Precision = "fp32") -> None:
        self.model = model
        self.graphs = graphs
        self.precision: Precision = precision
        self.generator = torch.Generator().manual_seed(0)

    @torch.inference_mode()
    def streaming(self, name: str, chunk: ChunkConfig, state_sizes: tuple[int, int]) -> None:
        """Check the encoder ``name``: some chunks, of one stream and of three, against utterances under the chunk mask.

        The last chunk does not see the first, if the left context is limited.

        Raises:
            RuntimeError: the outputs differ.
        """
        assert chunk.chunk_size is not None
        num_chunks = max(MIN_CHUNKS, chunk.left_chunks + 2)
        total, shift = num_chunks * chunk.chunk_size, FEATURES_PER_FRAME * chunk.chunk_size
        size = features_needed(chunk.chunk_size + chunk.lookahead)
        for batch_size in (1, 3):
            features = self.features(batch_size, features_needed(total + chunk.lookahead))
            lengths = torch.full((batch_size,), features.size(1))
            expected, _ = self.model.encoder(features, lengths, chunk)
            states = [torch.zeros(1, batch_size, size) for size in state_sizes]
            frames = []
            for k in range(num_chunks):
                part = features[:, shift * k : shift * k + size].contiguous()
                out, *states = self.graphs[name](part, *states)
                frames.append(out)
            self.compare(name, torch.cat(frames, dim=1), self.model.joiner.encoder_proj(expected[:, :total]))

    @torch.inference_mode()
    def offline(self, name: str) -> None:
        """Check the encoder ``name``: one utterance, and a batch of three lengths, against each utterance alone.

        Raises:
            RuntimeError: the outputs differ.
        """
        for lengths in ([150], [98, 7, 333]):
            features = self.features(len(lengths), max(lengths))
            out, frames = self.graphs[name](features, torch.tensor(lengths))
            for n, length in enumerate(lengths):
                alone, num_frames = self.model.encoder(
                    features[n : n + 1, :length], torch.tensor([length]), ChunkConfig()
                )
                if int(frames[n]) != int(num_frames):
                    raise RuntimeError(
                        f"the exported encoder gives {frames[n]} frames for {length} features, "
                        f"the model {int(num_frames)}"
                    )
                self.compare(name, out[n, : int(num_frames)], self.model.joiner.encoder_proj(alone)[0])

    @torch.inference_mode()
    def tokens(self) -> None:
        """Check decoder and joiner against the model, token by token from the start of an utterance."""
        predictor, joiner = self.model.predictor, self.model.joiner
        vocab_size, context_size = self.model.config.vocab_size, self.model.config.context_size
        for batch_size in (1, 3):
            # Blank first, with no token before it; then random tokens, with the last token of the vocabulary.
            history = [torch.full((batch_size,), -1)] * (context_size - 1)
            state = predictor.init_state(batch_size)
            tokens = torch.randint(vocab_size, (context_size + 2, batch_size), generator=self.generator)
            tokens[0], tokens[1] = 0, vocab_size - 1
            for token in tokens:  # (N,)
                history.append(token)
                expected, state = predictor.step(token, state)
                context = torch.stack(history[-context_size:], dim=1)  # (N, context_size)
                [decoder_out] = self.graphs["decoder"](context)
                self.compare("decoder", decoder_out, joiner.predictor_proj(expected))
                frame = torch.randn(decoder_out.shape, generator=self.generator)
                [logits] = self.graphs["joiner"](frame, decoder_out)
                self.compare("joiner", logits, joiner(frame, decoder_out))

    def features(self, batch_size: int, num_frames: int) -> Tensor:
        """Noise (N, T, F) with the mean and standard deviation of the training features in each mel bin."""
        encoder = self.model.encoder
        noise = torch.randn(batch_size, num_frames, self.model.config.feature_dim, generator=self.generator)
        return noise / encoder.feature_scale + encoder.feature_mean

    def compare(self, name: str, found: Tensor, expected: Tensor) -> None:
        """Raise a RuntimeError if shapes or values differ."""
        if found.shape != expected.shape:
            raise RuntimeError(f"the exported {name} gives {tuple(found.shape)}, the model {tuple(expected.shape)}")
        errors = found - expected
        if self.precision == "int8":
            error = float(errors.square().mean().sqrt() / expected.square().mean().sqrt())
            if not error <= INT8_TOLERANCE:
                raise RuntimeError(
                    f"the exported {name} in int8 and the model differ by {error:.0%}: export without --int8"
                )
        else:
            error = float(errors.abs().max())
            if not error <= TOLERANCES[self.precision] * max(1.0, float(expected.abs().max())):
                raise RuntimeError(f"the exported {name} and the model differ by {error:.2g}: please report this")
