"""Losses and greedy error rates on the dev data, at fixed chunk sizes and left contexts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.data.loading import Batch
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.ctc import CTCGreedySearch
from summarymix.decoding.greedy import GreedySearch
from summarymix.distributed import World
from summarymix.model import Transducer
from summarymix.scoring.errors import count_errors
from summarymix.scoring.metrics import METRICS, Metric, count_scripts, metric_of_scripts
from summarymix.training.config import TrainConfig
from summarymix.training.precision import autocast
from summarymix.training.stopping import StopRequest

# After this many steps most dev hypotheses should differ.
PLATEAU_STEPS = 2000
PLATEAU_ALIKE = 50.0  # per cent


def setting_name(chunk_ms: int | None, left_chunks: int) -> str:
    """A short name for logs: ``offline``, ``640ms``, ``320ms-left2``."""
    name = "offline" if chunk_ms is None else f"{chunk_ms}ms"
    return name if left_chunks < 0 else f"{name}-left{left_chunks}"


@torch.no_grad()
def validate(
    model: Transducer,
    tokenizer: Tokenizer,
    dev_data: Mapping[str, Iterable[Batch]],
    config: TrainConfig,
    world: World,
    stop_request: StopRequest | None = None,
) -> dict[str, dict[str, float]]:
    """Mean losses per encoder frame and error rates over all dev data, for each of ``config.validation``.

    Losses have their weights after warm-up, so that values compare across the run and with other runs; the consistency
    loss and the delay penalty are left out. A non-finite loss of any utterance makes the mean non-finite.

    Args:
        model: the model.
        tokenizer: its tokens.
        dev_data: this process's share of each dev split, by name.
        config: configuration of the run.
        world: this process and the others.
        stop_request: ends the validation early.

    Returns:
        By setting name, and if there are several corpora also by ``SETTING@CORPUS``: ``loss`` and its parts ``simple``,
        ``pruned`` and ``ctc``; ``wer`` of the transducer and ``ctc_wer`` of the CTC head, both by greedy search, or
        ``cer`` or ``mer`` in place of ``wer``, see :func:`summarymix.scoring.metrics.choose_metric`; ``alike``, the
        share of neighbours in a batch with different transcripts that get the same hypothesis from the transducer. The
        last three are in per cent.
        Empty if a process was told to stop.
    """
    scales = torch.tensor([config.scales.simple, config.scales.pruned, config.scales.ctc], dtype=torch.float64)
    transducer, ctc = (kind(model, unk_id=tokenizer.unk_id) for kind in (GreedySearch, CTCGreedySearch))
    options = replace(config.loss, delay_penalty=0.0)
    settings = [ChunkConfig.from_ms(*setting) for setting in config.validation]
    corpus_of = {split: split.partition("@")[2] or config.data.prefix for split in dev_data}
    tallies = {corpus: [_Tally() for _ in settings] for corpus in corpus_of.values()}
    model.eval()
    for split, batch in ((split, batch) for split, batches in dev_data.items() for batch in batches):
        if stop_request:
            break
        features = batch.features.to(world.device, non_blocking=True)  # (N, T, F)
        for chunk, tally in zip(settings, tallies[corpus_of[split]], strict=True):
            with autocast(world.device, config.precision):
                encoder_out, num_frames = model.encoder(features, batch.feature_lengths, chunk)  # (N, T', D), (N,)
                ctc_log_probs = model.ctc_log_probs(encoder_out)  # (N, T', V)
                losses = model.losses(encoder_out, ctc_log_probs, num_frames, batch.tokens, options)
                texts, ctc_texts = (
                    [tokenizer.decode(hypothesis.tokens) for hypothesis in search.decode(encoder_out, num_frames)]
                    for search in (transducer, ctc)
                )
            tally.losses += torch.stack([part.double().sum() for part in losses[:3]]).cpu()
            tally.frames += int(losses.num_frames.sum())
            tally.texts += zip(batch.texts, texts, ctc_texts, strict=True)
            different = [i for i in range(1, len(texts)) if batch.texts[i] != batch.texts[i - 1]]
            tally.different += len(different)
            tally.alike += sum(texts[i] == texts[i - 1] for i in different)
    model.train()
    if world.sum(torch.tensor(float(bool(stop_request)), device=world.device)) > 0:
        return {}
    together = [sum(of_setting, _Tally()) for of_setting in zip(*tallies.values(), strict=True)]
    groups = {"": together} | ({f"@{corpus}": found for corpus, found in tallies.items()} if len(tallies) > 1 else {})
    return {
        setting_name(*setting) + group: tally.means(scales, world)
        for group, found in groups.items()
        for setting, tally in zip(config.validation, found, strict=True)
    }


def plateau_notice(step: int, alike: float, config: TrainConfig) -> str | None:
    """A notice that the model has not learnt the acoustics yet; None if it has.

    Args:
        step: optimiser steps so far.
        alike: ``alike`` of a setting, from :func:`validate`.
        config: configuration of the run.
    """
    if step < PLATEAU_STEPS or alike < PLATEAU_ALIKE:
        return None
    remedies = [
        "check that transcripts match the audio: see suspicious*.tsv and skipped*.tsv, and listen to some",
        f"delay SpecAugment: --data.spec_augment.warmup_steps above {config.data.spec_augment.warmup_steps}",
        f"increase the weight of the CTC loss: --scales.ctc above {config.scales.ctc:g}",
        "start from a trained model: --init_from",
    ]
    if config.optim.name == "adamw":
        remedies.insert(1, "--optim.name muon")
    return (
        f"After {step} steps {alike:.0f} % of neighbouring dev utterances get the same hypothesis: the model has "
        f"learnt the label statistics but not the acoustics yet. Train on, or {'; or '.join(remedies)}"
    )


@dataclass
class _Tally:
    """Sums of one setting in one process."""

    losses: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))  # simple, pruned, ctc
    frames: int = 0
    texts: list[tuple[str, str, str]] = field(default_factory=list)  # reference, transducer, CTC head
    different: int = 0  # neighbours with different transcripts
    alike: int = 0  # such neighbours with the same hypothesis

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def means(self, scales: Tensor, world: World) -> dict[str, float]:
        """Means over all processes, and error rates in the metric of the references' scripts."""
        scripts = count_scripts(reference for reference, *_ in self.texts)
        sums = world.sum(torch.tensor(scripts, dtype=torch.float64, device=world.device))
        metric = metric_of_scripts(*sums.tolist())
        units, errors, ctc_errors = 0, 0, 0
        for reference, text, ctc_text in self.texts:
            of_one, in_one = count_errors(reference.split(), text.split(), metric)
            units, errors = units + in_one, errors + of_one
            ctc_errors += count_errors(reference.split(), ctc_text.split(), metric)[0]
        counts = (self.frames, units, errors, ctc_errors, self.different, self.alike)
        sums = world.sum(torch.tensor([*self.losses.tolist(), *counts], dtype=torch.float64, device=world.device))
        *losses, frames, units, errors, ctc_errors, different, alike = sums.tolist()
        if frames == 0:
            raise OSError("no dev utterance could be read: restore the data, and continue with the same command")
        simple, pruned, ctc = (loss / frames for loss in losses)
        return {
            "loss": float(torch.tensor([simple, pruned, ctc], dtype=torch.float64) @ scales),
            "simple": simple,
            "pruned": pruned,
            "ctc": ctc,
            metric: 100 * errors / max(units, 1),
            f"ctc_{metric}": 100 * ctc_errors / max(units, 1),
            "alike": 100 * alike / max(different, 1),
        }


def metric_of(values: Mapping[str, Any]) -> Metric:
    """The metric of the error rates that :func:`validate` returned, or that a log has of them."""
    return next((metric for metric in METRICS if metric in values), "wer")
