from pathlib import Path

import pytest
from batch_cases import assert_same, config_for, ids, rewrite, tiny_cuts

from summarymix.data.evaluation_data import EvalData
from summarymix.data.loading import Batch
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


def test_evaluation_is_in_a_fixed_order_and_keeps_what_it_can(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()

    def spoil(cuts: list) -> None:
        cuts[0].supervisions[0].text = None
        cuts[1].supervisions[0].text = "ÉLAN"
        cuts[2].supervisions[0].text = "THREE " * 40
        cuts[3] = cuts[3].truncate(duration=0.05, preserve_id=True)

    rewrite(fbank, spoil)
    cuts = tiny_cuts(fbank)

    def evaluation(**options) -> EvalData:
        return EvalData(config_for(fbank), tokenizer, "train", output_lengths, **options)

    data = evaluation()
    batches: list[Batch] = list(data)
    order = [cut for batch in ids(batches) for cut in batch]
    assert order == [
        cut.id for cut in sorted(cuts, key=lambda cut: (cut.duration, cut.id)) if cut not in (cuts[0], cuts[3])
    ]
    assert data.skipped == {"too short for the encoder": 1, "empty transcript": 1}
    assert tokenizer.unk_id in {token for batch in batches for tokens in batch.tokens for token in tokens}
    assert ids(data) == ids(batches)
    rewrite(fbank, list.reverse)
    assert ids(evaluation()) == ids(batches)
    assert evaluation(for_loss=True).num_cuts == 36
    assert len(list(evaluation(max_duration=1e6))) == 1

    (Path(cuts[5].features.storage_path) / cuts[5].features.storage_key).unlink()
    for _ in range(2):
        assert sum(len(batch) for batch in data) == 37
        assert data.skipped == {"too short for the encoder": 1, "empty transcript": 1, "missing features": 1}
        assert data.num_unreadable == 1


def test_all_unreadable_is_fatal(prepare, tokenizer: Tokenizer) -> None:
    """However few are in a batch."""
    fbank = prepare()
    for path in fbank.rglob("*.npy"):
        path.unlink()
    with pytest.raises(OSError, match=r"40 of the first 40 cuts could not be read, for example .*\.flac"):
        list(EvalData(config_for(fbank), tokenizer, "train", output_lengths))


def test_processes_load_their_share_alone(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    fbank = prepare()
    arguments = config_for(fbank), tokenizer, "train", output_lengths, None, True
    whole = list(EvalData(*arguments))
    for rank in range(3):
        data = EvalData(*arguments, rank, 3)
        loaded: list[str] = []
        original = data._loader._features
        monkeypatch.setattr(data._loader, "_features", lambda cut, o=original, to=loaded: to.append(cut.id) or o(cut))
        assert_same(data, whole[rank::3])
        assert loaded == [cut_id for batch in whole[rank::3] for cut_id in batch.cut_ids]
    assert list(EvalData(*arguments, 30, 31)) == []


def test_one_unreadable_cut_among_several_processes_is_skipped(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Each of four processes has one batch of one cut; that of the last one cannot be read."""
    fbank = prepare(count=4)
    cuts = sorted(tiny_cuts(fbank), key=lambda cut: (cut.duration, cut.id))
    features = cuts[3].features
    (Path(features.storage_path) / features.storage_key).write_bytes(b"damaged")
    listing = tmp_path / "skipped.tsv"
    read = []
    for rank in range(4):
        data = EvalData(
            config_for(fbank), tokenizer, "train", output_lengths, 0.1, rank=rank, world_size=4, listing=listing
        )
        read += [cut_id for batch in data for cut_id in batch.cut_ids]
    assert read == [cut.id for cut in cuts[:3]]
    assert [item.id for item in SkippedItems.read(listing).items] == [cuts[3].id]


def test_list_is_removed_when_nothing_is_skipped_any_more(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank, listing = prepare(count=4), tmp_path / "skipped.tsv"
    cut = tiny_cuts(fbank)[0]
    path = Path(cut.features.storage_path) / cut.features.storage_key
    content = path.read_bytes()
    path.write_bytes(b"damaged")
    list(EvalData(config_for(fbank), tokenizer, "train", output_lengths, listing=listing))
    assert [item.id for item in SkippedItems.read(listing).items] == [cut.id]
    path.write_bytes(content)
    list(EvalData(config_for(fbank), tokenizer, "train", output_lengths, listing=listing))
    assert not listing.exists()


def test_features_of_another_kind_are_refused(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=4)
    with pytest.raises(ValueError, match=r"tiny_cuts_train.*has features with 80 mel bins at 16000 Hz"):
        EvalData(config_for(fbank, sample_rate=8000), tokenizer, "train", output_lengths)


def test_a_repeated_id_is_refused(prepare, tokenizer: Tokenizer) -> None:
    """Results are kept by id."""
    fbank = prepare(count=4)
    rewrite(fbank, lambda cuts: cuts.append(cuts[1]))
    with pytest.raises(ValueError, match=r"The cut u\d of .*tiny_cuts_train.* occurs twice: run local"):
        EvalData(config_for(fbank), tokenizer, "train", output_lengths)
