"""Memory check of the largest batches before training, instead of a failure in the middle of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from summarymix.data.loading import Batch
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer, View
from summarymix.training.config import TrainConfig
from summarymix.training.interfaces import EpochData
from summarymix.training.log import TrainingLog
from summarymix.training.precision import autocast
from summarymix.training.usage import peak_memory

GIB = 2**30


def scan_memory(
    model: Transducer,
    train_data: EpochData,
    config: TrainConfig,
    log: TrainingLog,
    has_state: bool,
) -> None:
    """Run forward and backward on the largest batches with the settings that need most memory for them, as far as
    training draws them, and log the memory of each.

    Weights, gradients and random states do not change. Each process scans on its own GPU.

    Args:
        model: model on its device, without gradients.
        train_data: the batches to train on.
        config: configuration of the run.
        log: log that gets a line for each batch.
        has_state: True if the optimiser already has its state; otherwise memory for it is reserved during the scan.

    Raises:
        MemoryError: a batch does not fit; the message names it and the remedy.
    """
    device = next(model.parameters()).device
    # Optimisers keep at most two numbers for each parameter.
    room = [] if has_state else [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
    multiple = model.encoder.chunk_multiple
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for reason, batch in train_data.worst_batches(config.chunk.sizes(multiple)):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            for chunk in config.chunk.extremes(int(output_lengths(batch.feature_lengths).max()), multiple):
                with explain_out_of_memory(batch, config, f"the batch with the {reason},"):
                    with autocast(device, config.precision):
                        views = [View(batch.features.to(device), chunk)] * config.scales.num_views()
                        losses = model(views, batch.feature_lengths, batch.tokens, config.loss)
                    (losses.simple + losses.pruned + losses.ctc + losses.consistency).sum().backward()
            model.zero_grad(set_to_none=True)
            log.say_once(f"The batch with the {reason}, of {_describe(batch)}: {_peak_memory(device)}")
    del room


@contextmanager
def explain_out_of_memory(batch: Batch, config: TrainConfig, which: str = "a batch") -> Iterator[None]:
    """Replace torch's out-of-memory error by one that names the batch and the remedy.

    Raises:
        MemoryError: the GPU is out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"Out of GPU memory with {which} of {_describe(batch)}. Lower --data.max_duration (now "
            f"{config.data.max_duration}) and raise --accumulate (now {config.accumulate}) in proportion, or for a "
            f"single long utterance lower --data.max_seconds (now {config.data.max_seconds}); then repeat the command. "
            f"So far {_peak_memory(torch.device('cuda'))}. The original message: {error}"
        ) from error


def _describe(batch: Batch) -> str:
    frames, tokens = batch.features.shape[1], max(map(len, batch.tokens), default=0)
    return f"{len(batch)} utterances of up to {frames} feature frames and {tokens} tokens"


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device).total_memory
        return f"peak memory {peak_memory(device) / GIB:.2f} of {total / GIB:.2f} GiB"
    return f"peak memory of the process so far {peak_memory(torch.device('cpu')) / GIB:.2f} GiB"
