from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet

from summarymix.data.batches import Batch, DataConfig, EvalData, TrainData, ctc_frames_needed
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer


def output_lengths(num_frames: int) -> int:
    return max(((num_frames - 1) // 2 - 1) // 2, 0)


def config_for(fbank: Path, **options) -> DataConfig:
    options = {"max_duration": 8.0, "num_buckets": 3, "num_workers": 0, "min_seconds": 0.0, **options}
    return DataConfig(prefix="tiny", manifest_dir=str(fbank), **options)


def train_data(fbank: Path, tokenizer: Tokenizer, seed: int = 0, **options) -> TrainData:
    skipped_path = fbank.parent / "exp" / "skipped-train.tsv"
    return TrainData(config_for(fbank, **options), tokenizer, output_lengths, seed, skipped_path)


def ids(batches) -> list[list[str]]:
    return [batch.cut_ids for batch in batches]


def rewrite(fbank: Path, change) -> None:
    """Let ``change`` edit the list of cuts of the manifest."""
    path = cuts_path(fbank, "tiny", "train")
    cuts = list(read_cuts(path))
    change(cuts)
    write_manifest(cuts, path)


def test_a_batch(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    cuts = {cut.id: cut for cut in read_cuts(cuts_path(fbank, "tiny", "train"))}
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


def test_epoch_depends_on_seed_and_number_alone(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    first = ids(data.epoch(0))
    assert ids(data.epoch(0)) == ids(train_data(fbank, tokenizer).epoch(0)) == first
    assert ids(data.epoch(1)) != first
    assert ids(train_data(fbank, tokenizer, seed=1).epoch(0)) != first


def test_workers_and_on_the_fly_features_give_the_same_batches(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    one = list(train_data(fbank, tokenizer).epoch(3))
    for options in ({"num_workers": 2}, {"on_the_fly": True}):
        other = list(train_data(fbank, tokenizer, **options).epoch(3))
        assert ids(other) == ids(one)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.features, b.features)
            assert a.tokens == b.tokens


def test_global_random_state_is_not_touched(prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(), tokenizer)
    state = torch.get_rng_state()
    list(data.epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world_size", [1, 2])
def test_skipped_batches_are_not_loaded(world_size: int, prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    data = train_data(prepare(), tokenizer)
    rank = world_size - 1
    whole = ids(data.epoch(2, rank, world_size))
    loaded: list[str] = []
    original = data._loader._features
    monkeypatch.setattr(data._loader, "_features", lambda cut: loaded.append(cut.id) or original(cut))
    assert ids(data.epoch(2, rank, world_size, skip_batches=3)) == whole[3:]
    assert loaded == [cut_id for batch in whole[3:] for cut_id in batch]


@pytest.mark.parametrize("world_size", [2, 3, 7, 40])
@pytest.mark.parametrize("max_duration", [3.5, 8.0, 1000.0])
def test_ranks_share_an_epoch(world_size: int, max_duration: float, prepare, tokenizer: Tokenizer) -> None:
    """No cut twice, none lost, and as many batches on each rank; what one process does is only dealt out."""
    data = train_data(prepare(), tokenizer, max_duration=max_duration)
    alone = ids(data.epoch(0))
    ranks = [ids(data.epoch(0, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(batch for batches in ranks for batch in batches)
    dealt = [cut_id for batches in ranks for batch in batches for cut_id in batch]
    assert Counter(dealt) == Counter(cut_id for batch in alone for cut_id in batch)
    assert len(dealt) == 40
    for step in range(len(alone) // world_size - 1):
        assert [batches[step] for batches in ranks] == alone[step * world_size : (step + 1) * world_size]


def test_worst_batches_are_found_without_loading_the_others(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    data = train_data(prepare(), tokenizer)
    whole = list(data.epoch(1))
    loaded: list[str] = []
    original = data._loader._features
    monkeypatch.setattr(data._loader, "_features", lambda cut: loaded.append(cut.id) or original(cut))
    worst = dict(data.worst_batches())
    assert loaded == [cut_id for batch in worst.values() for cut_id in batch.cut_ids]
    assert len(loaded) < 40

    def sizes(batch: Batch) -> dict[str, int]:
        number, frames = batch.features.shape[:2]
        tokens = max(map(len, batch.tokens))
        return {
            "longest utterance": frames,
            "most frames": number * frames,
            "most tokens": number * tokens,
            "largest lattice": number * frames * tokens,
        }

    largest = {reason: max(sizes(batch)[reason] for batch in whole) for reason in sizes(whole[0])}
    found = {reason: sizes(batch)[reason] for reasons, batch in worst.items() for reason in reasons.split(", ")}
    assert found == largest
    assert ids(data.epoch(1)) == ids(whole)


def test_more_ranks_than_cuts(prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(count=3), tokenizer)
    with pytest.raises(ValueError, match="3 training cuts cannot be shared among 4 processes"):
        next(data.epoch(0, 0, 4))


def test_several_splits_are_mixed(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=30)
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
    write_manifest(cuts[:10], cuts_path(fbank, "tiny", "a"))
    write_manifest(cuts[10:], cuts_path(fbank, "tiny", "b"))
    data = train_data(fbank, tokenizer, train=["a", "b"])
    for epoch in range(3):
        assert sorted(cut for batch in ids(data.epoch(epoch)) for cut in batch) == sorted(cut.id for cut in cuts)
    with pytest.raises(ValueError, match="occurs twice"):
        train_data(fbank, tokenizer, train=["a", "train"])


def test_what_cannot_be_trained_on_is_counted_and_listed(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()

    def spoil(cuts: list) -> None:
        cuts[0].supervisions[0].text = " "
        cuts[1].supervisions[0].text = "TWO ÉLAN"
        cuts[2].supervisions[0].text = "THREE " * 40
        cuts[3] = cuts[3].truncate(duration=0.05, preserve_id=True)

    rewrite(fbank, spoil)
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
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


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("on_the_fly", [False, True])
def test_unreadable_cuts_are_dropped_and_listed(
    num_workers: int, on_the_fly: bool, prepare, tokenizer: Tokenizer
) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer, num_workers=num_workers, on_the_fly=on_the_fly)
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
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
    assert listed.counts == {"unreadable": 2}


def test_all_unreadable_is_fatal(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    for path in fbank.rglob("*.npy"):
        path.unlink()
    with pytest.raises(RuntimeError, match=r"None of the first \d+ cuts could be read, for example .*\.flac"):
        list(data.epoch(0))


def test_a_batch_of_unreadable_cuts_is_empty_and_counts(prepare, tokenizer: Tokenizer) -> None:
    """Ranks go in step and resuming counts batches, so a batch must not vanish."""
    fbank = prepare()
    data = train_data(fbank, tokenizer)
    whole = ids(data.epoch(0))
    for cut in read_cuts(cuts_path(fbank, "tiny", "train")):
        if cut.id in whole[1]:
            (Path(cut.features.storage_path) / cut.features.storage_key).unlink()
    batches = list(data.epoch(0))
    assert ids(batches) == [whole[0], [], *whole[2:]]
    assert batches[1].features.shape == (0, 0, 80)
    assert batches[1].seconds == 0


def test_missing_manifest_names_what_is_there(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=2)
    with pytest.raises(FileNotFoundError, match=r"tiny_cuts_nope.jsonl.gz.*there are: tiny_cuts_train.jsonl.gz"):
        train_data(fbank, tokenizer, train=["nope"])


@pytest.mark.parametrize("count", [1, 2])
def test_as_few_cuts_as_that(count: int, prepare, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(count=count), tokenizer, num_buckets=30)
    assert sum(len(batch) for batch in data.epoch(0)) == count


def test_evaluation_is_in_a_fixed_order_and_keeps_what_it_can(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()

    def spoil(cuts: list) -> None:
        cuts[0].supervisions[0].text = ""
        cuts[1].supervisions[0].text = "ÉLAN"
        cuts[2].supervisions[0].text = "THREE " * 40
        cuts[3] = cuts[3].truncate(duration=0.05, preserve_id=True)

    rewrite(fbank, spoil)
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))

    def evaluation(**options) -> EvalData:
        return EvalData(config_for(fbank), tokenizer, "train", output_lengths, **options)

    data = evaluation()
    batches: list[Batch] = list(data)
    order = [cut for batch in ids(batches) for cut in batch]
    assert order == [cut.id for cut in sorted(cuts, key=lambda cut: (cut.duration, cut.id)) if cut.id != cuts[3].id]
    assert data.skipped == {"too short for the encoder": 1}
    assert tokenizer.unk_id in {token for batch in batches for tokens in batch.tokens for token in tokens}
    assert ids(data) == ids(batches)
    rewrite(fbank, list.reverse)
    assert ids(evaluation()) == ids(batches)
    assert evaluation(for_loss=True).num_cuts == 36
    assert len(list(evaluation(max_duration=1e6))) == 1

    (Path(cuts[5].features.storage_path) / cuts[5].features.storage_key).unlink()
    for _ in range(2):
        assert sum(len(batch) for batch in data) == 38
        assert data.skipped == {"too short for the encoder": 1, "unreadable": 1}


def test_ctc_frames_needed() -> None:
    assert ctc_frames_needed([]) == 1
    assert ctc_frames_needed([5]) == 1
    assert ctc_frames_needed([5, 6, 5]) == 3
    assert ctc_frames_needed([5, 5, 5]) == 5


def test_lhotse_sampler_is_not_eager(prepare, tokenizer: Tokenizer, recwarn) -> None:
    """lhotse warns when cuts are held in memory or cannot go to worker processes."""
    data = train_data(prepare(), tokenizer)
    list(data.epoch(0))
    list(EvalData(data.config, tokenizer, "train", output_lengths))
    assert not [str(w.message) for w in recwarn if "eager" in str(w.message) or "lambda" in str(w.message)]
    assert isinstance(next(data._batches(0, 0, 1)), CutSet)


@pytest.mark.parametrize(("model_type", "vocab_size"), [("unigram", 40), ("bpe", 40), ("char", 40)])
def test_tokens_need_no_more_frames_than_characters(model_type: str, vocab_size: int) -> None:
    """What lets most transcripts pass without being made into tokens."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("AAAAB "), 30)) for _ in range(200)]
    texts = [" ".join(text.split()) for text in texts]
    tokenizer = Tokenizer.train(texts + ["ABABAB AAA"] * 30, vocab_size if model_type == "char" else 15, model_type)
    tightest = np.inf
    for text in texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.covers(text)
        assert tokenizer.unk_id not in tokens
        slack = len(text) + 1 + sum(a == b for a, b in pairwise(text)) - ctc_frames_needed(tokens)
        tightest = min(tightest, slack)
    assert tightest == 0 if model_type == "char" else tightest >= 0
    assert not tokenizer.covers("ABC")


def test_no_cut_passes_for_want_of_tokens(prepare, tokenizer: Tokenizer) -> None:
    """Utterances of which characters do not fit, tokens may or may not."""
    fbank = prepare(count=40)
    words = "ONE TWO THREE STOP LIGHT"
    pairs = Tokenizer.train([words] * 3, 20, "bpe")

    def spoil(cuts: list) -> None:
        for i, cut in enumerate(cuts):
            cut.supervisions[0].text = words + " STOP" * i

    rewrite(fbank, spoil)
    for pieces in (tokenizer, pairs):
        cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
        too_short = {
            cut.id
            for cut in cuts
            if ctc_frames_needed(pieces.encode(cut.supervisions[0].text)) > output_lengths(cut.num_frames)
        }
        assert 0 < len(too_short) < 40
        assert {item.id for item in train_data(fbank, pieces).skipped_items.items} == too_short
