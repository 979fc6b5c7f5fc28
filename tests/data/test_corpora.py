"""Training on several corpora, each with a recipe's folder of its own."""

import itertools
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from batch_cases import ids, tiny_cuts
from lhotse.utils import fastcopy

from summarymix.data.config import CorpusConfig, DataConfig
from summarymix.data.evaluation_data import EvalData
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import TrainData
from summarymix.encoder.subsampling import output_lengths

OWN, OTHER = 10, 14  # cuts


@pytest.fixture
def corpora(prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """The cuts of both corpora. The ids of the other one are the same, and its paths relative."""
    cuts = tiny_cuts(prepare(count=OWN + OTHER))
    root = tmp_path / "two"
    others = []
    for i, cut in enumerate(cuts[OWN:]):
        features = fastcopy(cut.features, storage_path=os.path.relpath(cut.features.storage_path, root))
        [source] = cut.recording.sources
        recording = fastcopy(cut.recording, sources=[fastcopy(source, source=os.path.relpath(source.source, root))])
        others.append(fastcopy(cut, id=cuts[i].id if i < OWN else cut.id, features=features, recording=recording))
    for name, of_corpus in (("one", cuts[:OWN]), ("two", others)):
        write_manifest(of_corpus, cuts_path(tmp_path / name / "data/fbank", name, "train"))
    (tmp_path / "one").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "one")
    return cuts


def config(weight: float = 1.0, **options) -> DataConfig:
    other = CorpusConfig(prefix="two", dir="../two", dev=["train"], weight=weight)
    options = {"max_duration": 8.0, "num_buckets": 3, "num_workers": 0, "dev": ["train"], **options}
    return DataConfig(prefix="one", corpora=[other], **options)


def training(weight: float, tokenizer: Tokenizer, **options) -> TrainData:
    return TrainData(config(weight, **options), tokenizer, output_lengths, 0, Path("exp/skipped.tsv"))


def lengths(batches: list[Batch]) -> Counter[tuple[str, int]]:
    """How often each cut comes, known by its id and length."""
    return Counter(
        (cut_id, length)
        for batch in batches
        for cut_id, length in zip(batch.cut_ids, batch.feature_lengths.tolist(), strict=True)
    )


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_both_are_read_by_the_same_command(corpora: list, on_the_fly: bool, tokenizer: Tokenizer) -> None:
    data = training(1.0, tokenizer, on_the_fly=on_the_fly)
    batches = list(data.epoch(1))
    assert any(len({*batch.cut_ids}) < len(batch) for batch in batches)  # the corpora are mixed in a batch
    found = sorted(
        (features[:length].sum().item(), text)
        for batch in batches
        for features, length, text in zip(batch.features, batch.feature_lengths, batch.texts, strict=True)
    )
    expected = sorted((float(cut.load_features().sum()), cut.supervisions[0].text) for cut in corpora)
    assert [text for _, text in found] == [text for _, text in expected]
    assert [total for total, _ in found] == pytest.approx([total for total, _ in expected], rel=1e-3)
    assert data.seconds.keys() == {"train", "train@two"}
    assert data.total_seconds == pytest.approx(sum(cut.duration for cut in corpora))


@pytest.mark.parametrize("weight", [2.0, 0.4, 1.5, 1.0])
def test_weights_are_passes_over_a_corpus(corpora: list, weight: float, tokenizer: Tokenizer) -> None:
    """Within five epochs each cut of the other corpus comes about five times its weight."""
    data = training(weight, tokenizer)
    own = {(cut.id, cut.num_frames) for cut in corpora[:OWN]}
    total: Counter[tuple[str, int]] = Counter()
    for epoch in range(1, 6):
        counts = lengths(list(data.epoch(epoch)))
        assert all(counts.pop(key) == 1 for key in own)
        assert counts.total() == pytest.approx(weight * OTHER, abs=1)
        total += counts
    assert len(total) == OTHER
    assert {*total.values()} <= {math.floor(5 * weight), math.ceil(5 * weight)}
    assert data.total_seconds == pytest.approx(data.seconds["train"] + data.seconds["train@two"])


@pytest.mark.parametrize("weight", [2.0, 0.4, 1.5])
def test_weighted_epoch_is_resumed_by_other_processes_with_other_batches(
    corpora: list, weight: float, tokenizer: Tokenizer
) -> None:
    data = training(weight, tokenizer)
    whole = lengths(list(data.epoch(1)))
    seen = [list(itertools.islice(data.epoch(1, rank, 2), 2)) for rank in (0, 1)]
    done = data.done(1, 2, 4)
    other = training(weight, tokenizer, max_duration=5.0)
    rest = [list(other.epoch(1, rank, 3, 0, done)) for rank in range(3)]
    assert lengths(list(itertools.chain(*seen, *rest))) == whole
    assert 0 < len(done) < whole.total()


def test_splits_of_another_corpus_are_named_with_it(corpora: list, tokenizer: Tokenizer) -> None:
    assert config().train_splits() == config().dev_splits() == ["train", "train@two"]
    own, other = (EvalData(config(), tokenizer, split, output_lengths) for split in ("train@one", "train@two"))
    assert (own.num_cuts, other.num_cuts) == (OWN, OTHER)
    assert ids(own) == ids(EvalData(config(), tokenizer, "train", output_lengths))
    with pytest.raises(ValueError, match="test@three: the model's corpora are one, two; three is none of them"):
        config().find("test@three")
    with pytest.raises(ValueError, match="Two corpora have the prefix two"):
        DataConfig(prefix="two", corpora=config().corpora)
    with pytest.raises(ValueError, match="The weight of two is 0: it must be above 0"):
        config(0.0)


def test_unreadable_cuts_of_the_same_id_are_both_listed(corpora: list, tokenizer: Tokenizer) -> None:
    for i in (0, OWN):  # of the same id
        features = corpora[i].features
        Path(features.storage_path, features.storage_key).write_bytes(b"damaged")
    assert sum(len(batch) for batch in training(1.0, tokenizer).epoch(1)) == OWN + OTHER - 2
    items = SkippedItems.read(Path("exp/skipped-unreadable.tsv")).items
    assert [item.id for item in items] == 2 * [corpora[0].id]


def test_a_corpus_that_cannot_be_used_is_an_error(corpora: list, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"has features with 80 mel bins at 16000 Hz, the model needs 40 at 16000 Hz"):
        training(1.0, tokenizer, num_mel_bins=40)
    with pytest.raises(ValueError, match=r"An epoch has 0\.24 utterances: raise --data\.weight"):
        TrainData(replace(config(0.01), weight=0.01), tokenizer, output_lengths, 0, Path("exp/skipped.tsv"))
    unwritable = [fastcopy(cut, supervisions=[fastcopy(cut.supervisions[0], text="ÉLAN")]) for cut in corpora[OWN:]]
    write_manifest(unwritable, cuts_path("../two/data/fbank", "two", "train"))
    with pytest.raises(ValueError, match=r"No cut of \.\./two/\S+ is left .* skipped 14 of 24: 14 unknown"):
        training(1.0, tokenizer)
