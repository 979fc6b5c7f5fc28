import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording
from lhotse.utils import fastcopy
from memory import traced_peaks

from summarymix.data.audio_file import open_audio
from summarymix.data.corpus import validate
from summarymix.data.corpus.measured import read_measured
from summarymix.data.corpus.validate import audio_problem, duration_statistics, shared_speakers, validate_split
from summarymix.data.cuts import NO_SPEECH, features_file
from summarymix.data.manifests import cuts_path, read_cuts, removed_path, write_manifest
from summarymix.data.skipped import SkippedItems


def test_good_data_stays(prepare) -> None:
    fbank = prepare(speeds=(0.9,))
    before = cuts_path(fbank, "tiny", "train").read_bytes()
    assert len(validate_split(fbank, "tiny", "train").skipped) == 0
    assert cuts_path(fbank, "tiny", "train").read_bytes() == before


def test_bad_cuts_are_taken_out_and_stay_listed(prepare) -> None:
    fbank = prepare()
    path = cuts_path(fbank, "tiny", "train")
    cuts = list(read_cuts(path))
    files = [Path(cut.recording.sources[0].source) for cut in cuts]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-3000])
    soundfile.write(files[2], np.zeros(12345), 16000)
    soundfile.write(files[3], np.zeros(12345), 22050)
    cuts[4].supervisions[0].text = ""
    cuts[5] = fastcopy(cuts[5], features=fastcopy(cuts[5].features, num_frames=7))
    cuts.append(cuts[10])
    write_manifest(cuts, path)

    skipped = validate_split(fbank, "tiny", "train", num_jobs=2).skipped
    assert skipped.counts == {"bad audio": 4, "empty transcript": 1, "inconsistent manifest": 1, "duplicate id": 1}
    detail = {item.id: item.detail for item in skipped.items}
    assert "no such file" in detail[cuts[0].id]
    assert detail[cuts[1].id]
    assert "12345 samples instead of" in detail[cuts[2].id]
    assert "sample rate 22050 Hz instead of 16000" in detail[cuts[3].id]
    assert [cut.id for cut in read_cuts(path)] == [cut.id for cut in cuts[6:40]]

    again = validate_split(fbank, "tiny", "train").skipped
    assert {item.id for item in again.items} == {cut.id for cut in [*cuts[:6], cuts[10]]}
    assert len(SkippedItems.read(fbank / "skipped-tiny-train-validate.tsv")) == 7


def test_cuts_without_the_file_of_their_features_are_taken_out(prepare) -> None:
    fbank = prepare()
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
    features_file(cuts[7]).unlink()
    (item,) = validate_split(fbank, "tiny", "train").skipped.items
    assert (item.id, item.reason, item.detail) == (cuts[7].id, "missing features", str(features_file(cuts[7])))


def test_killed_between_list_and_manifest_lists_nothing_twice(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    fbank = prepare()
    path = cuts_path(fbank, "tiny", "train")
    (last,) = (cut for cut in read_cuts(path) if cut.id == "u39")
    Path(last.recording.sources[0].source).unlink()

    def killed(*arguments) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(validate, "write_lines_packed", killed)
        validate_split(fbank, "tiny", "train")
    assert len(SkippedItems.read(removed_path(fbank, "tiny", "train"))) == 1
    for _ in range(2):
        assert [item.id for item in validate_split(fbank, "tiny", "train").skipped.items] == ["u39"]
    # A new extraction without this utterance forgets it.
    prepare(39)
    assert not validate_split(fbank, "tiny", "train").skipped.items


def test_recordings_without_speech_stay(prepare) -> None:
    fbank = prepare(count=3)
    path = cuts_path(fbank, "tiny", "train")
    cuts = list(read_cuts(path))
    for cut in cuts[:2]:
        cut.supervisions[0].text = ""
    cuts[0].supervisions[0].custom = NO_SPEECH
    write_manifest(cuts, path)
    assert [item.id for item in validate_split(fbank, "tiny", "train").skipped.items] == [cuts[1].id]


def test_nothing_left_keeps_the_manifest(prepare) -> None:
    fbank = prepare(count=3)
    path = cuts_path(fbank, "tiny", "train")
    for cut in read_cuts(path):
        Path(cut.recording.sources[0].source).unlink()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="none of 3 cuts is valid; skipped 3: 3 bad audio"):
        validate_split(fbank, "tiny", "train")
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_truncated_files_of_every_length_are_noticed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.random.default_rng(0).standard_normal(16000) * 0.1, 16000)
    recording = Recording.from_file(path)
    assert audio_problem(recording) is None
    whole = path.read_bytes()
    for kept in (0.99, 0.9, 0.5, 0.1, 0.0):
        path.write_bytes(whole[: int(len(whole) * kept)])
        assert audio_problem(recording), kept


def test_only_files_that_have_changed_since_preparation_are_read_again(
    prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fbank = prepare(6, speeds=(0.9,))
    measured = read_measured(tmp_path / "manifests")
    assert len(measured) == 6
    opened: list[str] = []
    monkeypatch.setattr(validate, "open_audio", lambda path: opened.append(path) or open_audio(path))
    assert len(validate_split(fbank, "tiny", "train", measured=measured).skipped) == 0
    assert not opened
    first, second, third = sorted(
        cut.recording.sources[0].source for cut in read_cuts(cuts_path(fbank, "tiny", "train"))
    )[:6:2]
    soundfile.write(first, soundfile.read(first)[0][:-1], 16000)
    Path(second).unlink()
    os.utime(third)
    skipped = validate_split(fbank, "tiny", "train", measured=measured).skipped
    assert set(opened) == {first, third}  # the second is gone
    assert {item.id.split("_")[0] for item in skipped.items} == {Path(first).stem, Path(second).stem}
    other = measured.get(third)._replace(num_samples=1)
    recording = Recording.from_file(third)
    assert audio_problem(recording, {third: other}) is None  # as the file is, not as the list says
    assert third in opened[-1]


def test_speakers_in_two_splits(prepare) -> None:
    fbank = prepare()
    path = cuts_path(fbank, "tiny", "train")
    cuts = list(read_cuts(path))
    for cut in cuts:
        if cut.supervisions[0].speaker == "s3":
            cut.supervisions[0].text = ""  # is removed, and the speaker with it
    write_manifest(cuts, path)
    speakers = validate_split(fbank, "tiny", "train").speakers
    assert speakers == {"s0", "s1", "s2"}
    assert shared_speakers({"a": speakers, "b": {"s2", "s1", "s3"}, "c": {"s3"}}) == {
        ("a", "b"): ["s1", "s2"],
        ("b", "c"): ["s3"],
    }


def test_statistics(prepare) -> None:
    fbank = prepare()
    cuts = list(read_cuts(cuts_path(fbank, "tiny", "train")))
    text = duration_statistics(validate_split(fbank, "tiny", "train").seconds)
    assert text.startswith(f"40 utterances, {sum(cut.duration for cut in cuts) / 3600:.2f} h")
    assert f"100%: {max(cut.duration for cut in cuts):.1f}" in text


def test_of_several_cuts_with_one_id_the_first_good_one_stays(prepare) -> None:
    fbank = prepare(count=3)
    path = cuts_path(fbank, "tiny", "train")
    bad, good, other = (fastcopy(cut, id="same") for cut in read_cuts(path))
    bad.supervisions[0].text = ""
    write_manifest([bad, good, other, bad], path)
    for _ in range(2):  # the second check finds none of them, and forgets none
        skipped = validate_split(fbank, "tiny", "train").skipped
        assert [(item.reason, item.detail) for item in skipped.items] == [
            ("empty transcript", ""),
            ("duplicate id", "occurs 4 times, the first is kept"),
            ("duplicate id", "occurs 4 times, the first is kept"),
        ]
        assert list(read_cuts(path)) == [good]
    write_manifest([good, other.with_id("other")], path)
    assert not validate_split(fbank, "tiny", "train").skipped.items


def test_memory_does_not_grow_with_the_corpus(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_BLOCK", 20)
    fbank = prepare(count=1)
    path = cuts_path(fbank, "tiny", "train")
    (cut,) = read_cuts(path)

    def generate(count: int) -> None:
        write_manifest([fastcopy(cut, id=f"{cut.id}-{i}") for i in range(count)], path)

    def work(count: int) -> None:
        assert len(validate_split(fbank, "tiny", "train").seconds) == count

    small, large = traced_peaks(generate, work, 200, 1600)
    assert large - small < 1400 * 100  # bytes a cut


def test_line_that_is_no_cut_is_named(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_BLOCK", 2)
    fbank = prepare(count=4)
    manifest = cuts_path(fbank, "tiny", "train")
    lines = gzip.decompress(manifest.read_bytes()).splitlines(keepends=True)
    manifest.write_bytes(gzip.compress(b"".join([*lines[:2], lines[2][:50], b"\n", lines[3]])))
    with pytest.raises(ValueError, match=r"tiny_cuts_train.jsonl.gz, line 3 cannot be used \(JSONDecodeError"):
        validate_split(fbank, "tiny", "train")
