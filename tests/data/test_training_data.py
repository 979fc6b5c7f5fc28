import itertools
from pathlib import Path

import pytest
import torch
from batch_cases import assert_same, ids, rewrite, tiny_cuts, train_data

from summarymix.data.augment import SpecAugmentConfig
from summarymix.data.cuts import NO_SPEECH
from summarymix.data.evaluation_data import EvalData
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.silence import SilenceConfig
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import Masks, TrainData
from summarymix.encoder.subsampling import output_lengths


def spy_on_loading(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets the id of each cut that is loaded."""
    loaded: list[str] = []
    loader = data._loader._loader
    original = loader._features
    monkeypatch.setattr(loader, "_features", lambda cut: loaded.append(cut.id) or original(cut))
    return loaded


def test_epoch_depends_on_seed_and_number_alone(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    first = ids(data.epoch(0))
    assert ids(data.epoch(0)) == ids(train_data(fbank, tokenizer).epoch(0)) == first
    assert ids(data.epoch(1)) != first
    assert ids(train_data(fbank, tokenizer, seed=1).epoch(0)) != first


@pytest.mark.parametrize("world_size", [1, 2])
def test_skipped_batches_are_not_loaded(world_size: int, prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    data = train_data(prepare(), tokenizer)
    rank = world_size - 1
    whole = ids(data.epoch(2, rank, world_size))
    loaded = spy_on_loading(data, monkeypatch)
    assert ids(data.epoch(2, rank, world_size, skip_batches=3)) == whole[3:]
    assert loaded == [cut_id for batch in whole[3:] for cut_id in batch]


@pytest.mark.parametrize("chunk_sizes", [[], [32], [8, 30, 32]])
def test_worst_batches_are_found_without_loading_the_others(
    prepare, tokenizer: Tokenizer, monkeypatch, chunk_sizes: list[int]
) -> None:
    data = train_data(prepare(), tokenizer)
    whole = list(data.epoch(1))
    loaded = spy_on_loading(data, monkeypatch)
    worst = dict(data.worst_batches(chunk_sizes))
    assert loaded == [cut_id for batch in worst.values() for cut_id in batch.cut_ids]
    assert len(loaded) < 40

    def sizes(batch: Batch) -> dict[str, int]:
        number, frames = batch.features.shape[:2]
        tokens = max(map(len, batch.tokens))
        return {
            "longest utterance": frames,
            "most frames": number * frames,
            "most frames in whole chunks": number
            * max(-(-output_lengths(frames) // size) * size for size in chunk_sizes or [1]),
            "most tokens": number * tokens,
            "largest lattice": number * frames * tokens,
        }

    largest = {reason: max(sizes(batch)[reason] for batch in whole) for reason in sizes(whole[0])}
    found = {reason: sizes(batch)[reason] for reasons, batch in worst.items() for reason in reasons.split(", ")}
    assert found == largest
    assert ids(data.epoch(1)) == ids(whole)


def test_several_splits_are_mixed(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=30)
    cuts = tiny_cuts(fbank)
    write_manifest(cuts[:10], cuts_path(fbank, "tiny", "a"))
    write_manifest(cuts[10:], cuts_path(fbank, "tiny", "b"))
    data = train_data(fbank, tokenizer, train=["a", "b"])
    for epoch in range(3):
        assert sorted(cut for batch in ids(data.epoch(epoch)) for cut in batch) == sorted(cut.id for cut in cuts)
    both = r"in \S*tiny_cuts_b\.jsonl\.gz and in \S*tiny_cuts_train\.jsonl\.gz: remove it from one of them"
    with pytest.raises(ValueError, match=rf"The cut {cuts[10].id} occurs twice, {both}"):
        train_data(fbank, tokenizer, train=["b", "train"])


def test_what_cannot_be_trained_on_is_counted_and_listed(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()

    def spoil(cuts: list) -> None:
        cuts[0].supervisions[0].text = " "
        cuts[1].supervisions[0].text = "TWO ÉLAN"
        cuts[2].supervisions[0].text = "THREE " * 40
        cuts[3] = cuts[3].truncate(duration=0.05, preserve_id=True)

    rewrite(fbank, spoil)
    cuts = tiny_cuts(fbank)
    data = train_data(fbank, tokenizer, max_seconds=2.9)
    long = [cut.id for cut in cuts[4:] if cut.duration > 2.9]
    assert long
    assert data.skipped == {
        "too long": len(long),
        "empty transcript": 1,
        "unknown characters": 1,
        "too short for its tokens": 1,
        "too short for the encoder": 1,
    }
    listed = {item.id: item for item in SkippedItems.read(data.skipped_path).items}
    assert set(listed) == {cut.id for cut in cuts[:4]} | set(long)
    assert "'É'" in listed[cuts[1].id].detail
    assert "tokens need" in listed[cuts[2].id].detail
    assert all(item.remedy and item.file.endswith(".flac") for item in listed.values())
    trained_on = {cut for batch in ids(data.epoch(0)) for cut in batch}
    assert trained_on == {cut.id for cut in cuts[4:]} - set(long)


def test_recordings_without_speech_are_trained_on_and_validated(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=12, speeds=(0.9,))

    def silence(cuts: list) -> None:
        for cut in cuts[::2]:
            cut.supervisions[0].text, cut.supervisions[0].custom = "", NO_SPEECH

    rewrite(fbank, silence)
    cuts = tiny_cuts(fbank)
    data = train_data(fbank, tokenizer)
    dev = EvalData(data.config, tokenizer, "train", output_lengths, for_loss=True)
    assert not data.skipped
    assert not dev.skipped
    silent = {cut.id for cut in cuts[::2]}
    for batches in (data.epoch(1), dev):
        tokens = {cut_id: row for batch in batches for cut_id, row in zip(batch.cut_ids, batch.tokens, strict=True)}
        assert tokens.keys() == {cut.id for cut in cuts}
        assert {cut_id for cut_id, row in tokens.items() if not row} == silent
    assert sum(len(batch) for _, batch in data.worst_batches()) > 0


def test_references_have_the_form_of_the_tokens(prepare) -> None:
    fbank = prepare(count=1)

    def write(cuts: list) -> None:
        cuts[0].supervisions[0].text = "One, two!"

    rewrite(fbank, write)
    tokenizer = Tokenizer.train(["ONE TWO"] * 3, 100, "char", "upper", "remove")
    data = train_data(fbank, tokenizer)
    dev = EvalData(data.config, tokenizer, "train", output_lengths)
    assert dev.coverage.unwritable == 0
    assert [batch.texts for batch in dev] == [batch.texts for batch in data.epoch(1)] == [["ONE TWO"]]


def test_missing_manifest_names_what_is_there(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=2)
    with pytest.raises(FileNotFoundError, match=r"tiny_cuts_nope.jsonl.gz.*folder has: tiny_cuts_train.jsonl.gz"):
        train_data(fbank, tokenizer, train=["nope"])


@pytest.mark.parametrize("count", [1, 2])
def test_as_few_cuts_as_that(count: int, prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(count=count), tokenizer, num_buckets=30)
    assert sum(len(batch) for batch in data.epoch(0)) == count


CHANGES = [
    {"max_duration": 3.0},
    {"num_buckets": 1},
    {"max_seconds": 2.5},
    {"train": ["a", "b"]},
    {"train": ["b", "c"]},
    {"silence": SilenceConfig(0.5, 0.5)},
    {},
]


@pytest.mark.parametrize("silence", [SilenceConfig(), SilenceConfig(0.5, 0.5)], ids=["", "silence"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_epoch_is_resumed_with_whatever_has_changed(
    change: dict, silence: SilenceConfig, prepare, tokenizer: Tokenizer
) -> None:
    """Twice: three processes, then two with the change, then five. Counted by id, no cut is lost or repeated."""
    fbank = prepare(count=60)
    cuts = tiny_cuts(fbank)
    parts = {"a": cuts[:25], "b": cuts[25:], "c": cuts[:25][::-1]}
    for split, part in parts.items():
        write_manifest(part, cuts_path(fbank, "tiny", split))

    def names(batches: list[Batch]) -> list[str]:
        return [name for batch in ids(batches) for cut_id in batch for name in cut_id.split("+")]

    def consume(data: TrainData, world_size: int, rounds: int | None, *done: torch.Tensor) -> list[str]:
        ranks = [list(itertools.islice(data.epoch(1, r, world_size, 0, *done), rounds)) for r in range(world_size)]
        return names(list(itertools.chain(*ranks)))

    first = train_data(fbank, tokenizer, silence=silence)
    seen = consume(first, 3, 2)
    done = first.done(1, 3, 6)
    second = train_data(fbank, tokenizer, **({"silence": silence} | change))
    seen += consume(second, 2, 1, done)
    done = second.done(1, 2, 2, done)
    third = train_data(fbank, tokenizer, **({"silence": silence} | change | {"max_duration": 5.0}))
    seen += consume(third, 5, None, done)
    left_out = {cut.id for cut in cuts if cut.duration > change.get("max_seconds", 20.0)} - set(seen)
    assert sorted([*seen, *left_out]) == sorted(cut.id for cut in cuts)
    assert len(done) < 60
    assert consume(third, 2, None, third.done(1, 5, 1000, done)) == []


MASKS = SpecAugmentConfig(probability=1.0, warmup_steps=0)


def test_workers_mask_batches_by_seed_and_number(prepare, tokenizer: Tokenizer) -> None:
    """Masks do not depend on the number of workers, on processes, or on where the epoch was resumed."""
    fbank = prepare()
    plain = list(train_data(fbank, tokenizer).epoch(1))
    data = train_data(fbank, tokenizer, spec_augment=MASKS)
    masks = [Masks(1 + step // 2, 1 + (step > 2)) for step in range(100)]
    masked = list(data.epoch(1, masks=masks))
    assert [len(batch.views) for batch in masked] == [num_views for _, num_views in masks[: len(masked)]]
    for batch, without in zip(masked, plain, strict=True):
        assert batch.cut_ids == without.cut_ids
        assert not any(torch.equal(view, without.features) for view in batch.views)
    assert not torch.equal(*masked[-1].views)
    for workers in (1, 2):
        others = list(train_data(fbank, tokenizer, spec_augment=MASKS, num_workers=workers).epoch(1, masks=masks))
        assert_same(others, masked)
    assert_same(data.epoch(1, 0, 1, 4, masks=masks[4:]), masked[4:])
    for rank in (0, 1):
        whole = len(masked) // 2 * 2
        assert_same(list(data.epoch(1, rank, 2, masks=masks[rank::2]))[: whole // 2], masked[rank:whole:2])
    again = train_data(fbank, tokenizer, seed=0, spec_augment=SpecAugmentConfig(probability=1.0, warmup_steps=10**9))
    assert_same(again.epoch(1, masks=masks[:3]), plain)


def test_only_one_process_lists_what_is_skipped(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare(count=8)
    rewrite(fbank, lambda cuts: setattr(cuts[0].supervisions[0], "text", ""))
    data = train_data(fbank, tokenizer)
    data.skipped_path.unlink()
    arguments = data._problems._output_lengths, 0, data.skipped_path
    assert TrainData(data.config, tokenizer, *arguments, list_skipped=False).skipped == {"empty transcript": 1}
    assert not data.skipped_path.exists()


@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({"spec_augment": SpecAugmentConfig(probability=1.0, warmup_steps=0)}, [Masks(1, 1)]),
        ({"silence": SilenceConfig(1.0, noise_db=(-60.0, -20.0))}, []),
    ],
    ids=["masks", "silence"],
)
def test_chance_in_a_batch_changes_with_seed_epoch_and_number(options, masks, prepare, tokenizer) -> None:
    fbank = prepare(count=1)
    data, other = (train_data(fbank, tokenizer, seed=seed, **options) for seed in (0, 1))
    task = next(data.tasks(1, masks=masks))
    first, again, *others = (
        loader[of][0].features
        for loader, of in [
            (data._loader, task),
            (data._loader, task),
            (data._loader, task._replace(epoch=2)),
            (data._loader, task._replace(number=1)),
            (other._loader, task),
        ]
    )
    assert torch.equal(again, first)
    assert not any(torch.equal(features, first) for features in others)
