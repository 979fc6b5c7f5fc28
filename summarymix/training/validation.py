"""Losses on the dev data, at fixed chunk sizes and left contexts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from summarymix.chunking import ChunkConfig
from summarymix.data.loading import Batch
from summarymix.model import Transducer
from summarymix.training.config import TrainConfig
from summarymix.training.distributed import World
from summarymix.training.precision import autocast


def setting_name(chunk_ms: int | None, left_chunks: int) -> str:
    """A short name for logs: ``offline``, ``640ms``, ``320ms-left2``."""
    name = "offline" if chunk_ms is None else f"{chunk_ms}ms"
    return name if left_chunks < 0 else f"{name}-left{left_chunks}"


@torch.no_grad()
def validate(
    model: Transducer, dev_data: Sequence[Iterable[Batch]], config: TrainConfig, world: World
) -> dict[str, dict[str, float]]:
    """Mean losses per encoder frame over all dev data, for each of ``config.validation``.

    The weights of the losses are those after their warm-up, so that values compare across the run; each setting's are
    its own, without the consistency loss. A non-finite loss of any utterance makes the mean non-finite: it is not
    hidden. Each process takes its share of the batches.

    Returns:
        For each setting's name: ``loss`` and its parts ``simple``, ``pruned`` and ``ctc``.
    """
    settings = {setting_name(*setting): ChunkConfig.from_ms(*setting) for setting in config.validation}
    scales = torch.tensor([config.scales.simple, config.scales.pruned, config.scales.ctc], dtype=torch.float64)
    sums = torch.zeros(len(settings), 4, dtype=torch.float64, device=world.device)  # simple, pruned, ctc, frames
    options = replace(config.loss, consistency_scale=0.0)
    model.eval()
    for number, batch in enumerate(chain(*dev_data)):
        if number % world.size != world.rank:
            continue
        features = batch.features.to(world.device)  # (N, T, F)
        lengths = batch.feature_lengths.to(world.device)
        for row, chunk in zip(sums, settings.values(), strict=True):
            with autocast(world.device, config.precision):
                losses = model(features, lengths, batch.tokens, chunk, options)
            parts = (losses.simple, losses.pruned, losses.ctc, losses.num_frames)
            row += torch.stack([part.double().sum() for part in parts])
    model.train()
    means: Tensor = world.sum(sums).cpu()
    means = means[:, :3] / means[:, 3:]  # (settings, 3)
    return {
        name: dict(zip(("loss", "simple", "pruned", "ctc"), [float(row @ scales), *row.tolist()], strict=True))
        for name, row in zip(settings, means, strict=True)
    }
