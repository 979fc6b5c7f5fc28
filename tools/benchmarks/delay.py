"""Emission delay: time from the end of a spoken word to its emission, and to the availability of the result."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import kaldialign
import numpy as np
import torch
from torch import Tensor

from summarymix.chunking import FRAME_MS, ChunkConfig
from summarymix.data.features import FbankOptions, latency_ms
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.evaluate import decode_batch
from summarymix.decoding.greedy import GreedySearch, Hypothesis
from summarymix.decoding.words import words_of
from summarymix.model import BLANK, Transducer
from summarymix.scoring.errors import ErrorStats, ScoredUtterance

PERCENTILES = tuple(range(1, 100))


class Span(NamedTuple):
    """First and last encoder frame of an aligned token."""

    first: int
    last: int


class Emission(NamedTuple):
    """A correctly recognised token: its kind, and its encoder frames of emission and alignment."""

    what: str  # for instance "word, last token"
    emitted: int
    aligned: int


@dataclass
class Collected:
    """Delays in ms by (kind, clock), and recognised utterances, for one chunk configuration."""

    delays: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    utterances: list[ScoredUtterance] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Error rate with its 95 % interval, numbers of words and delay statistics, for the JSON file."""
        stats = ErrorStats.from_utterances(self.utterances)
        delays = [{"what": what, "clock": clock} | describe(values) for (what, clock), values in self.delays.items()]
        counts = {"wer": stats.rate, "interval": stats.interval(), "words": stats.units, "correct": stats.correct}
        return counts | {"delays": delays}


def describe(values: list[float]) -> dict[str, Any]:
    """Number, mean and the percentiles 1 to 99."""
    return {
        "count": len(values),
        "mean": float(np.mean(values)),
        "percentiles": np.percentile(values, PERCENTILES).tolist(),
    }


def align(log_probs: Tensor, tokens: list[int]) -> list[Span] | None:
    """Align tokens to log-probabilities (T, V) of a CTC head along the most likely path.

    None if there are no tokens, or too few frames for them.
    """
    from torchaudio.functional import forced_align

    # Two equal tokens in a row need a blank between them.
    if not tokens or log_probs.size(0) < len(tokens) + sum(a == b for a, b in pairwise(tokens)):
        return None
    path, _ = forced_align(log_probs[None].cpu(), torch.tensor([tokens]), blank=BLANK)  # (1, T)
    spans, frame = [], 0
    for token, run in groupby(path[0].tolist()):
        length = len(list(run))
        if token != BLANK:
            spans.append(Span(frame, frame + length - 1))
        frame += length
    return spans


def emissions(tokens: list[int], spans: list[Span], hypothesis: Hypothesis, tokenizer: Tokenizer) -> list[Emission]:
    """First and last tokens of correct words, and of the utterance if every word is correct.

    A token that is only a space does not count as the first token of a word.

    Args:
        tokens: tokens of the transcript.
        spans: their aligned frames.
        hypothesis: recognised tokens and their frames.
        tokenizer: tokenizer of both.
    """
    refs, hyps = words_of(tokens, tokenizer), words_of(hypothesis.tokens, tokenizer)
    found, ref, hyp = [], 0, 0
    for a, b in kaldialign.align([word.text for word in refs], [word.text for word in hyps], ""):
        if a == b:
            emitted, aligned = hyps[hyp], refs[ref]
            found += [
                Emission("word, first token", hypothesis.frames[emitted.sound], spans[aligned.sound].first),
                Emission("word, last token", hypothesis.frames[emitted.last], spans[aligned.last].last),
            ]
        ref += a != ""
        hyp += b != ""
    if refs and [word.text for word in refs] == [word.text for word in hyps]:
        found += [
            Emission("utterance, first token", found[0].emitted, found[0].aligned),
            Emission("utterance, last token", found[-1].emitted, found[-1].aligned),
        ]
    return found


def delays_of(emission: Emission, chunk: ChunkConfig, lookahead_ms: float) -> dict[str, float]:
    """Delay of an emission in ms by both clocks, from the end of the aligned frame.

    frame: to the end of the emitting frame, as if results came frame by frame. availability: to the arrival of
    the audio for the result, which is the chunk of that frame and the lookahead of the front end; only in streaming.
    """
    ends = {"frame": FRAME_MS * (emission.emitted + 1.0)}
    if chunk.chunk_size is not None:
        chunks = emission.emitted // chunk.chunk_size + 1
        ends["availability"] = FRAME_MS * chunks * chunk.chunk_size + lookahead_ms
    return {clock: end - FRAME_MS * (emission.aligned + 1) for clock, end in ends.items()}


@torch.inference_mode()
def collect(
    aligner: Transducer,
    tokenizer: Tokenizer,
    search: GreedySearch,
    chunks: list[ChunkConfig],
    fbank: FbankOptions,
    batches: Iterable[Batch],
) -> tuple[dict[ChunkConfig, Collected], dict[str, int]]:
    """Decode a split with each chunk configuration, and collect delays from CTC alignments with full context.

    Whole utterances under chunk masks give the same tokens as streaming, and decode faster.

    Args:
        aligner: model whose CTC head aligns the transcripts.
        tokenizer: tokenizer of both models.
        search: search with the model that is measured.
        chunks: chunk configurations to decode with.
        fbank: options of the features.
        batches: batches of the split.

    Returns:
        The delays, and the numbers of utterances with and without an alignment.
    """
    collected = {chunk: Collected() for chunk in chunks}
    counts: Counter[str] = Counter(aligned=0, not_aligned=0)
    for batch in batches:
        encoder_out, lengths = aligner.encoder(
            batch.features.to(aligner.device), batch.feature_lengths.to(aligner.device), ChunkConfig()
        )
        log_probs = aligner.ctc_log_probs(encoder_out)  # (N, T, V)
        spans = [align(p[:n], t) for p, n, t in zip(log_probs, lengths.tolist(), batch.tokens, strict=True)]
        counts.update("not_aligned" if one is None else "aligned" for one in spans)
        for chunk, into in collected.items():
            lookahead = (latency_ms(chunk, fbank) or 0.0) - (chunk.chunk_ms or 0)
            hypotheses = decode_batch(search, batch, chunk)
            rows = zip(batch.cut_ids, batch.texts, batch.tokens, spans, hypotheses, strict=True)
            for cut_id, text, tokens, aligned, hypothesis in rows:
                words = tokenizer.decode(hypothesis.tokens).split()
                into.utterances.append(ScoredUtterance(cut_id, text.split(), words))
                for emission in emissions(tokens, aligned, hypothesis, tokenizer) if aligned else []:
                    for clock, delay in delays_of(emission, chunk, lookahead).items():
                        into.delays.setdefault((emission.what, clock), []).append(delay)
    return collected, dict(counts)
