"""The transducer: encoder, predictor and joiner, trained with pruned RNN-T and an auxiliary CTC loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summarymix.blocks.mixing import MixingConfig
from summarymix.blocks.regularizers import Balancer
from summarymix.chunking import ChunkConfig, length_mask, pinned, to_device
from summarymix.configs import check_least, dotted, plain
from summarymix.encoder.base import Encoder
from summarymix.encoder.conformer import Conformer, ConformerConfig
from summarymix.encoder.zipformer import Zipformer, ZipformerConfig
from summarymix.joiner import Joiner
from summarymix.loss import do_rnnt_pruning, get_rnnt_prune_ranges, rnnt_loss_pruned, rnnt_loss_smoothed
from summarymix.predictor import LSTMPredictor, StatelessPredictor

BLANK = 0  # of every token table, as in k2, icefall and sherpa


@dataclass
class ModelConfig:
    """Configuration of the transducer."""

    encoder: Literal["conformer", "zipformer"] = "conformer"
    """Encoder type; zipformer is the zip-style encoder."""
    feature_dim: int = 0
    """Mel bins of the features; 0 takes data.num_mel_bins."""
    dropout: float = 0.1
    """Dropout rate in the encoder and the LSTM predictor. The zip-style encoder's feed-forward modules begin with three
    times as much."""
    conformer: ConformerConfig = field(default_factory=ConformerConfig)
    """Sizes of the Conformer."""
    zipformer: ZipformerConfig = field(default_factory=ZipformerConfig)
    """Sizes of the zip-style encoder."""
    predictor: Literal["stateless", "lstm"] = "stateless"
    """Predictor type; a stateless one sees the last ``context_size`` tokens."""
    predictor_dim: int = 256
    """Width of the predictor."""
    context_size: int = 2
    """Tokens that the stateless predictor sees."""
    joiner_dim: int = 256
    """Width of the joiner."""
    vocab_size: int = 0
    """Number of tokens, blank included; 0 takes it from the token table."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    """Mixing of frames: SummaryMixing, or a baseline."""

    def __post_init__(self) -> None:
        check_least(self, "model.", predictor_dim=1, context_size=1, joiner_dim=1)
        most = 1.0 if self.encoder == "conformer" else 1 / 3  # see ``dropout``
        if not 0 <= self.dropout < most:
            raise ValueError(f"--model.dropout {self.dropout} must be from 0 to below {most:.3g} for a {self.encoder}")

    def without_effect(self) -> list[str]:
        """Options that were set but belong to another encoder or predictor."""
        defaults = dict(dotted(plain(ModelConfig())))
        others = ["zipformer." if self.encoder == "conformer" else "conformer."]
        if self.predictor != "stateless":
            others.append("context_size")
        return [
            f"--model.{name} {value}"
            for name, value in dotted(plain(self))
            if value != defaults[name] and name.startswith(tuple(others))
        ]

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Make the configuration from the values in a checkpoint; missing options get their defaults."""
        parts = {"conformer": ConformerConfig, "zipformer": ZipformerConfig, "mixing": MixingConfig}
        return cls(**{**values, **{name: part(**values.get(name, {})) for name, part in parts.items()}})


def make_encoder(config: ModelConfig) -> Encoder:
    """Make the encoder of a configuration."""
    if config.encoder == "conformer":
        return Conformer(config.conformer, config.mixing, config.feature_dim, config.dropout)
    return Zipformer(config.zipformer, config.mixing, config.feature_dim, config.dropout)


@dataclass
class LossConfig:
    """Options of the pruned RNN-T loss, with k2's names and meanings (arXiv 2206.13236)."""

    prune_range: int = 5
    """Tokens kept per frame."""
    lm_only_scale: float = 0.25
    """Share of the predictor-only log-probability in the smoothed simple loss."""
    am_only_scale: float = 0.0
    """Share of the encoder-only log-probability; above 0 the loss depends on the rest of the batch."""
    rnnt_type: Literal["regular", "modified", "constrained"] = "regular"
    """Lattice: a token consumes no frame (regular) or one (modified); constrained is modified with the blank of the
    next context added at the same frame."""
    delay_penalty: float = 0.0
    """Above 0, rewards early emission (arXiv 2211.00490), in nats per frame; its authors tried 0.0015 to 0.01. As in
    icefall, training applies it after twice ``scales.warmup_steps``, because otherwise it may not converge."""
    fastemit: float = 0.0
    """Above 0, encourages early emission too: λ of FastEmit (arXiv 2010.11148), the additional weight of the gradients
    of tokens. k2 does not have it, so that the native loss is used."""
    backend: Literal["auto", "native", "k2"] = "auto"
    """Implementation of the loss; auto takes k2 if it can be imported."""

    def __post_init__(self) -> None:
        least = 1 if self.rnnt_type == "modified" else 2
        if self.prune_range < least:
            raise ValueError(f"--loss.prune_range {self.prune_range} must be {least} or more in this lattice")
        check_least(self, "loss.", delay_penalty=0, fastemit=0)
        if self.fastemit and self.backend == "k2":
            raise ValueError("--loss.fastemit needs --loss.backend native or auto: k2 has no FastEmit")


class View(NamedTuple):
    """A masked copy of a batch's features, and the chunk configuration to encode it with."""

    features: Tensor  # (N, T, F)
    chunk: ChunkConfig


class TransducerLosses(NamedTuple):
    """Losses of each utterance, summed over its frames in float32, (N,) each, and its number of encoder frames (N,)."""

    simple: Tensor
    pruned: Tensor
    ctc: Tensor
    consistency: Tensor
    num_frames: Tensor


def consistency_loss(first: Tensor, second: Tensor, num_frames: Tensor) -> Tensor:
    """Compute the mean of KL(first ‖ second) and KL(second ‖ first), summed over each utterance's valid frames: (N,).

    In each divergence only the second argument gets a gradient (CR-CTC, arXiv 2410.05101, equation 2).

    Args:
        first: log-probabilities (N, T, V).
        second: log-probabilities (N, T, V) of the same frames in another view.
        num_frames: (N,), valid frames of each utterance.
    """
    both = [(first.detach(), second), (second.detach(), first)]
    divergences = [F.kl_div(q, p, log_target=True, reduction="none").sum(-1) for p, q in both]  # (N, T) each
    divergence = torch.stack(divergences).mean(0)  # (N, T)
    return divergence.masked_fill(~length_mask(num_frames, divergence.size(1), first.device), 0.0).sum(1)


class TransducerParts(Protocol):
    """The parts of a transducer that decoding uses. Exported models have them too."""

    encoder: Any
    predictor: Any
    joiner: Any

    @property
    def feature_dim(self) -> int:
        """Number of features per frame."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the features that the encoder takes."""


class Transducer(nn.Module):
    """A transducer (arXiv 1211.3711) with an encoder, a predictor, a joiner, and an auxiliary CTC head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size < 2:
            raise ValueError(f"model.vocab_size is {config.vocab_size}; it must be at least 2: blank and one token")
        if config.feature_dim < 1:
            raise ValueError(f"model.feature_dim is {config.feature_dim}; it must be at least 1")
        self.config = config
        self.encoder = make_encoder(config)
        dim = self.encoder.dim
        self.predictor: StatelessPredictor | LSTMPredictor
        if config.predictor == "stateless":
            self.predictor = StatelessPredictor(config.vocab_size, config.predictor_dim, config.context_size)
        else:
            self.predictor = LSTMPredictor(config.vocab_size, config.predictor_dim, config.dropout)
        self.joiner = Joiner(dim, config.predictor_dim, config.joiner_dim, config.vocab_size)
        # ScaledAdam has no weight decay, so the joiner's inputs grow and saturate the tanh: in the mini recipe to an
        # rms of 3.4 and 6.8, against 1.4 and 1.9 with AdamW. The balancer gives 2.7 and 5.4, and halves the dev loss.
        self.joiner_balancer: Balancer | None = None
        if config.encoder == "zipformer":
            self.joiner_balancer = Balancer(config.joiner_dim, 0.0, 1.0, min_abs=0.0, max_abs=1.0)
        # Projections to the vocabulary for the simple loss, which finds the pruning bounds; decoding does not use them.
        self.simple_encoder_proj = nn.Linear(dim, config.vocab_size)
        self.simple_predictor_proj = nn.Linear(config.predictor_dim, config.vocab_size)
        self.ctc_head = nn.Linear(dim, config.vocab_size)

    @property
    def feature_dim(self) -> int:
        """Number of features per frame."""
        return self.config.feature_dim

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.ctc_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.ctc_head.weight.dtype

    def set_feature_stats(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation of each mel bin, (F,), that normalise the features."""
        self.encoder.set_feature_stats(mean, std)

    def ctc_log_probs(self, encoder_out: Tensor) -> Tensor:
        """Map encoder frames (N, T', D) to log-probabilities of the CTC head (N, T', V), in float32."""
        return self.ctc_head(encoder_out).float().log_softmax(-1)

    def forward(
        self,
        views: Sequence[View],
        lengths: Tensor,
        tokens: list[list[int]],
        options: LossConfig,
    ) -> TransducerLosses:
        """Compute the losses of a batch, averaged over its views.

        With ``am_only_scale`` 0, an utterance's losses do not depend on the rest of the batch. One exception: in the
        regular lattice, an utterance with more tokens than ``prune_range - 1`` times its frames widens all windows.

        Args:
            views: one, or two whose CTC outputs the consistency loss compares.
            lengths: (N,) int64, feature frames of each utterance, best on the CPU; each must make at least one encoder
                frame.
            tokens: transcripts as token numbers, without blank; may be empty.
            options: options of the pruned loss.
        """
        encoded = [self.encoder(view.features, lengths, view.chunk) for view in views]
        # The W views are encoded separately and concatenated to one batch.
        encoder_out, num_frames = (torch.cat(parts) for parts in zip(*encoded, strict=True))  # (W·N, T, D), (W·N,)
        ctc_log_probs = self.ctc_log_probs(encoder_out)  # (W·N, T, V)
        losses = self.losses(encoder_out, ctc_log_probs, num_frames, tokens * len(views), options)
        simple, pruned, ctc = (part.unflatten(0, (len(views), -1)).mean(0) for part in losses[:3])  # (N,)
        num_frames = encoded[0][1]
        if len(views) == 1:
            consistency = torch.zeros_like(ctc)
        else:
            first, second = ctc_log_probs.chunk(2)  # (N, T, V) each
            consistency = consistency_loss(first, second, num_frames)
        return TransducerLosses(simple, pruned, ctc, consistency, num_frames)

    def losses(
        self,
        encoder_out: Tensor,
        ctc_log_probs: Tensor,
        num_frames: Tensor,
        tokens: list[list[int]],
        options: LossConfig,
    ) -> TransducerLosses:
        """Compute the losses of encoded utterances; the consistency loss, which needs two views, is 0.

        Args:
            encoder_out: (N, T, D).
            ctc_log_probs: output of :meth:`ctc_log_probs`, (N, T, V).
            num_frames: (N,) int64, encoder frames of each utterance; on the CPU, nothing waits for a GPU.
            tokens: transcripts as token numbers, without blank; may be empty.
            options: options of the pruned loss.
        """
        device = encoder_out.device
        num_tokens = torch.tensor([len(row) for row in tokens], device=num_frames.device)  # (N,)
        targets = nn.utils.rnn.pad_sequence(
            [torch.tensor(row, dtype=torch.int64) for row in tokens], batch_first=True, padding_value=BLANK
        )
        targets = to_device(targets, device)  # (N, S)
        predictor_out = self.predictor(F.pad(targets, (1, 0), value=BLANK))  # (N, S+1, P)

        zeros = torch.zeros_like(num_tokens)
        boundary = pinned(torch.stack([zeros, zeros, num_tokens, num_frames], dim=1), device)  # (N, 4)
        simple_encoder = self.simple_encoder_proj(encoder_out)  # (N, T, V)
        simple_predictor = self.simple_predictor_proj(predictor_out)  # (N, S+1, V)
        frames_proj = self.joiner.encoder_proj(encoder_out)  # (N, T, J)
        predictor_proj = self.joiner.predictor_proj(predictor_out)  # (N, S+1, J)
        if self.joiner_balancer is not None:
            frames_proj = self.joiner_balancer(frames_proj, length_mask(num_frames, frames_proj.size(1), device))
            contexts = length_mask(num_tokens + 1, predictor_proj.size(1), device)  # (N, S+1)
            predictor_proj = self.joiner_balancer(predictor_proj, contexts)

        with torch.autocast(device.type, enabled=False):
            simple, (px_grad, py_grad) = rnnt_loss_smoothed(
                lm=simple_predictor.float(),
                am=simple_encoder.float(),
                symbols=targets,
                termination_symbol=BLANK,
                lm_only_scale=options.lm_only_scale,
                am_only_scale=options.am_only_scale,
                boundary=boundary,
                rnnt_type=options.rnnt_type,
                delay_penalty=options.delay_penalty,
                reduction="none",
                return_grad=True,
                fastemit=options.fastemit,
                backend=options.backend,
            )
        ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, options.prune_range)  # (N, T, r)
        logits = self.joiner(*do_rnnt_pruning(frames_proj, predictor_proj, ranges))  # (N, T, r, V)
        with torch.autocast(device.type, enabled=False):
            pruned = rnnt_loss_pruned(
                logits=logits,
                symbols=targets,
                ranges=ranges,
                termination_symbol=BLANK,
                boundary=boundary,
                rnnt_type=options.rnnt_type,
                delay_penalty=options.delay_penalty,
                reduction="none",
                fastemit=options.fastemit,
                backend=options.backend,
            )
            ctc = F.ctc_loss(
                ctc_log_probs.transpose(0, 1),
                targets,
                num_frames,
                num_tokens,
                blank=BLANK,
                reduction="none",
            )
        return TransducerLosses(simple, pruned, ctc, torch.zeros_like(ctc), num_frames)
