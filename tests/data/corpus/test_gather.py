"""Rows against recordings: ids, channels, segments, and that each becomes one cut with its own text and audio."""

import gc
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.cut import MonoCut
from manifest_cuts import load_cuts

from summarymix.data.corpus.base import Corpus, Row
from summarymix.data.corpus.gather import gather, name_of
from summarymix.data.corpus.on_disk import DiskDict
from summarymix.data.corpus.recordings import AudioFindings, command_in, open_commands, open_files
from summarymix.data.corpus.validate import audio_problem
from summarymix.data.cuts import has_no_speech, transcript
from summarymix.data.skipped import SkippedItems


def write_noise(path: Path, seconds: float, rate: int = 16000, channels: int = 1, seed: int = 0) -> str:
    """An audio file of noise, different on every channel."""
    samples = np.random.default_rng(seed).uniform(-0.4, 0.4, (int(seconds * rate), channels))
    opus = path.suffix == ".opus"
    soundfile.write(path, samples, rate, format="OGG" if opus else None, subtype="OPUS" if opus else None)
    return str(path)


def gather_files(rows: list[Row], **options) -> Corpus:
    findings = AudioFindings(Path(rows[0].audio).parent / "copies")
    return gather(
        rows, open_files({row.audio: name_of(Path(row.audio).name) for row in rows}, findings), findings, **options
    )


def reasons(corpus: Corpus) -> dict[str, str]:
    return {item.id: item.reason for item in corpus.skipped.items}


def test_every_utterance_is_one_cut_with_its_own_text_and_audio(tmp_path: Path) -> None:
    """Overlapping segments, of several speakers and channels, and whole files beside them."""
    call = write_noise(tmp_path / "call.wav", 10, 8000, channels=2)
    talk = write_noise(tmp_path / "talk.flac", 5.0333)
    rng = np.random.default_rng(1)
    rows = [Row(call, "BOTH ENDS", channel=channel, speaker=f"s{channel}") for channel in (0, 1)]
    rows.append(Row(talk, "ALL OF IT"))
    for i in range(40):
        start, end = np.sort(rng.uniform(0, 5.0333, 2))
        audio, channel = (call, i % 2) if i < 20 else (talk, None)
        # in milliseconds, as tables have them, and as long floats
        digits = 3 if i % 3 else 17
        rows.append(
            Row(audio, f"TEXT {i}", start=round(start, digits), duration=round(end - start, digits), channel=channel)
        )
    # the same times on both channels, and ends a little behind the audio's
    rows += [Row(call, f"AT ONCE {channel}", start=2.0, duration=3.0, channel=channel) for channel in (0, 1)]
    rows += [Row(talk, "TO THE END", start=4.5), Row(talk, "BEYOND IT", start=4.4, duration=0.7)]
    corpus = gather_files(rows)
    assert len(corpus.skipped) == 0
    corpus.write("c", tmp_path / "m")

    cuts = {cut.id: cut for cut in load_cuts(tmp_path / "m", "c", "train")}
    assert len(cuts) == len(rows)
    for utterance, row in zip(corpus.utterances, rows, strict=True):
        cut = cuts[utterance.supervision.id]
        assert isinstance(cut, MonoCut)
        (supervision,) = cut.supervisions
        assert (supervision.text, supervision.speaker, cut.channel) == (row.text, row.speaker, row.channel or 0)
        samples, rate = soundfile.read(row.audio, dtype="float32", always_2d=True)
        begin = round(row.start * rate)
        end = len(samples) if row.duration is None else min(round((row.start + row.duration) * rate), len(samples))
        loaded = cut.load_audio()
        assert loaded.shape[0] == 1
        assert abs(loaded.shape[1] - (end - begin)) <= 1
        # Where lhotse's times round otherwise, the segment begins one sample earlier or later.
        both = min(loaded.shape[1], end - begin) - 1
        wanted = [samples[b : b + both, cut.channel] for b in (max(begin - 1, 0), begin, begin + 1)]
        assert any(np.array_equal(loaded[0, :both], w) for w in wanted)


def test_several_channels_need_a_choice(tmp_path: Path) -> None:
    stereo, mono = write_noise(tmp_path / "s.wav", 1, channels=2), write_noise(tmp_path / "m.wav", 1)
    rows = [Row(stereo, "A"), Row(stereo, "B", channel=2), Row(mono, "C"), Row(stereo, "D", channel=1)]
    corpus = gather_files(rows)
    assert reasons(corpus) == {"s": "several channels", "s-ch2": "no such channel"}
    assert "--channel" in corpus.skipped.items[0].remedy
    assert [u.supervision.channel for u in corpus.utterances] == [0, 1]
    corpus = gather_files(rows, channel=0)
    assert [(u.supervision.id, u.supervision.channel) for u in corpus.utterances] == [("s", 0), ("m", 0), ("s-ch1", 1)]


def test_made_ids_are_readable_and_never_collide(tmp_path: Path) -> None:
    for folder in ("x", "y y"):
        (tmp_path / folder).mkdir()
    paths = [write_noise(tmp_path / name, 1) for name in ("x/a.wav", "x/a.flac", "x-a.wav", "y y/b c.wav")]
    rows = [Row(path, "T") for path in paths]
    rows += [
        Row(paths[3], "T", start=0.25),
        Row(paths[3], "T", start=0.25, duration=0.1),
        Row(paths[3], "T", "x-a-2", start=0.5),
    ]
    names = {path: name_of(Path(path).relative_to(tmp_path)) for path in paths}
    findings = AudioFindings(tmp_path / "copies")
    corpus = gather(rows, open_files(names, findings), findings)
    ids = [utterance.supervision.id for utterance in corpus.utterances]
    assert ids == ["x-a", "x-a-2-2", "x-a-3", "y_y-b_c", "y_y-b_c-0000250", "y_y-b_c-0000250-2", "x-a-2"]
    recordings = {utterance.recording.sources[0].source: utterance.recording.id for utterance in corpus.utterances}
    assert list(recordings.values()) == ["x-a", "x-a-2", "x-a-3", "y_y-b_c"]


def test_duplicates(tmp_path: Path) -> None:
    a, b = write_noise(tmp_path / "a.wav", 1), write_noise(tmp_path / "b.wav", 1)
    rows = [Row(a, "X"), Row(a, "Y"), Row(a, "X", start=0.1), Row(b, "Z", "a"), Row(b, "Z", "b"), Row(b, "W", "a")]
    corpus = gather_files(rows)
    # Given ids come before made ones: the first row is a-2.
    assert [(item.id, item.reason, item.detail) for item in corpus.skipped.items] == [
        ("a-3", "duplicate audio", "the same as a-2"),
        ("b", "duplicate audio", "the same as a"),
        ("a", "duplicate id", "the first is kept"),
    ]


def test_the_same_audio_in_other_words_is_a_duplicate(tmp_path: Path) -> None:
    a, stereo = write_noise(tmp_path / "a.wav", 2), write_noise(tmp_path / "s.wav", 1, channels=2)
    rows = [
        Row(a, "X", "whole"),
        Row(f"{tmp_path}/./a.wav", "X", "dots", split="test"),
        Row(a, "X", "times", split="test", duration=2.0),
        Row(a, "X", "channel", split="test", channel=0),
        Row(a, "X", "beginning", split="test", duration=1.0),
        Row(stereo, "X", "left", channel=0),
        Row(stereo, "X", "right", channel=1),
    ]
    corpus = gather_files(rows)
    assert [(item.id, item.detail) for item in corpus.skipped.items] == [
        (name, "the same as whole") for name in ("dots", "times", "channel")
    ]


def test_segments_need_a_feature_frame(tmp_path: Path) -> None:
    a, b = write_noise(tmp_path / "a.wav", 1), write_noise(tmp_path / "b.wav", 0.004)
    rows = [Row(a, "X", "end", start=0.99999), Row(a, "X", "short", duration=0.004), Row(b, "X", "file")]
    corpus = gather_files([*rows, Row(a, "X", "frame", start=0.5, duration=0.01)])
    assert reasons(corpus) == dict.fromkeys(("end", "short", "file"), "segment too short")


@pytest.mark.parametrize(
    ("start", "duration"), [(-0.1, 0.5), (1.0, None), (0.5, 0.0), (0.5, -0.1), (0.5, 0.7), (float("nan"), None)]
)
def test_segments_outside_the_audio(start: float, duration: float | None, tmp_path: Path) -> None:
    corpus = gather_files([Row(write_noise(tmp_path / "a.wav", 1), "X", "u", start=start, duration=duration)])
    assert reasons(corpus) == {"u": "segment outside its audio"}


def test_transcripts_are_normalised(tmp_path: Path) -> None:
    audio = write_noise(tmp_path / "a.wav", 1)
    rows = [Row(audio, " Cafe\u0301 \u00a0au  lait\n"), Row(audio, "x", start=0.5)]
    corpus = gather_files(rows)
    assert corpus.utterances[0].supervision.text == "Caf\u00e9 au lait"
    assert corpus.num_not_nfc == 1
    assert gather_files(rows, text_case="upper").utterances[0].supervision.text == "CAF\u00c9 AU LAIT"


def test_empty_transcripts_of_recordings_without_speech(tmp_path: Path) -> None:
    """Punctuation alone is no statement that there is no speech, nor is a transcript that the corpus lacks."""
    audio = write_noise(tmp_path / "a.wav", 1)
    texts = {"spoken": "X", "silent": " \t", "marks": "…?!", "missing": None}
    rows = [Row(audio, text, id_, start=0.2 * i, duration=0.2) for i, (id_, text) in enumerate(texts.items())]
    corpus = gather_files(rows, punctuation="remove", keep_empty=True)
    assert reasons(corpus) == {"marks": "empty transcript", "missing": "empty transcript"}
    assert "only punctuation" in corpus.skipped.items[0].detail
    corpus.write("c", tmp_path)
    cuts = {cut.id: cut for cut in load_cuts(tmp_path, "c", "train")}
    assert {id_: (transcript(cut), has_no_speech(cut)) for id_, cut in cuts.items()} == {
        "spoken": ("X", False),
        "silent": ("", True),
    }
    assert has_no_speech(cuts["silent"].perturb_speed(0.9))
    assert transcript(cuts["silent"].append(cuts["spoken"]).append(cuts["spoken"])) == "X X"
    assert not has_no_speech(cuts["silent"].append(cuts["spoken"]))
    without = gather_files(rows, punctuation="remove")
    assert reasons(without) == dict.fromkeys(("silent", "marks", "missing"), "empty transcript")
    assert all("--keep-empty" in item.remedy for item in without.skipped.items)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        *(("split", name, "unusable split name") for name in ("a/b", "..", ".", "--help", "a b")),
        *(("id", f"a{c}b", "unusable id") for c in "\n\t\0\x0c\u2028\u2029\ud800"),
        *((name, "\ud800", "unusable character") for name in ("text", "speaker", "language")),
        ("text", "A\0B", "unusable character"),
    ],
)
def test_rows_that_cannot_be_written_to_files_are_listed(field: str, value: str, reason: str, tmp_path: Path) -> None:
    audio = write_noise(tmp_path / "a.wav", 1)
    row = replace(Row(audio, "X", "b", where="t.tsv, line 7"), **{field: value})
    corpus = gather_files([row, Row(audio, "X", "good", start=0.5)])
    (item,) = corpus.skipped.items
    assert item.reason == reason
    assert item.detail.endswith("t.tsv, line 7")
    assert item.remedy
    corpus.write("c", tmp_path / "m")
    assert [cut.id for cut in load_cuts(tmp_path / "m", "c", "train")] == ["good"]
    assert SkippedItems.read(tmp_path / "m" / "skipped-c-table.tsv").counts == {reason: 1}


def test_neither_utterances_nor_recordings_stay_in_memory(tmp_path: Path) -> None:
    sources = [[AudioSource("file", [0], f"{i}, which is not opened")] for i in range(50)]
    recordings = DiskDict((f"{i}", Recording(f"here-{i}", sources[i], 8000, 8000, 1.0)) for i in range(50))
    corpus = gather([Row(f"{i}", "X") for i in range(50)], recordings, AudioFindings(tmp_path / "copies"))
    assert len(list(corpus.utterances)) == 50
    live = [item for item in gc.get_objects() if type(item) in (Recording, SupervisionSegment)]
    assert len([item for item in live if item.id.startswith("here-")]) < 5


def test_test_sets_may_share_ids_and_audio(tmp_path: Path) -> None:
    a, b = write_noise(tmp_path / "a.wav", 1), write_noise(tmp_path / "b.wav", 1, seed=1)
    kept = [Row(a, "X", "u", split="test_a"), Row(b, "X", "u", split="test_b"), Row(a, "X", "v", split="test_b")]
    left_out = [
        Row(b, "X", "u", split="test_b"),
        Row(b, "Y", "w", split="test_b"),
        Row(a, "X", "x", split="train"),
        Row(a, "X", "x", split="dev"),
    ]
    corpus = gather_files([*kept, *left_out])
    assert [(u.split, u.supervision.id) for u in corpus.utterances] == [(row.split, row.id) for row in kept]
    assert [item.reason for item in corpus.skipped.items] == ["duplicate id"] + 3 * ["duplicate audio"]
    corpus.write("c", tmp_path)
    for split in ("test_a", "test_b"):
        samples = {cut.id: cut.load_audio() for cut in load_cuts(tmp_path, "c", split)}
        file = tmp_path / ("a.wav" if split == "test_a" else "b.wav")
        np.testing.assert_array_equal(samples["u"][0], soundfile.read(file, dtype="float32")[0])
    # All training data are one set.
    rows = [Row(a, "X", "u", split="train_a"), Row(b, "X", "u", split="train_b")]
    assert reasons(gather_files(rows)) == {"u": "duplicate id"}


def test_only_manifests_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    a, b = write_noise(tmp_path / "a.wav", 1), write_noise(tmp_path / "b.wav", 1)
    foreign = tmp_path / "m" / "c_recordings_mine.jsonl.gz"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    gather_files([Row(a, "X"), Row(b, "X", split="test")]).write("c", tmp_path / "m")
    gather_files([Row(a, "X")]).write("c", tmp_path / "m")
    assert foreign.read_bytes() == b"precious"
    kinds = ("recordings", "supervisions")
    written = {path.name for path in (tmp_path / "m").glob("c_*")} - {foreign.name}
    assert written == {f"c_{kind}_train.jsonl.gz" for kind in kinds}


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_promised_samples_are_there(suffix: str, rate: int, tmp_path: Path) -> None:
    """Of every format: lossy ones pad at both ends, and their headers tell what to cut off."""
    path = write_noise(tmp_path / f"a{suffix}", 1.2345, rate)
    (recording,) = open_files({path: "a"}, AudioFindings(tmp_path / "copies")).values()
    assert (recording.num_samples, recording.sampling_rate) == (int(1.2345 * rate), rate)
    whole = recording.load_audio()
    assert whole.shape == (1, recording.num_samples)
    assert audio_problem(recording) is None
    part = recording.to_cut().truncate(offset=0.5, duration=0.4).load_audio()
    # Behind a jump an MP3 lacks what earlier frames would have left for it.
    np.testing.assert_allclose(part, whole[:, rate // 2 : rate // 2 + rate * 2 // 5], atol=1e-4)


def test_commands(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    write_noise(folder / "a.wav", 1.5, 8000, channels=2)
    good, bad, silent = (command_in(folder, command) for command in ("cat a.wav", "cat b.wav", "true"))
    recordings = open_commands(
        {good: "good", bad: "bad", silent: "silent"}, AudioFindings(tmp_path / "copies"), num_jobs=2
    )
    assert good.startswith(f"cd {shlex.quote(str(folder))} && ")
    recording = recordings[good]
    assert (recording.num_samples, recording.sampling_rate, recording.channel_ids) == (12000, 8000, [0, 1])
    samples, _ = soundfile.read(folder / "a.wav", dtype="float32")
    np.testing.assert_array_equal(recording.load_audio(), samples.T)
    assert recordings[bad].reason == recordings[silent].reason == "unreadable audio"
    assert "exit status 1: cat: b.wav: No such file" in recordings[bad].detail
