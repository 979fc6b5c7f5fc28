"""How often a training step waits for a GPU, and devices that must not be mixed, on a pretended GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import GPU, PretendGpu
from training_toy import SMALL_ZIP, TOKENIZER, ToyData, ToyDev, toy_config, toy_model

from summarymix.chunking import ChunkConfig
from summarymix.data.loading import Batch
from summarymix.decoding.evaluate import DecodeSetting, decode_split
from summarymix.decoding.methods import SearchOptions
from summarymix.distributed import World
from summarymix.encoder.subsampling import output_lengths
from summarymix.loss import recursion
from summarymix.training import run as run_module
from summarymix.training.run import Run
from summarymix.training.validation import validate

CTC = ("ctc_greedy_search", "ctc_prefix_beam_search")


class PinnedData(ToyData):
    """Batches in pinned memory, as a DataLoader makes them."""

    def epoch(self, *args: Any, **options: Any) -> Iterator[Batch]:
        return (batch.pin_memory() for batch in super().epoch(*args, **options))


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a real device to ask, nor Triton's kernels."""
    monkeypatch.setattr(run_module, "environment", lambda config, world: {})
    monkeypatch.setattr(run_module, "peak_memory", lambda device: 0)
    monkeypatch.setattr(recursion, "_loops", lambda device: (recursion._advance, recursion._retreat))


@pytest.mark.parametrize(("encoder", "views"), [("conformer", 1), ("conformer", 2), ("zipformer", 1)])
def test_a_step_waits_once_or_twice(encoder: str, views: int, tmp_path: Path) -> None:
    config = toy_config(tmp_path, scan_memory=False)
    config.model.encoder, config.model.zipformer = encoder, SMALL_ZIP
    if encoder == "zipformer":
        config.optim.name = "scaled_adam"
    if views == 2:
        config.scales.consistency = 0.2
    config.chunk.lookahead_prob = 0.5
    counts = []
    with PretendGpu() as gpu:
        run = Run(config, toy_model(config), TOKENIZER, PinnedData(), {"dev": ToyDev()}, World(GPU), "toy")
        for group in run.groups():
            gpu.waits.clear()
            step = run.forward_backward(group)
            run.update(step)
            run.report(step)
            counts.append(len(gpu.waits))
            assert len(gpu.waits) <= 2 or len(counts) == 1, gpu.waits  # the first step makes the optimiser's state
    assert min(counts) == (2 if encoder == "zipformer" else 1)  # for the losses; for norms that the optimiser needs


@pytest.mark.parametrize("encoder", ["conformer", "zipformer"])
@pytest.mark.parametrize("mode", ["merged", "attention"])
def test_validation_and_searches_keep_devices_apart(encoder: str, mode: str, tmp_path: Path) -> None:
    config = toy_config(tmp_path, validation=[(None, -1), (320, 2)])
    config.model.encoder, config.model.zipformer, config.model.mixing.mode = encoder, SMALL_ZIP, mode
    model, dev = toy_model(config).eval(), ToyData().dev()
    settings = [DecodeSetting("offline")]
    settings += [DecodeSetting(kind, ChunkConfig(8, 2, 4)) for kind in ("simulated", "streaming")]

    def decode() -> list[list[list[int]]]:
        found = []
        for method in ("greedy_search", "modified_beam_search", *CTC):
            for setting in settings:
                search = SearchOptions(method).build(model, TOKENIZER)
                hypotheses = decode_split(search, setting, dev, num_streams=2).hypotheses
                found.append([hypothesis.tokens for _, hypothesis in sorted(hypotheses.items())])
        return found

    expected = decode()
    with PretendGpu() as gpu:
        model.to(GPU)
        assert decode() == expected
        assert gpu.waits
        found = validate(model, TOKENIZER, {"dev": dev}, config, World(GPU))
    assert found.keys() == {"offline", "320ms-left2"}


def test_validation_waits_once_a_frame(tmp_path: Path) -> None:
    """For the greedy search of the transducer; besides this, a few times for each batch and setting."""
    config = toy_config(tmp_path, validation=[(None, -1), (320, 2)])
    model, dev = toy_model(config).eval(), list(ToyData().dev())
    frames = sum(output_lengths(batch.features.size(1)) for batch in dev)
    with PretendGpu() as gpu:
        model.to(GPU)
        dev = [batch.pin_memory() for batch in dev]
        gpu.waits.clear()
        validate(model, TOKENIZER, {"dev": dev}, config, World(GPU))
        assert len(gpu.waits) <= 2 * (frames + 10 * len(dev)), gpu.waits


def test_the_pretended_gpu_notices_waits_and_mixed_devices() -> None:
    with PretendGpu() as gpu:
        x = torch.arange(6.0).pin_memory().to(GPU, non_blocking=True)
        mask = (x.view(2, 3) > 1).any(0)
        total = torch.zeros(3, device=GPU) + mask
        assert (x.device, total.device, torch.ones(1).device.type) == (GPU, GPU, "cpu")
        assert gpu.waits == []
        float(total.sum()), mask.tolist(), x[:3][mask], x.cpu(), torch.ones(2).to(GPU), bool(torch.ones(1) > 0)
        assert len(gpu.waits) == 5
        with pytest.raises(RuntimeError, match="tensors of cuda:0 and cpu together"):
            total.add(torch.ones(3))
        total.add(torch.tensor(1.0))
