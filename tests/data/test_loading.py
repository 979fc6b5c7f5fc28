from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from batch_cases import config_for, ids, rewrite, tiny_cuts, train_data
from lhotse.cut import Cut
from torch import Tensor
from torch.utils.data import Dataset

from summarymix.data.cut_filter import ctc_frames_needed
from summarymix.data.evaluation_data import EvalData
from summarymix.data.features import SILENCE
from summarymix.data.loading import Batch, load_batches
from summarymix.data.silence import SilenceConfig
from summarymix.data.skipped import Skipped, SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


def test_a_batch(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    cuts = {cut.id: cut for cut in tiny_cuts(fbank)}
    assert data.num_cuts == 40
    assert data.skipped == {}
    assert data.total_seconds == pytest.approx(sum(cut.duration for cut in cuts.values()))
    batch = next(data.epoch(0))
    assert batch.features.dtype == torch.float32
    assert batch.features.shape == (len(batch), max(batch.feature_lengths), 80)
    assert 0 < batch.seconds <= 8.0
    for i, cut_id in enumerate(batch.cut_ids):
        features = torch.from_numpy(cuts[cut_id].load_features())
        assert batch.feature_lengths[i] == len(features)
        assert torch.equal(batch.features[i, : len(features)], features)
        assert (batch.features[i, len(features) :] < -20).all()
        assert batch.texts[i] == cuts[cut_id].supervisions[0].text
        assert tokenizer.decode(batch.tokens[i]) == batch.texts[i]


def test_workers_and_on_the_fly_features_give_the_same_batches(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    one = list(train_data(fbank, tokenizer).epoch(3))
    for options in ({"num_workers": 2}, {"on_the_fly": True}):
        other = list(train_data(fbank, tokenizer, **options).epoch(3))
        assert ids(other) == ids(one)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.features, b.features)
            assert a.tokens == b.tokens


@pytest.mark.parametrize(
    "options", [{}, {"on_the_fly": True}, {"silence": SilenceConfig(0.5, 0.5, noise_db=(-300, -300))}]
)
def test_silence_follows_every_utterance(options: dict[str, Any], prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    without, data = (train_data(fbank, tokenizer, tail_frames=tail, **options) for tail in (0, 30))
    features = {cut_id: row[:length] for batch in without.epoch(1) for cut_id, row, length in utterances(batch)}
    seconds = 0.0
    for batch in data.epoch(1):
        assert batch.tail_frames == 30
        assert len(batch) == 1 or len(batch) * 0.01 * int(batch.feature_lengths.max()) <= 8.0
        seconds += batch.seconds
        for cut_id, row, length in utterances(batch):
            torch.testing.assert_close(row[:length], F.pad(features.pop(cut_id), (0, 0, 0, 30), value=SILENCE))
    assert not features
    assert seconds == pytest.approx(without.total_seconds)


def test_a_tail_gives_tightly_trimmed_words_the_frames_they_need(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=6)

    def trim(cuts: list[Cut]) -> None:
        for i in range(3):
            cuts[i].supervisions[0].text = "THREE"  # seven frames, with its space and a blank between equal letters
            cuts[i] = cuts[i].truncate(duration=0.25, preserve_id=True)

    rewrite(fbank, trim)
    assert train_data(fbank, tokenizer).skipped == {"too short for its tokens": 3}
    assert train_data(fbank, tokenizer, tail_frames=4).skipped == {"too short for its tokens": 3}
    data = train_data(fbank, tokenizer, tail_frames=8)
    assert data.skipped == {}
    for batch in data.epoch(0):
        for length, tokens in zip(output_lengths(batch.feature_lengths).tolist(), batch.tokens, strict=True):
            assert length >= ctc_frames_needed(tokens)
    evaluated = EvalData(config_for(fbank, tail_frames=8), tokenizer, "train", output_lengths, for_loss=True)
    assert evaluated.num_cuts == 6
    assert {batch.tail_frames for batch in evaluated} == {8}


def utterances(batch: Batch) -> Iterator[tuple[str, Tensor, int]]:
    return zip(batch.cut_ids, batch.features, batch.feature_lengths.tolist(), strict=True)


def test_global_random_state_is_not_touched(prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(), tokenizer)
    state = torch.get_rng_state()
    list(data.epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("on_the_fly", [False, True])
def test_unreadable_cuts_are_dropped_and_listed(
    num_workers: int, on_the_fly: bool, prepare, tokenizer: Tokenizer
) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer, num_workers=num_workers, on_the_fly=on_the_fly)
    cuts = tiny_cuts(fbank)
    for cut in cuts[:2]:
        if on_the_fly:
            Path(cut.recording.sources[0].source).write_bytes(b"no audio")
        else:
            path = Path(cut.features.storage_path) / cut.features.storage_key
            path.write_bytes(path.read_bytes()[:1000])
    for epoch in range(2):
        kept = [cut for batch in ids(data.epoch(epoch)) for cut in batch]
        assert sorted(kept) == sorted(cut.id for cut in cuts[2:])
    listed = SkippedItems.read(data.skipped_path.with_name("skipped-train-unreadable.tsv"))
    assert sorted(item.id for item in listed.items) == sorted(cut.id for cut in cuts[:2])
    assert listed.counts == {"unreadable audio" if on_the_fly else "unreadable features": 2}
    assert all(len(item.detail) < 300 and "lhotse" not in item.detail.lower() for item in listed.items)


def test_samples_that_are_no_audio_are_told(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer, on_the_fly=True)
    cut = tiny_cuts(fbank)[0]
    samples = np.zeros(cut.num_samples, np.float32)
    samples[4000] = np.nan
    soundfile.write(cut.recording.sources[0].source, samples, 16000, "FLOAT", format="WAV")
    list(data.epoch(0))
    (item,) = SkippedItems.read(data.skipped_path.with_name("skipped-train-unreadable.tsv")).items
    assert (item.id, item.detail) == (cut.id, "ValueError: the sample at 0.25 s is nan")


def test_list_is_of_the_present_epoch(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    listing = train_data(fbank, tokenizer).skipped_path.with_name("skipped-train-unreadable.tsv")
    cut = tiny_cuts(fbank)[0]
    path = Path(cut.features.storage_path) / cut.features.storage_key
    content = path.read_bytes()
    path.write_bytes(b"damaged")
    whole = ids(train_data(fbank, tokenizer).epoch(0))
    assert [item.id for item in SkippedItems.read(listing).items] == [cut.id]
    path.write_bytes(content)
    # A resumed epoch keeps what it has found before.
    assert len(ids(train_data(fbank, tokenizer).epoch(0, skip_batches=1))) == len(whole) - 1
    assert [item.id for item in SkippedItems.read(listing).items] == [cut.id]
    assert sum(map(len, ids(train_data(fbank, tokenizer).epoch(1)))) == 40
    assert not listing.exists()


def test_lists_of_another_number_of_processes_are_removed(prepare, tokenizer: Tokenizer) -> None:
    """With a new epoch; a resumed one keeps what they have found."""
    fbank = prepare()
    listing = train_data(fbank, tokenizer).skipped_path.with_name("skipped-train-unreadable.tsv")
    of_rank_1 = listing.with_name("skipped-train-unreadable-rank1.tsv")
    for cut in tiny_cuts(fbank)[:8]:
        (Path(cut.features.storage_path) / cut.features.storage_key).unlink()
    for rank in (0, 1):
        list(train_data(fbank, tokenizer).epoch(1, rank, 2))
    assert of_rank_1.exists()
    list(train_data(fbank, tokenizer).epoch(1, skip_batches=1))
    assert of_rank_1.exists()
    list(train_data(fbank, tokenizer).epoch(2))
    assert not of_rank_1.exists()
    assert len(SkippedItems.read(listing)) == 8
    list(train_data(fbank, tokenizer).epoch(3, 0, 2))
    assert not listing.exists()


def test_list_is_not_written_for_each_item(tmp_path: Path, monkeypatch) -> None:
    """It would take quadratic time."""

    class Failures(Dataset):
        def __getitem__(self, number: int) -> tuple[Batch, list[Skipped]]:
            empty = torch.zeros(1, 0)
            return Batch(empty, empty, [], [], ["read"], 1.0), [Skipped(f"{number}", "file", "unreadable", "", "")]

    written: list[int] = []
    original = SkippedItems.write
    monkeypatch.setattr(SkippedItems, "write", lambda self, path: written.append(len(self)) or original(self, path))
    items = SkippedItems()
    for number, _ in enumerate(load_batches(Failures(), range(1000), 0, 1000, items, tmp_path / "list"), 1):
        assert written[-1] > number / 1.2
    assert len(written) < 80
    assert len(SkippedItems.read(tmp_path / "list")) == len(items) == 1000


def test_all_unreadable_is_fatal(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    for path in fbank.rglob("*.npy"):
        path.unlink()
    with pytest.raises(OSError, match=r"^(\d+) of the first \1 cuts could not be read, for example .*\.flac"):
        list(data.epoch(0))


def test_many_unreadable_are_fatal(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    """Cuts count, of which several are joined to an utterance."""
    fbank = prepare()
    monkeypatch.setattr("summarymix.data.loading.FAILURES_THAT_ARE_FATAL", 3)
    data = train_data(fbank, tokenizer, silence=SilenceConfig(0.5, 0.9), max_duration=30.0)
    for i, cut in enumerate(tiny_cuts(fbank)[:3], 1):
        (Path(cut.features.storage_path) / cut.features.storage_key).unlink()
        if i < 3:
            batches = list(data.epoch(1))
            assert sum(batch.num_unreadable for batch in batches) == i
            assert sum(batch.num_read for batch in batches) == 40 - i
    with pytest.raises(OSError, match=r"3 of the first \d+ cuts could not be read, .* Restore the files") as error:
        list(data.epoch(1))
    listing = data.skipped_path.with_name("skipped-train-unreadable.tsv")
    assert f"All are listed in {listing}" in str(error.value)
    assert len(SkippedItems.read(listing)) == 3


@pytest.mark.parametrize("num_read", [18, 19])
def test_few_unreadable_are_not_fatal(num_read: int) -> None:
    """However many they become in the course of an epoch: one in 20 is not, one in 19 is."""

    class Failures(Dataset):
        def __getitem__(self, number: int) -> tuple[Batch, list[Skipped]]:
            empty = torch.zeros(1, 0)
            batch = Batch(empty, empty, [], [], ["read"], 1.0, num_read=num_read, num_unreadable=1)
            return batch, [Skipped(f"{number}", "file", "unreadable", "", "")]

    loaded = load_batches(Failures(), range(100), 0, 2000, SkippedItems())
    if num_read == 19:
        assert len(list(loaded)) == 100
    else:
        with pytest.raises(OSError, match=r"50 of the first 950 cuts could not be read, for example 49"):
            list(loaded)


def test_a_batch_of_unreadable_cuts_is_empty_and_counts(prepare, tokenizer: Tokenizer) -> None:
    """Ranks go in step and resuming counts batches, so a batch must not vanish."""
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    whole = ids(data.epoch(0))
    for cut in tiny_cuts(fbank):
        if cut.id in whole[1]:
            (Path(cut.features.storage_path) / cut.features.storage_key).unlink()
    batches = list(data.epoch(0))
    assert ids(batches) == [whole[0], [], *whole[2:]]
    assert batches[1].features.shape == (0, 0, 80)
    assert batches[1].seconds == 0
