"""Utterances with silence around them, and joined ones, against their parts."""

import math
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_cases import assert_same, tiny_cuts, train_data
from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, MonoCut, PaddingCut

from summarymix.data.cut_filter import ctc_frames_needed
from summarymix.data.cuts import utterances
from summarymix.data.evaluation_data import EvalData
from summarymix.data.features import SILENCE, FbankExtractor, FbankOptions
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.noise import NoiseConfig, NoiseMixer
from summarymix.data.shar import export_split
from summarymix.data.silence import SilenceConfig, Sizes, plan_silence, with_silence
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import NO_CUTS, TrainData
from summarymix.encoder.subsampling import output_lengths

BOTH = SilenceConfig(probability=0.5, join_probability=0.5)


def data_with_silence(fbank: Path, tokenizer: Tokenizer, silence: SilenceConfig = BOTH, **options) -> TrainData:
    return train_data(fbank, tokenizer, silence=silence, **{"max_duration": 12.0, "max_seconds": 10.0, **options})


def manifest(fbank: Path) -> dict[str, Cut]:
    return {cut.id: cut for cut in tiny_cuts(fbank)}


def drawn(data: TrainData, epoch: int = 1) -> list[Cut]:
    """The utterances of an epoch as they are loaded."""
    plan = data._planned(epoch, 1, NO_CUTS)
    return [cut for number in range(len(plan.batches)) for cut in data._loader.cuts(plan.task(epoch, number, None))]


def made(cuts: list[Cut], config: SilenceConfig, max_seconds: float = 20.0) -> list[Cut]:
    """The cuts with silence."""
    seconds = np.array([cut.duration for cut in cuts])
    rates = np.array([cut.sampling_rate for cut in cuts], np.int32)
    ones = np.ones(len(cuts), np.int32)
    utterances = plan_silence(
        np.arange(len(cuts), dtype=np.int32),
        Sizes(seconds, ones, ones, ones, rates),
        config,
        lambda seconds, needed: seconds <= max_seconds,
        np.random.default_rng(0),
    )
    parts = utterances.select(np.arange(len(utterances.seconds)))
    joined = [with_silence(part, [cuts[i] for i in part.cuts], config, random.Random(0)) for part in parts]
    assert [cut.duration for cut in joined] == pytest.approx(utterances.seconds.tolist(), abs=1e-7)
    return joined


@pytest.mark.parametrize("backend", ["lhotse", "kaldi-native-fbank"])
def test_features_of_digital_silence(backend: str) -> None:
    features = FbankExtractor(FbankOptions(backend=backend)).extract(torch.zeros(1600))
    np.testing.assert_allclose(features, SILENCE, atol=1e-4)


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_each_utterance_stands_where_it_should(on_the_fly: bool, prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    cuts = manifest(fbank)
    data = data_with_silence(fbank, tokenizer, on_the_fly=on_the_fly)
    long = {cut.id: cut for cut in drawn(data)}
    assert Counter(name for cut_id in long for name in cut_id.split("+")) == Counter(list(cuts))
    assert 8 < len(long) < 35
    silences = [track.cut for cut in long.values() if isinstance(cut, MixedCut) for track in cut.tracks]
    lengths = [cut.duration for cut in silences if isinstance(cut, PaddingCut)]
    assert 0 < min(lengths) < 0.3
    assert 0.8 < max(lengths) <= 1.01  # up to the next frame
    seen = 0
    for batch in data.epoch(1):
        for features, length, cut_id, text in zip(
            batch.features, batch.feature_lengths.tolist(), batch.cut_ids, batch.texts, strict=True
        ):
            cut = long[cut_id]
            features = features[:length]
            assert length == round(100 * cut.duration) == len(features)
            assert text == " ".join(cuts[name].supervisions[0].text for name in cut_id.split("+"))
            spoken = torch.zeros(length, dtype=torch.bool)
            for track in cut.tracks if isinstance(cut, MixedCut) else []:
                if isinstance(track.cut, PaddingCut):
                    continue
                begin = round(100 * track.offset)
                assert begin / 100 == pytest.approx(track.offset, abs=1e-6)
                expected = torch.from_numpy(cuts[track.cut.id].load_features())
                found = features[begin : begin + len(expected)]
                # lhotse's mixing adds an energy of 1e-10. At the edges, features of audio hear the silence, and stored
                # ones a mirrored signal.
                edge = 2 if on_the_fly else 0
                inner = slice(edge, len(expected) - edge)
                torch.testing.assert_close(found[inner], expected[inner], atol=2e-3 if on_the_fly else 1e-3, rtol=0)
                spoken[max(begin - 2, 0) : begin + len(expected) + 2] = True
                seen += 1
            if isinstance(cut, MixedCut):
                # White noise of at most -50 dB. Speech is noise of -20 dB here.
                assert (features[~spoken] < -1).all()
                assert (features[~spoken] >= SILENCE - 1e-4).all()
    assert seen > 30


def test_silence_is_that_of_noise_of_its_level(prepare, tokenizer: Tokenizer) -> None:
    """Beside features of the same noise."""
    level = -60.0
    silence = SilenceConfig(probability=1, max_pause=3, noise_db=(level, level))
    data = data_with_silence(prepare(count=20), tokenizer, silence)
    noise = torch.randn(160_000, generator=torch.Generator().manual_seed(5)) * 10 ** (level / 20)
    expected = FbankExtractor().extract(noise)  # (T, F)
    found = []
    longest = {cut.id: cut for cut in drawn(data)}
    for batch in data.epoch(1):
        for features, cut_id in zip(batch.features, batch.cut_ids, strict=True):
            first = longest[cut_id].tracks[0].cut
            assert isinstance(first, PaddingCut)
            found.append(features[: round(100 * first.duration)])
    mean, std = torch.cat(found).mean(0), torch.cat(found).std(0)  # (F,)
    assert len(torch.cat(found)) > 1000
    torch.testing.assert_close(mean, expected.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(std, expected.std(0), atol=0.2, rtol=0)


@pytest.mark.parametrize("options", [{}, {"on_the_fly": True}])
def test_same_batches_for_any_workers_and_after_resuming(options: dict, prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = data_with_silence(fbank, tokenizer, **options)
    batches = list(data.epoch(2))
    assert len(batches) > 6
    assert_same(list(data.epoch(2)), batches)
    assert_same(list(data.epoch(2, skip_batches=4)), batches[4:])
    assert_same(list(data_with_silence(fbank, tokenizer, **options, num_workers=2).epoch(2)), batches)
    dealt = [list(data.epoch(2, rank, 2)) for rank in range(2)]
    names = [name for batch in dealt[0] + dealt[1] for cut_id in batch.cut_ids for name in cut_id.split("+")]
    assert sorted(names) == sorted(manifest(fbank))
    for other in (data.epoch(3), data_with_silence(fbank, tokenizer, seed=1, **options).epoch(2)):
        assert [batch.cut_ids for batch in other] != [batch.cut_ids for batch in batches]


def test_silence_begins_with_its_first_epoch(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    late, plain, always = (
        data_with_silence(fbank, tokenizer, silence)
        for silence in (SilenceConfig(0.5, 0.5, first_epoch=3), SilenceConfig(), BOTH)
    )
    for epoch in (1, 2):
        assert [cut.id for cut in drawn(late, epoch)] == [cut.id for cut in drawn(plain, epoch)]
    assert [cut.id for cut in drawn(late, 3)] == [cut.id for cut in drawn(always, 3)]
    worst = [batch.feature_lengths.max().item() for _, batch in late.worst_batches()]
    assert max(worst) == max(batch.feature_lengths.max().item() for batch in late.epoch(3))


def test_same_batches_from_shards(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare()
    with ThreadPoolExecutor(1) as running:
        export_split(fbank, "tiny", "train", tmp_path / "shar", {"features": "numpy"}, 16, running)
    ordinary = data_with_silence(fbank, tokenizer)
    assert_same(data_with_silence(fbank, tokenizer, shar_dir=str(tmp_path / "shar")).epoch(1), ordinary.epoch(1))


def test_limits_of_training_hold(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = data_with_silence(fbank, tokenizer, SilenceConfig(1.0, 0.9), max_seconds=6.0, max_duration=15.0)
    batches = list(data.epoch(1))
    assert max(batch.feature_lengths.max() for batch in batches) <= 600
    assert sum("+" in cut_id for batch in batches for cut_id in batch.cut_ids) > 5
    assert max(batch.features.shape[0] * batch.features.shape[1] for batch in batches) <= 1600
    assert data.skipped == {}
    assert data.total_seconds == pytest.approx(sum(cut.duration for cut in manifest(fbank).values()))
    assert sum(batch.seconds for batch in batches) == pytest.approx(data.total_seconds)
    worst = [batch for _, batch in data.worst_batches()]
    # A batch is found to be the worst as it will be.
    longest = [max(int(batch.feature_lengths.max()) for batch in some) for some in (batches, worst)]
    assert longest[0] == longest[1]


def test_no_join_makes_too_many_tokens(prepare, tokenizer: Tokenizer) -> None:
    """Utterances that have just enough frames, and would need one more between equal letters."""
    fbank = prepare()
    cuts = list(manifest(fbank).values())
    for cut in cuts:
        frames = output_lengths(cut.num_frames)
        cut.supervisions[0].text = "TO" * frames
        while ctc_frames_needed(tokenizer.encode(cut.supervisions[0].text)) > frames:
            cut.supervisions[0].text = cut.supervisions[0].text[:-1]
    write_manifest(cuts, cuts_path(fbank, "tiny", "train"))
    data = data_with_silence(fbank, tokenizer, SilenceConfig(join_probability=1.0, max_pause=0.0))
    assert data.skipped == {}
    joined = 0
    for batch in data.epoch(1):
        for tokens, length, cut_id in zip(batch.tokens, batch.feature_lengths.tolist(), batch.cut_ids, strict=True):
            assert ctc_frames_needed(tokens) <= output_lengths(length)
            joined += "+" in cut_id
    assert joined > 3


def test_of_joined_utterances_only_the_unreadable_one_is_left_out(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare()
    data = data_with_silence(fbank, tokenizer, SilenceConfig(0.5, 0.9))
    bad = next(cut.id for cut in drawn(data) if cut.id.count("+") >= 2).split("+")[1]
    cut = manifest(fbank)[bad]
    (Path(cut.features.storage_path) / cut.features.storage_key).unlink()
    for epoch in (1, 2):
        kept = [name for batch in data.epoch(epoch) for cut_id in batch.cut_ids for name in cut_id.split("+")]
        assert sorted([*kept, bad]) == sorted(manifest(fbank))
    [listed] = SkippedItems.read(data.skipped_path.with_name("skipped-train-unreadable.tsv")).items
    assert (listed.id, listed.file) == (bad, cut.recording.sources[0].source)


def test_sample_rates_are_not_joined(prepare) -> None:
    cuts = [
        cut.drop_features().resample(8000) if i % 3 else cut.drop_features()
        for i, cut in enumerate(manifest(prepare(count=12)).values())
    ]
    joined = made(cuts, SilenceConfig(1.0, 1.0), math.inf)
    assert sum(len(utterances(cut)) for cut in joined) == 12
    assert len(joined) == 8
    for cut in joined:
        assert cut.load_audio().shape == (1, round(cut.duration * cut.sampling_rate))


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_noise_is_mixed_in_as_without_silence(on_the_fly: bool, prepare, tmp_path: Path) -> None:
    """At its ratio to the first utterance, wherever that stands, and into the silence as well."""
    fbank = prepare(count=12)
    cuts = list(manifest(fbank).values())
    write_manifest(cuts[:1], tmp_path / "noise.jsonl.gz")
    noise = NoiseConfig(str(tmp_path / "noise.jsonl.gz"), 1.0, (10.0, 10.0))
    mixer = NoiseMixer(noise, 0, on_the_fly, 16000, 80)
    quiet = SilenceConfig(1.0, 0.5, noise_db=(-200, -200))
    silent = CutSet(made(cuts[1:], quiet))
    for cut, mixed in zip(silent, mixer.mix(silent, 0, 0), strict=True):
        first = utterances(cut)[0]
        assert [one.id for one in utterances(mixed)] == [one.id for one in utterances(cut)]
        if on_the_fly:
            clean, noisy = cut.load_audio()[0], mixed.load_audio()[0]
            added = (noisy - clean)[: int(1600 * (10 * cuts[0].duration - 1))]
            ratio = (first.load_audio() ** 2).mean() / (added**2).mean()
        else:
            energies = np.exp(mixed.load_features()) - np.exp(cut.load_features())  # (T, F)
            added = energies[: int(100 * cuts[0].duration)]
            ratio = np.exp(first.load_features()).mean() / added.mean()
        assert 10 * math.log10(ratio) == pytest.approx(10, abs=0.3)


def test_dev_data_gets_none_and_nothing_is_added_by_default(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=8)
    data = data_with_silence(fbank, tokenizer, SilenceConfig(1.0, 1.0))
    dev = list(EvalData(data.config, tokenizer, "train", output_lengths))
    plain = data_with_silence(fbank, tokenizer, SilenceConfig())
    assert [batch.cut_ids for batch in dev] == [
        batch.cut_ids for batch in EvalData(plain.config, tokenizer, "train", output_lengths)
    ]
    assert sorted(cut.id for cut in drawn(plain)) == sorted(manifest(fbank))
    assert all(isinstance(cut, MonoCut) for cut in drawn(plain))
    assert SilenceConfig().summary() == "no silence added (--data.silence.probability)"
    assert (
        BOTH.summary()
        == "silence of up to 1 s around 50% of them, 50% joined, with noise at -100 to -50 dB, from epoch 1 on"
    )


@pytest.mark.parametrize(
    "options", [{"probability": 1.5}, {"join_probability": -1}, {"max_pause": -0.1}, {"noise_db": (-50, -60)}]
)
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(ValueError, match=r"--data\.silence\.probability"):
        SilenceConfig(**options)


@pytest.mark.parametrize(("begins_with", "is_joined"), [(8, True), (7, False)])
def test_equal_tokens_of_joined_cuts_need_a_frame_for_the_blank_between(begins_with: int, is_joined: bool) -> None:
    first, last = np.array([5, begins_with], np.int32), np.array([7, 9], np.int32)
    sizes = Sizes(np.ones(2), np.full(2, 5, np.int32), first, last, np.full(2, 16000, np.int32))
    config = SilenceConfig(join_probability=1.0)
    planned = plan_silence(
        np.arange(2, dtype=np.int32), sizes, config, lambda seconds, needed: needed <= 10, np.random.default_rng(0)
    )
    assert (len(planned.seconds) == 1) == is_joined
