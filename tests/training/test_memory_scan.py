"""The scan of the worst batches: it changes nothing and explains what does not fit."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toy import ToyData, run, toy_config

from summarymix.chunking import DynamicChunkConfig
from summarymix.data.loading import Batch
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer
from summarymix.runs import read_checkpoint


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "scaled_adam"])
def test_scan_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: Any) -> None:
    checkpoints = []
    for scan in (False, True):
        config = toy_config(tmp_path / str(scan), scan_memory=scan, num_epochs=1)
        config.optim.name = optimizer
        run(config)
        said = capsys.readouterr().err
        assert ("The batch with the longest utterance, of 3 utterances of up to" in said) == scan
        assert ("GiB" in said) == scan
        checkpoints.append(read_checkpoint(tmp_path / str(scan) / "epoch-1.pt"))
        # Resumed, with the optimiser's state there already.
        run(toy_config(tmp_path / str(scan), scan_memory=scan, num_epochs=2, optim=config.optim))
        checkpoints.append(read_checkpoint(tmp_path / str(scan) / "epoch-2.pt"))
    for without, scanned in ((0, 2), (1, 3)):
        a, b = checkpoints[without]["model"], checkpoints[scanned]["model"]
        assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_global_random_numbers_and_gradients_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import summarymix.training.run as loop

    scan = loop.scan_memory
    states = []

    def spy(model: Transducer, *arguments: Any, **options: Any) -> None:
        torch.manual_seed(5)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        scan(model, *arguments, **options)
        torch.rand(())
        states.append(torch.get_rng_state())
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    monkeypatch.setattr(loop, "scan_memory", spy)
    run(toy_config(tmp_path, scan_memory=True, num_epochs=1))
    torch.manual_seed(5)
    torch.rand(())
    assert torch.equal(states[0], torch.get_rng_state())


def test_settings_that_need_most_memory_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, tried = [], []
    forward = Transducer.forward

    class Data(ToyData):
        def worst_batches(self, chunk_sizes: Sequence[int] = ()) -> Iterator[tuple[str, Batch]]:
            asked.append([*chunk_sizes])
            return super().worst_batches(chunk_sizes)

    def spy(self: Transducer, views: Any, *rest: Any) -> Any:
        tried.append((output_lengths(views[0].features.size(1)), views[0].chunk))
        return forward(self, views, *rest)

    monkeypatch.setattr(Transducer, "forward", spy)
    chunk = DynamicChunkConfig(0.5, 4, 7, 1.0, 0, 2, 0.5)
    run(toy_config(tmp_path, scan_memory=True, chunk=chunk, max_steps=1), Data())
    assert asked == [[4, 5, 6, 7]]
    [(frames, _), *_] = tried
    assert [setting.chunk_size for _, setting in tried[:3]] == [None, 4, 6]  # 40 frames are padded to 42
    assert [setting for _, setting in tried[:3]] == chunk.extremes(frames)


@pytest.mark.parametrize("scan", [True, False])
def test_batch_that_does_not_fit_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: bool) -> None:
    def too_large(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 3 GiB")

    monkeypatch.setattr(Transducer, "forward", too_large)
    which = "the batch with the longest utterance," if scan else "a batch"
    with pytest.raises(
        MemoryError,
        match=rf"with {which} of 3 utterances of up to \d+ feature frames and \d+ tokens\. Lower --data\.max_duration "
        r"\(now 200\.0\) and raise --accumulate \(now 1\).*GiB.*3 GiB",
    ):
        run(toy_config(tmp_path, scan_memory=scan))
    assert not list(tmp_path.glob("*.pt"))
