import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from batch_cases import assert_same, config_for, tiny_cuts, train_data
from lhotse import CutSet, Recording, SupervisionSegment

from summarymix.data.evaluation_data import EvalData
from summarymix.data.extraction import ExtractionOptions, extract_noise
from summarymix.data.features import FbankExtractor
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.noise import NoiseConfig, NoiseMixer
from summarymix.data.silence import SilenceConfig
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


@pytest.fixture
def make_noise(tmp_path: Path):
    """Returns a function that writes white noise of these lengths in seconds and its cuts: the manifest."""

    def make(*seconds: float, sample_rate: int = 16000, storage: str = "numpy_files", window: float = 2.0) -> Path:
        rng = np.random.default_rng(1)
        (tmp_path / "noise").mkdir(exist_ok=True)
        recordings = []
        for i, duration in enumerate(seconds):
            samples = rng.standard_normal(int(duration * sample_rate)) * 0.05
            soundfile.write(tmp_path / "noise" / f"n{i}.wav", samples, sample_rate)
            recordings.append(Recording.from_file(tmp_path / "noise" / f"n{i}.wav"))
        write_manifest(recordings, tmp_path / "manifests" / "white_recordings_all.jsonl.gz")
        options = ExtractionOptions(storage=storage)
        with ThreadPoolExecutor(1) as executor:
            extract_noise(tmp_path / "manifests", tmp_path / "fbank", "white", ["all"], window, options, executor)
        return cuts_path(tmp_path / "fbank", "white", None)

    return make


def mixed_in(noise: Path, probability: float = 1.0) -> NoiseConfig:
    return NoiseConfig(str(noise), probability)


def mixer_for(noise: Path, seed: int = 0, on_the_fly: bool = True, **options) -> NoiseMixer:
    return NoiseMixer(NoiseConfig(str(noise), **options), seed, on_the_fly, 16000, 80)


# Noise of less than a second has to be repeated, that of four seconds to be cut.
@pytest.mark.parametrize("seconds", [(0.7, 0.9), (4.0, 4.0)])
def test_signal_to_noise_ratio_of_audio(seconds: tuple[float, ...], prepare, make_noise) -> None:
    fbank, noise = prepare(count=12), make_noise(*seconds, window=max(seconds))
    cuts = CutSet.from_cuts(tiny_cuts(fbank))
    ratios = []
    for cut, mixed in zip(cuts, mixer_for(noise, probability=1.0, snr=(10.0, 20.0)).mix(cuts, 0, 0), strict=True):
        assert (mixed.id, mixed.duration, mixed.num_samples) == (cut.id, cut.duration, cut.num_samples)
        clean = cut.load_audio()[0]
        added = mixed.load_audio()[0] - clean
        covered = np.flatnonzero(added)[-1] + 1
        assert len(clean) - covered <= 0.1 * 16000 + 1  # lhotse leaves up to 0.1 s at the end without noise
        ratios.append(10 * np.log10((clean**2).mean() / (added[:covered] ** 2).mean()))
    # Of several pieces of noise each one has the ratio by itself.
    assert 9.99 <= min(ratios) < max(ratios) - 3
    assert max(ratios) <= 20.01


@pytest.mark.parametrize("seconds", [(0.7, 0.9), (4.0, 4.0)])
def test_mixing_features_is_close_to_mixing_audio(seconds: tuple[float, ...], prepare, make_noise) -> None:
    fbank, noise = prepare(count=12), make_noise(*seconds, window=max(seconds))
    cuts = CutSet.from_cuts(tiny_cuts(fbank))
    drawn = {"probability": 1.0, "snr": (-5.0, 5.0)}
    of_features = mixer_for(noise, on_the_fly=False, **drawn).mix(cuts, 0, 0)
    of_audio = mixer_for(noise, **drawn).mix(cuts, 0, 0)
    extractor = FbankExtractor()
    for cut, one, other in zip(cuts, of_features, of_audio, strict=True):
        mixed, exact = one.load_features(), extractor.extract(other.load_audio()[0]).numpy()
        assert len(one.tracks) == len(other.tracks) >= 2
        assert mixed.shape == exact.shape == cut.load_features().shape
        covered = slice(0, len(mixed) - 10)
        # Two signals interfere: the logarithm of the sum's energy is a little less on average than that of the sum of
        # their energies, and varies. The ratio itself is the same.
        difference = (mixed - exact)[covered]
        assert abs(difference.mean() - 0.12) < 0.06
        assert difference.std() < 0.7
        added = np.exp(mixed[covered]) - np.exp(cut.load_features()[covered])
        ratio = 10 * np.log10(np.exp(cut.load_features()[covered]).mean() / added.mean())
        assert -5.3 < ratio < 5.3


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_same_batches_for_any_workers_and_after_resuming(
    on_the_fly: bool, prepare, make_noise, tokenizer: Tokenizer
) -> None:
    fbank, noise = prepare(), make_noise(3.0, 5.0)
    data = train_data(fbank, tokenizer, on_the_fly=on_the_fly, noise=mixed_in(noise, 0.5))
    clean = list(train_data(fbank, tokenizer, on_the_fly=on_the_fly).epoch(1))
    batches = list(data.epoch(1))
    assert [batch.cut_ids for batch in batches] == [batch.cut_ids for batch in clean]
    assert [batch.texts for batch in batches] == [batch.texts for batch in clean]
    assert [batch.tokens for batch in batches] == [batch.tokens for batch in clean]
    noisy = sum(
        not torch.equal(a, b)
        for one, other in zip(batches, clean, strict=True)
        for a, b in zip(one.features, other.features, strict=True)
    )
    assert 8 < noisy < 32  # of 40, with probability 0.5
    assert_same(list(data.epoch(1)), batches)
    assert_same(list(data.epoch(1, skip_batches=4)), batches[4:])
    workers = train_data(fbank, tokenizer, on_the_fly=on_the_fly, noise=mixed_in(noise, 0.5), num_workers=2)
    assert_same(list(workers.epoch(1)), batches)
    ranks = [list(data.epoch(1, rank, 2, skip_batches=1)) for rank in range(2)]
    whole = len(batches) // 2 * 2 - 2
    dealt = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert_same(dealt[: whole - 2], batches[2:whole])


def test_noise_changes_with_epoch_seed_and_batch(prepare, make_noise) -> None:
    fbank, noise = prepare(count=6), make_noise(30.0)
    cuts = CutSet.from_cuts(tiny_cuts(fbank))

    def drawn(seed: int, epoch: int, batch: int) -> list[tuple[str, float]]:
        mixed = mixer_for(noise, seed, probability=1.0).mix(cuts, epoch, batch)
        return [(track.cut.recording_id, track.cut.start, track.snr) for cut in mixed for track in cut.tracks[1:]]

    assert drawn(0, 1, 2) == drawn(0, 1, 2)
    assert len({tuple(drawn(*key)) for key in [(0, 1, 2), (1, 1, 2), (0, 2, 1), (0, 1, 3), (0, 0, 12)]}) == 5


def test_global_random_state_is_not_touched(prepare, make_noise, tokenizer: Tokenizer) -> None:
    data = train_data(prepare(count=8), tokenizer, noise=mixed_in(make_noise(3.0)))
    states = random.getstate(), torch.get_rng_state().tolist()
    list(data.epoch(0))
    assert states == (random.getstate(), torch.get_rng_state().tolist())


def test_dev_data_gets_none(prepare, make_noise, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=8)
    configs = config_for(fbank, noise=mixed_in(make_noise(3.0))), config_for(fbank)
    assert_same(*(EvalData(config, tokenizer, "train", output_lengths) for config in configs))


def test_any_sample_rate_on_the_fly(prepare, make_noise) -> None:
    fbank, noise = prepare(count=3), make_noise(4.0, sample_rate=8000, storage="none")
    cuts = CutSet.from_cuts(cut.resample(8000) for cut in tiny_cuts(fbank))
    for cut, mixed in zip(cuts, mixer_for(noise, probability=1.0).mix(cuts, 0, 0), strict=True):
        assert mixed.sampling_rate == 16000
        assert mixed.load_audio().shape == (1, mixed.num_samples)
        added = (mixed.load_audio() - cut.resample(16000).load_audio())[0, : mixed.num_samples - 1700]
        assert 10 < 10 * np.log10((cut.load_audio() ** 2).mean() / (added**2).mean()) < 20


def test_what_is_said_in_the_noise_is_not_learnt(prepare, make_noise, tokenizer: Tokenizer) -> None:
    fbank, noise = prepare(count=8), make_noise(3.0, 5.0)
    spoken = list(read_cuts(noise))
    for cut in spoken:
        cut.supervisions = [SupervisionSegment("s", cut.recording_id, 0, cut.duration, text="LIGHT LIGHT")]
    write_manifest(spoken, noise)
    texts = [batch.texts for batch in train_data(fbank, tokenizer, noise=mixed_in(noise)).epoch(0)]
    assert texts == [batch.texts for batch in train_data(fbank, tokenizer).epoch(0)]


@pytest.mark.parametrize("on_the_fly", [False, True])
@pytest.mark.parametrize("silence", [SilenceConfig(), SilenceConfig(0.5, 0.9)])
def test_unreadable_noise_is_listed_and_costs_no_utterance(
    silence: SilenceConfig, on_the_fly: bool, prepare, make_noise, tokenizer: Tokenizer
) -> None:
    fbank, noise = prepare(count=8), make_noise(1.9, 1.9)
    (bad, _) = sorted(read_cuts(noise), key=lambda cut: cut.id)
    options = {"on_the_fly": on_the_fly, "silence": silence, "max_duration": 16.0}
    data = train_data(fbank, tokenizer, noise=mixed_in(noise), **options)
    with_noise = list(data.epoch(1))
    clean = list(train_data(fbank, tokenizer, **options).epoch(1))
    file = Path(bad.recording.sources[0].source)
    if not on_the_fly:
        file = Path(bad.features.storage_path) / bad.features.storage_key
    file.unlink()
    batches = list(data.epoch(1))
    assert [batch.cut_ids for batch in batches] == [batch.cut_ids for batch in clean]
    noisy, noiseless = 0, 0
    for batch, before, without in zip(batches, with_noise, clean, strict=True):
        for row, one, other in zip(batch.features, before.features, without.features, strict=True):
            noisy += torch.equal(row, one)
            noiseless += torch.equal(row, other)
    assert noisy + noiseless == sum(map(len, batches))
    assert noiseless
    (item,) = SkippedItems.read(data.skipped_path.with_name("skipped-train-unreadable.tsv")).items
    assert (item.id, item.file) == (bad.recording_id, bad.recording.sources[0].source)
    assert item.reason == f"missing noise {'audio' if on_the_fly else 'features'}"
    assert file.name in f"{item.file} {item.detail}"
    assert item.remedy.startswith("restore the file, or prepare the noise again")


def test_one_bad_piece_of_many_stops_nothing(
    prepare, make_noise, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails again whenever it is mixed in."""
    fbank, noise = prepare(count=12), make_noise(*[1.9] * 5)
    bad = next(iter(read_cuts(noise)))
    (Path(bad.features.storage_path) / bad.features.storage_key).unlink()
    monkeypatch.setattr("summarymix.data.loading.FAILURES_THAT_ARE_FATAL", 1)
    data = train_data(fbank, tokenizer, noise=mixed_in(noise))
    batches = [batch for epoch in range(1, 5) for batch in data.epoch(epoch)]
    assert sum(batch.num_unreadable_noise for batch in batches) > 1


def test_unreadable_utterance_beside_unreadable_noise(prepare, make_noise, tokenizer: Tokenizer) -> None:
    """Each has its own entry, and of joined utterances the others remain."""
    fbank, noise = prepare(count=12), make_noise(1.9)
    data = train_data(
        fbank, tokenizer, noise=mixed_in(noise), silence=SilenceConfig(0.5, 0.9), max_duration=20.0, max_seconds=10.0
    )
    whole = {name for batch in data.epoch(1) for cut_id in batch.cut_ids for name in cut_id.split("+")}
    cut, (bad,) = tiny_cuts(fbank)[4], read_cuts(noise)
    for one in (cut, bad):
        (Path(one.features.storage_path) / one.features.storage_key).write_bytes(b"damaged")
    read = [name for batch in data.epoch(1) for cut_id in batch.cut_ids for name in cut_id.split("+")]
    assert sorted([*read, cut.id]) == sorted(whole)
    listed = SkippedItems.read(data.skipped_path.with_name("skipped-train-unreadable.tsv"))
    assert {item.id: item.reason for item in listed.items} == {
        cut.id: "unreadable features",
        bad.recording_id: "unreadable noise features",
    }


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_noise_of_another_recipe_is_read_with_its_folder(
    on_the_fly: bool, prepare, make_noise, tokenizer: Tokenizer, tmp_path: Path, monkeypatch
) -> None:
    """Without it no piece is found, and training stops."""
    fbank, noise = prepare(), make_noise(1.9, 1.9)
    expected = list(train_data(fbank, tokenizer, on_the_fly=on_the_fly, noise=mixed_in(noise)).epoch(1))
    cuts = list(read_cuts(noise))
    for cut in cuts:
        cut.features.storage_path = os.path.relpath(cut.features.storage_path, tmp_path)
        [source] = cut.recording.sources
        source.source = os.path.relpath(source.source, tmp_path)
    write_manifest(cuts, noise)
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    of_another = NoiseConfig(os.path.relpath(noise, tmp_path), 1.0, dir="..")
    assert_same(train_data(fbank, tokenizer, on_the_fly=on_the_fly, noise=of_another).epoch(1), expected)
    monkeypatch.setattr("summarymix.data.loading.FAILURES_THAT_ARE_FATAL", 20)
    message = r"^(\d+) of the first \1 pieces of noise could not be read, .*n\d.wav.* --data.noise.dir"
    with pytest.raises(OSError, match=message):
        list(train_data(fbank, tokenizer, on_the_fly=on_the_fly, noise=mixed_in(noise)).epoch(1))


def test_noise_that_cannot_be_used_is_refused(prepare, make_noise, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No manifest of noise .*nope.jsonl.gz: run ./prepare.sh --musan true"):
        mixer_for(tmp_path / "nope.jsonl.gz")
    noise = make_noise(2.0, storage="none")
    with pytest.raises(
        ValueError, match=r"n0-0 of .* has no features at 16000 Hz instead of 80 at 16000 Hz: .*on_the_fly"
    ):
        mixer_for(noise, on_the_fly=False)
    with pytest.raises(ValueError, match=r"n0-0 of .* has 80 features at 16000 Hz instead of 80 at 8000 Hz"):
        NoiseMixer(mixed_in(make_noise(2.0)), 0, False, 8000, 80)
    with pytest.raises(ValueError, match=r"--data.noise.snr \[20.0, 10.0\] must be in ascending order"):
        mixer_for(noise, snr=(20.0, 10.0))
    write_manifest([], noise)
    with pytest.raises(ValueError, match="is empty"):
        mixer_for(noise)


def test_windows_of_noise(make_noise, capsys: pytest.CaptureFixture[str]) -> None:
    cuts = sorted(read_cuts(make_noise(5.0, 3.1, 2.9, 1.0)), key=lambda cut: cut.id)
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [
        ("n0-0", 0, 2.0),
        ("n0-1", 2.0, 2.0),  # one second, not more than half a window, is left over
        ("n1-0", 0, 2.0),
        ("n1-1", 2.0, 1.1),
        ("n2-0", 0, 2.0),
    ]
    assert "white: 1 recordings of 1 s or less are left out\n" in capsys.readouterr().err
    for cut in cuts:
        assert cut.load_features().shape == (round(100 * cut.duration), 80)
        np.testing.assert_allclose(cut.load_features(), FbankExtractor().extract(cut.load_audio()[0]), atol=1e-6)


def test_summary() -> None:
    assert NoiseConfig().summary() == "no noise mixed in (--data.noise.manifest)"
    assert NoiseConfig("x.jsonl.gz", 0.25).summary() == "noise from x.jsonl.gz in 25% of them at 10 to 20 dB SNR"
