import pytest
from batch_cases import ids, rewrite, tiny_cuts, train_data
from lhotse import CutSet

from summarymix.data.cuts import NO_SPEECH
from summarymix.data.evaluation_data import EvalData
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


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
    loaded: list[str] = []
    original = data._loader._features
    monkeypatch.setattr(data._loader, "_features", lambda cut: loaded.append(cut.id) or original(cut))
    assert ids(data.epoch(2, rank, world_size, skip_batches=3)) == whole[3:]
    assert loaded == [cut_id for batch in whole[3:] for cut_id in batch]


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


def test_several_splits_are_mixed(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=30)
    cuts = tiny_cuts(fbank)
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
    data = train_data(fbank, Tokenizer.train(["ONE TWO"] * 3, 100, "char", "upper", "remove"))
    dev = EvalData(data.config, data._tokenizer, "train", output_lengths)
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


def test_lhotse_sampler_is_not_eager(prepare, tokenizer: Tokenizer, recwarn) -> None:
    """lhotse warns when cuts are held in memory or cannot go to worker processes."""
    data = train_data(prepare(), tokenizer)
    list(data.epoch(0))
    list(EvalData(data.config, tokenizer, "train", output_lengths))
    assert not [str(w.message) for w in recwarn if "eager" in str(w.message) or "lambda" in str(w.message)]
    assert isinstance(next(data._batches(0, 0, 1)), CutSet)
