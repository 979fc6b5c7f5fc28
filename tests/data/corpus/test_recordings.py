"""Audio that training would not read, or not to its end, is converted once and used in its true length."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from manifest_cuts import load_cuts

from summarymix.data.corpus.kaldi import read_kaldi_corpus
from summarymix.data.corpus.lhotse_manifests import read_lhotse_corpus
from summarymix.data.corpus.options import CorpusSource, prepare_corpus
from summarymix.data.corpus.recordings import AudioFindings, open_files
from summarymix.data.corpus.table import read_table_corpus
from summarymix.data.corpus.validate import audio_problem, validate_split
from summarymix.data.extraction import ExtractionOptions, extract_split


def noise(seconds: float, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(round(1000 * seconds)).uniform(-0.3, 0.3, round(seconds * rate))


def write_odd_audio(folder: Path) -> dict[str, float]:
    """Write files of many kinds; return their true lengths in seconds."""
    folder.mkdir(exist_ok=True)
    for name, kind in {
        "plain.wav": {},
        "whole.flac": {},
        "bytes.wav": {"subtype": "PCM_U8"},
        "mulaw.wav": {"subtype": "ULAW"},
        "gsm.wav": {"subtype": "GSM610"},
        "sphere.sph": {"format": "NIST"},
        "cut.mp3": {},
        "joined.mp3": {},
        "unknown.flac": {},
        "unfinished.wav": {},
    }.items():
        soundfile.write(folder / name, noise(2.0), 16000, **kind)
    for rate in (4001, 44101):
        soundfile.write(folder / f"rate{rate}.wav", noise(2.0, rate), rate)
    seconds = dict.fromkeys(sorted(path.name for path in folder.iterdir()), 2.0)

    def change(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    mp3, flac, wav = ((folder / name).read_bytes() for name in ("cut.mp3", "unknown.flac", "unfinished.wav"))
    change("cut.mp3", mp3[:-1])
    change("joined.mp3", mp3 + mp3)
    change("unknown.flac", flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:])
    change("unfinished.wav", wav[:40] + struct.pack("<I", 0) + wav[44:])
    return seconds | {"joined.mp3": 4.1}


CONVERTED = {"gsm", "sphere", "joined", "unknown", "unfinished", "rate4001", "rate44101"}


def write_table(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in ("audio\ttext\tstart\tduration", *rows)))
    return path


def test_odd_audio_from_preparation_to_validation(tmp_path: Path) -> None:
    true = write_odd_audio(tmp_path / "audio")
    table = write_table(tmp_path / "t.tsv", *(f"{name}\tWORD\t\t" for name in true))
    source = CorpusSource(table, None, None, tmp_path / "audio")
    for _ in range(2):  # the second time with the copies of the first
        corpus, lines = prepare_corpus(source, "c", tmp_path / "data" / "manifests", 2)
        assert len(corpus.skipped) == 0
        assert not corpus.unnamed_audio
        for utterance in corpus.utterances:
            name = Path(corpus.audio.originals.get(utterance.file, utterance.file)).name
            assert utterance.seconds == pytest.approx(true[name], abs=0.1), name
        listed = (tmp_path / "data" / "manifests" / "converted-c.tsv").read_text().splitlines()
        assert {Path(line.split("\t")[0]).stem for line in listed[1:]} == CONVERTED
        assert any(line.startswith(f"{len(CONVERTED)} audio files are used as copies in") for line in lines)
    assert len(list((tmp_path / "data" / "manifests" / "audio" / "c").glob("*.flac"))) == len(CONVERTED)
    joined = next(line for line in listed if "joined.mp3" in line).split("\t")
    assert joined[2] == "2.00"
    assert 4 <= float(joined[3]) <= 4.2

    with ThreadPoolExecutor(1) as executor:
        options = ExtractionOptions(speeds=(0.9,))
        assert len(extract_split(tmp_path / "data" / "manifests", tmp_path, "c", "train", options, executor)) == 0
    assert len(validate_split(tmp_path, "c", "train").skipped) == 0
    cuts = {cut.id: cut for cut in load_cuts(tmp_path / "data" / "manifests", "c", "train")}
    for name, same in (("unknown", "whole"), ("unfinished", "plain")):
        np.testing.assert_array_equal(cuts[name].load_audio(), cuts[same].load_audio())


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff"])
def test_truncated_audio(suffix: str, tmp_path: Path) -> None:
    """What is there can be used; rows that need the whole file are left out."""
    name = f"a.{suffix}"
    soundfile.write(tmp_path / name, noise(6.0), 16000)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    rows = [f"{name}\tONE\t\t", f"{name}\tTWO\t0.5\t1.5", f"{name}\tTHREE\t2\t2", f"{name}\tFOUR\t1\t"]
    corpus = read_table_corpus(write_table(tmp_path / "t.tsv", *rows), tmp_path, AudioFindings(tmp_path / "copies"))
    assert [utterance.supervision.text for utterance in corpus.utterances] == ["TWO"]
    assert [item.reason for item in corpus.skipped.items] == [
        "truncated audio",
        "segment outside its audio",
        "truncated audio",
    ]
    assert {item.file for item in corpus.skipped.items} == {str(tmp_path / name)}
    assert " of 6.00 s" in corpus.skipped.items[0].detail
    assert corpus.utterances[0].recording.to_cut().truncate(offset=0.5, duration=1.5).load_audio().shape == (1, 24000)


def test_bad_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "many.wav", np.zeros((8001, 9)) + 0.1, 8001)
    soundfile.write(tmp_path / "odd_rate.wav", np.zeros(0), 17011)
    soundfile.write(tmp_path / "empty.sph", np.zeros(0), 16000, format="NIST", subtype="PCM_16")
    soundfile.write(tmp_path / "size.w64", np.zeros(8000) + 0.1, 8000, format="W64")
    content = bytearray((tmp_path / "size.w64").read_bytes())
    content[40 + 16 : 40 + 24] = b"\xff" * 7 + b"\x7f"  # the size of the first chunk
    (tmp_path / "size.w64").write_bytes(content)
    names = {path.name: path.name for path in tmp_path.iterdir()} | {"gone.wav": "gone.wav"}
    found = open_files({str(tmp_path / name): name for name in names}, AudioFindings(tmp_path / "copies"))
    details = {item.id: (item.reason, item.detail) for item in found.values() if not isinstance(item, Recording)}
    assert details["gone.wav"] == ("missing audio", "")
    assert details["folder.wav"][1].endswith("is a folder: give the audio files in it")
    assert details["text.wav"][0] == "unreadable audio"
    assert details["many.wav"][1].startswith("cannot be converted to FLAC")
    assert details["odd_rate.wav"][1] == details["empty.sph"][1] == "no samples"
    assert "size.w64" in details or isinstance(found[str(tmp_path / "size.w64")], Recording)
    assert not list((tmp_path / "copies").iterdir())


def test_commands_and_lhotse_manifests(tmp_path: Path) -> None:
    write_odd_audio(tmp_path / "audio")
    kaldi = tmp_path / "k"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("a cat unfinished.wav |\nb cat plain.wav |\nc gsm.wav\n")
    (kaldi / "text").write_text("a A\nb B\nc C\n")
    corpus = read_kaldi_corpus(kaldi, tmp_path / "audio", AudioFindings(tmp_path / "copies"))
    assert [(u.supervision.id, u.recording.sources[0].type) for u in corpus.utterances] == [
        ("a", "file"),
        ("b", "command"),
        ("c", "file"),
    ]
    assert len(corpus.audio.converted) == 2
    assert all(utterance.seconds == pytest.approx(2.0, abs=0.05) for utterance in corpus.utterances)

    # The manifest states more than the file holds.
    recording = Recording.from_file(tmp_path / "audio" / "plain.wav", recording_id="r")
    soundfile.write(tmp_path / "audio" / "plain.wav", noise(1.0), 16000)
    (tmp_path / "m").mkdir()
    RecordingSet.from_recordings([recording]).to_file(tmp_path / "m" / "recordings_train.jsonl.gz")
    supervisions = [SupervisionSegment(f"s{i}", "r", i, 1.0, text="A") for i in range(2)]
    SupervisionSet.from_segments(supervisions).to_file(tmp_path / "m" / "supervisions_train.jsonl.gz")
    corpus = read_lhotse_corpus(tmp_path / "m", tmp_path, AudioFindings(tmp_path / "copies"))
    assert [utterance.supervision.id for utterance in corpus.utterances] == ["s0"]
    assert corpus.utterances[0].recording.duration == 1.0
    assert [(item.id, item.reason) for item in corpus.skipped.items] == [("s1", "segment outside its audio")]


def test_copies_of_floats_above_full_scale_are_not_clipped(tmp_path: Path) -> None:
    samples = np.float32(4) * noise(1.0, 44101).astype(np.float32)
    soundfile.write(tmp_path / "rate.wav", samples, 44101, "FLOAT")
    soundfile.write(tmp_path / "unfinished.wav", samples, 16000, "FLOAT")
    data = (tmp_path / "unfinished.wav").read_bytes()
    size = data.index(b"data") + 4
    (tmp_path / "unfinished.wav").write_bytes(data[:size] + bytes(4) + data[size + 4 :])
    names = {str(tmp_path / name): name for name in ("rate.wav", "unfinished.wav")}
    for _ in range(2):  # the second time with the copies of the first
        found = open_files(names, AudioFindings(tmp_path / "copies"))
        recordings = [recording for recording in found.values() if isinstance(recording, Recording)]
        copies = {recording.id: recording.to_cut().load_audio()[0] for recording in recordings}
        assert [audio_problem(recording) for recording in recordings] == [None, None]
        np.testing.assert_array_equal(copies["unfinished.wav"], samples)
        assert np.abs(copies["rate.wav"]).max() > 1.1
        assert len(list((tmp_path / "copies").iterdir())) == 2


def test_copies_of_audio_that_changed_or_is_gone_are_removed(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(1.0, 4001), 4001)
    copies = tmp_path / "m" / "audio" / "c"
    copies.mkdir(parents=True)
    (copies / "mine.flac").write_text("not from this program")
    (copies / f".{'0' * 24}.flac.{'0' * 8}.part").write_text("killed while writing")

    def prepare(*rows: str) -> list[str]:
        source = CorpusSource(write_table(tmp_path / "t.tsv", *rows), None, None, tmp_path)
        corpus, _ = prepare_corpus(source, "c", tmp_path / "m")
        assert {path.name for path in copies.iterdir()} == {
            "mine.flac",
            "measured.jsonl",
            *(Path(item.copy).name for item in corpus.audio.converted),
        }
        return sorted(item.copy for item in corpus.audio.converted)

    both = prepare("a.wav\tA\t\t", "b.wav\tB\t\t")
    assert len(both) == 2
    soundfile.write(tmp_path / "a.wav", noise(1.5, 4001), 4001)
    changed = prepare("a.wav\tA\t\t", "b.wav\tB\t\t")
    assert len(set(both) & set(changed)) == 1
    assert set(prepare("b.wav\tB\t\t")) == set(both) & set(changed)
