"""Kaldi data folders and lhotse manifests."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.kaldi import export_to_kaldi
from manifest_cuts import load_cuts
from tables import prepare_table

from summarymix.data.corpus.base import Corpus
from summarymix.data.corpus.kaldi import read_kaldi_corpus
from summarymix.data.corpus.lhotse_manifests import read_lhotse_corpus
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.corpus.validate import validate_split
from summarymix.data.extraction import ExtractionOptions, extract_split


@pytest.fixture
def audio_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for i in range(3):
        samples = np.random.default_rng(i).standard_normal(8000 * 3 + i) * 0.1
        soundfile.write(folder / f"{i}.wav", samples, 8000)
    return folder


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def described(corpus: Corpus) -> dict[str, tuple]:
    found = {}
    for utterance in corpus.utterances:
        s = utterance.supervision
        found[s.id] = (utterance.split, s.recording_id, s.start, round(s.duration, 6), s.speaker, s.text)
    return found


@pytest.mark.filterwarnings("ignore:You requested a subset:UserWarning")
def test_kaldi_folder(audio_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "k"
    write_lines(folder / "wav.scp", f"r0 {audio_dir}/0.wav", "r1\t1.wav", "r2 cat 2.wav | cat |", "r3 gone.wav")
    write_lines(folder / "text", "u0 ONE  TWO", "u1 THREE", "u2 FOUR", "u3", "u5 NOWHERE", "u6 GONE")
    write_lines(folder / "segments", "u0 r0 0.5 1.25", "u1 r1 1 -1", "u2 r2 0 2", "u3 r2 2 3", "u4 r2 1 2", "u6 r3 0 1")
    write_lines(folder / "utt2spk", "u0 s0", "u1 s1")
    corpus = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))
    assert described(corpus) == {
        "u0": ("train", "r0", 0.5, 0.75, "s0", "ONE TWO"),
        "u1": ("train", "r1", 1.0, 2.000125, "s1", "THREE"),
        "u2": ("train", "r2", 0.0, 2.0, None, "FOUR"),
    }
    assert [(item.id, item.reason) for item in corpus.skipped.items] == [
        ("u3", "empty transcript"),
        ("u4", "empty transcript"),
        ("u6", "missing audio"),
        ("u5", "missing audio"),
    ]
    write_lines(folder / "utt2spk", "u0 u0", "u1 u1")  # unknown
    unknown = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))
    assert {values[4] for values in described(unknown).values()} == {None}
    kept = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"), keep_empty=True)
    assert described(kept).keys() == {"u0", "u1", "u2", "u3"}  # text has no line for u4
    assert "1 recordings are commands" in corpus.notes[0]
    corpus.write("k", tmp_path / "m")
    with ThreadPoolExecutor(1) as executor:
        assert len(extract_split(tmp_path / "m", tmp_path, "k", "train", ExtractionOptions(), executor)) == 0
    assert len(validate_split(tmp_path, "k", "train").skipped) == 0
    cuts = {cut.id: cut for cut in load_cuts(tmp_path / "m", "k", "train")}
    samples, _ = soundfile.read(audio_dir / "2.wav", dtype="float32")
    np.testing.assert_array_equal(cuts["u2"].load_audio(), samples[None, :16000])


def test_kaldi_folders_of_splits(audio_dir: Path, tmp_path: Path) -> None:
    for i, split in enumerate(("train_si", "dev93", "test")):
        write_lines(tmp_path / "data" / split / "wav.scp", f"u{i} {i}.wav")
        write_lines(tmp_path / "data" / split / "text", f"u{i} WORD")
    (tmp_path / "data" / "lang").mkdir()
    corpus = read_kaldi_corpus(tmp_path / "data", audio_dir, AudioFindings(tmp_path / "copies"))
    assert list(corpus.splits()) == ["train_si", "dev93", "test"]
    with pytest.raises(ValueError, match=r"No wav.scp in .*/audio or the folders in it"):
        read_kaldi_corpus(audio_dir, audio_dir, AudioFindings(tmp_path / "copies"))
    (tmp_path / "data" / "test").rename(tmp_path / "data" / "--help")
    with pytest.raises(ValueError, match=r"data/--help: the split '--help' cannot be a name"):
        read_kaldi_corpus(tmp_path / "data", audio_dir, AudioFindings(tmp_path / "copies"))


def test_malformed_kaldi_lines_are_listed(audio_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "k"
    write_lines(folder / "wav.scp", *(f"r{i} {i}.wav" for i in range(3)), "r0 1.wav", "r9 a\0b.wav")
    write_lines(folder / "text", *(f"{id_} WORD" for id_ in ("a", "b", "c", "d", "e")), "a AGAIN")
    segments = ["a r0 0 1", "b r1 zero 1", "c r1 nan 1", "d r1 0", "e r2 0 1"]
    write_lines(folder / "segments", *segments)
    corpus = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))
    assert [utterance.supervision.id for utterance in corpus.utterances] == ["a", "e"]
    assert corpus.utterances[0].supervision.text == "WORD"
    assert [(item.id, item.file.removeprefix(f"{folder}/"), item.reason) for item in corpus.skipped.items] == [
        ("r0", "wav.scp, line 4", "duplicate key"),
        ("a", "text, line 6", "duplicate key"),
        *((id_, f"segments, line {i}", "malformed segment") for i, id_ in enumerate("bcd", 2)),
        ("r9", "wav.scp, line 5", "no utterance"),
    ]
    (folder / "segments").unlink()
    corpus = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))
    assert {item.id: item.reason for item in corpus.skipped.items}["r9"] == "unusable audio path"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tabs_and_byte_order_marks_lose_nothing(encoding: str, audio_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "k"
    write_lines(folder / "wav.scp", *(f"u{i} \t {i}.wav " for i in range(3)))
    (folder / "text").write_bytes("u0 ONE\tTWO\r\nu1\tONE TWO\r\n u2  ONE\u3000TWO\n".encode(encoding))
    corpus = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))
    texts = [(utterance.supervision.id, utterance.supervision.text) for utterance in corpus.utterances]
    assert texts == [(f"u{i}", "ONE TWO") for i in range(3)]
    (folder / "utt2spk").write_bytes("u0 a\nu1 ä\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"k/utt2spk, line 2 is not UTF-8"):
        read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"))


def test_commands_are_announced_and_end_in_time(audio_dir: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "k"
    write_lines(folder / "wav.scp", "u0 cat 0.wav |", "u1 sleep 1000; cat 1.wav |", "u2 2.wav")
    write_lines(folder / "text", *(f"u{i} WORD" for i in range(3)))
    corpus = read_kaldi_corpus(folder, audio_dir, AudioFindings(tmp_path / "copies"), command_timeout=1)
    assert [utterance.supervision.id for utterance in corpus.utterances] == ["u0", "u2"]
    (item,) = corpus.skipped.items
    assert (item.id, item.reason) == ("u1", "unreadable audio")
    assert item.detail.startswith("no end after 1 s")
    announced = capsys.readouterr().err
    assert "2 recordings in wav.scp are commands. They run now, for at most 1 s each (--command-timeout)" in announced
    assert "cat 0.wav" in announced


@pytest.fixture
def manifests(audio_dir: Path, tmp_path: Path) -> Path:
    """lhotse manifests of two segments in train and one in test, prefix c."""
    rows = ["0.wav\tONE\ta\ts0\ttrain\t0.5\t1", "0.wav\tTWO\tb\ts1\ttrain\t1.2\t1.8", "1.wav\tTHREE\tc\ts2\ttest\t\t"]
    write_lines(tmp_path / "t.tsv", "audio\ttext\tid\tspeaker\tsplit\tstart\tduration", *rows)
    prepare_table(tmp_path / "t.tsv", audio_dir, "c", tmp_path / "m")
    return tmp_path / "m"


WANTED = {
    "a": ("train", "0", 0.5, 1.0, "s0", "ONE"),
    "b": ("train", "0", 1.2, 1.8, "s1", "TWO"),
    "c": ("test", "1", 0.0, 3.000125, "s2", "THREE"),
}


def test_lhotse_recordings_and_supervisions(manifests: Path, audio_dir: Path) -> None:
    (manifests / "musan_recordings_music.jsonl.gz").write_bytes((manifests / "c_recordings_test.jsonl.gz").read_bytes())
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    assert described(corpus) == WANTED
    assert corpus.notes == ["musan_recordings_music.jsonl.gz is left out: it needs both recordings and supervisions"]
    (audio_dir / "1.wav").unlink()
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    assert [(item.id, item.reason) for item in corpus.skipped.items] == [("c", "missing audio")]
    with pytest.raises(ValueError, match=r"No utterances in .*audio: it needs PREFIX_recordings_SPLIT"):
        read_lhotse_corpus(audio_dir, audio_dir, AudioFindings(audio_dir.parent / "copies"))


def test_splits_named_before_the_kind(manifests: Path, audio_dir: Path) -> None:
    for kind in ("recordings", "supervisions"):
        (manifests / f"c_{kind}_train.jsonl.gz").rename(manifests / f"train-clean_{kind}.jsonl.gz")
        (manifests / f"c_{kind}_test.jsonl.gz").rename(manifests / f"my_corpus_dev_other_{kind}.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    split = {"train": "train-clean", "test": "dev_other"}
    assert described(corpus) == {id_: (split[values[0]], *values[1:]) for id_, values in WANTED.items()}
    assert corpus.notes == []
    for kind in ("recordings", "supervisions"):
        (manifests / f"train-clean_{kind}.jsonl.gz").rename(manifests / f"clean_{kind}.jsonl.gz")
        (manifests / f"my_corpus_dev_other_{kind}.jsonl.gz").rename(manifests / f"{kind}.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    assert {values[0] for values in described(corpus).values()} == {"train"}
    assert corpus.notes == ["these manifests name no split and are training data: clean_*.jsonl.gz, *.jsonl.gz"]


def test_damaged_manifests_and_hostile_names_are_named(manifests: Path, audio_dir: Path) -> None:
    path = manifests / "c_supervisions_test.jsonl.gz"
    content = path.read_bytes()
    for damaged in (content[:-9], gzip.compress(b'{"id": 1}\n'), gzip.compress(b"[\n"), b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c_supervisions_test.jsonl.gz is damaged .*: make it again"):
            read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    path.rename(manifests / "c_supervisions_...jsonl.gz")
    with pytest.raises(ValueError, match=r"c_supervisions_\.\.\.jsonl\.gz: the split '\.\.' cannot be a name"):
        read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))


def test_supervision_without_recording(manifests: Path, audio_dir: Path) -> None:
    RecordingSet.from_recordings([]).to_file(manifests / "c_recordings_test.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(audio_dir.parent / "copies"))
    assert [(item.id, item.reason) for item in corpus.skipped.items] == [("c", "missing audio")]
    assert corpus.num_rows == 3


def test_recordings_with_one_id_are_not_exchanged(manifests: Path, audio_dir: Path, tmp_path: Path) -> None:
    """In a pair of manifests nobody knows which one a supervision means; cuts have their own."""
    recordings = [Recording.from_file(audio_dir / f"{i}.wav", recording_id="0") for i in range(2)]
    RecordingSet.from_recordings(recordings).to_file(manifests / "c_recordings_train.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(tmp_path / "copies"))
    assert [(item.id, item.reason) for item in corpus.skipped.items] == [(i, "duplicate recording id") for i in "ab"]
    RecordingSet.from_recordings(recordings[:1] * 2).to_file(manifests / "c_recordings_train.jsonl.gz")
    assert described(read_lhotse_corpus(manifests, audio_dir, AudioFindings(tmp_path / "copies"))) == WANTED

    cuts = [recording.to_cut() for recording in recordings]
    for i, cut in enumerate(cuts):
        cut.supervisions = [SupervisionSegment(f"u{i}", "0", 0.5, 1, text=f"WORDS {i}")]
    (tmp_path / "cuts").mkdir()
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts" / "cuts_train.jsonl.gz")
    corpus = read_lhotse_corpus(tmp_path / "cuts", audio_dir, AudioFindings(tmp_path / "copies"))
    audio = {utterance.supervision.text: Path(utterance.file).name for utterance in corpus.utterances}
    assert audio == {"WORDS 0": "0.wav", "WORDS 1": "1.wav"}
    assert len({utterance.recording.id for utterance in corpus.utterances}) == 2


def test_recordings_that_no_utterance_names_are_listed(manifests: Path, audio_dir: Path, tmp_path: Path) -> None:
    def found(corpus: Corpus) -> list[tuple[str, str]]:
        return [(item.id, item.reason) for item in corpus.skipped.items]

    spare = Recording.from_file(audio_dir / "2.wav", recording_id="spare")
    recordings = RecordingSet.from_file(manifests / "c_recordings_train.jsonl.gz")
    supervisions = SupervisionSet.from_file(manifests / "c_supervisions_train.jsonl.gz")
    recordings = RecordingSet.from_recordings([*recordings, spare])
    recordings.to_file(manifests / "c_recordings_train.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(tmp_path / "copies"))
    assert (described(corpus), found(corpus)) == (WANTED, [("spare", "no utterance")])

    cuts = CutSet.from_manifests(recordings, supervisions)
    (tmp_path / "cuts").mkdir()
    cuts.to_file(tmp_path / "cuts" / "cuts_train.jsonl.gz")
    corpus = read_lhotse_corpus(tmp_path / "cuts", audio_dir, AudioFindings(tmp_path / "copies"))
    assert described(corpus) == {id_: WANTED[id_] for id_ in "ab"}
    assert [reason for _, reason in found(corpus)] == ["no utterance"]

    write_lines(tmp_path / "k" / "wav.scp", "r0 0.wav", "r1 1.wav", "r2 2.wav")
    write_lines(tmp_path / "k" / "text", "u0 ONE", "r1 TWO")
    write_lines(tmp_path / "k" / "segments", "u0 r0 0.5 1.25")
    corpus = read_kaldi_corpus(tmp_path / "k", audio_dir, AudioFindings(tmp_path / "copies"))
    assert sorted(described(corpus)) == ["r1", "u0"]
    assert found(corpus) == [("r2", "no utterance")]

    # A recording with the same name in another split is another one.
    write_lines(tmp_path / "both" / "train" / "wav.scp", "r 0.wav", "s 1.wav")
    write_lines(tmp_path / "both" / "train" / "text", "u1 ONE")
    write_lines(tmp_path / "both" / "train" / "segments", "u1 s 0.5 1.25")
    write_lines(tmp_path / "both" / "test" / "wav.scp", "r 2.wav")
    write_lines(tmp_path / "both" / "test" / "text", "r TWO")
    corpus = read_kaldi_corpus(tmp_path / "both", audio_dir, AudioFindings(tmp_path / "copies"))
    assert (sorted(described(corpus)), found(corpus)) == (["r", "u1"], [("r", "no utterance")])

    # Splits may share their list of recordings.
    write_lines(tmp_path / "splits" / "dev" / "text", "v0 THREE")
    write_lines(tmp_path / "splits" / "dev" / "segments", "v0 r2 0.5 1.25")
    write_lines(tmp_path / "splits" / "dev" / "wav.scp", "r0 0.wav", "r1 1.wav", "r2 2.wav")
    (tmp_path / "k").rename(tmp_path / "splits" / "train")
    corpus = read_kaldi_corpus(tmp_path / "splits", audio_dir, AudioFindings(tmp_path / "copies"))
    assert (sorted(described(corpus)), found(corpus)) == (["r1", "u0", "v0"], [])
    for split in ("train", "test"):
        recordings.to_file(manifests / f"c_recordings_{split}.jsonl.gz")
    corpus = read_lhotse_corpus(manifests, audio_dir, AudioFindings(tmp_path / "copies"))


@pytest.mark.parametrize("trimmed", [False, True])
def test_lhotse_cuts(trimmed: bool, manifests: Path, audio_dir: Path, tmp_path: Path) -> None:
    """Of whole recordings, or of utterances, whose supervisions' times count from the cut."""
    cuts = CutSet.from_manifests(
        RecordingSet.from_file(manifests / "c_recordings_train.jsonl.gz"),
        SupervisionSet.from_file(manifests / "c_supervisions_train.jsonl.gz"),
    )
    if trimmed:
        cuts = cuts.trim_to_supervisions(keep_overlapping=False)
    cuts = [*cuts, next(iter(cuts)).pad(60)]
    (tmp_path / "cuts").mkdir()
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts" / "cuts_train.jsonl.gz")
    corpus = read_lhotse_corpus(tmp_path / "cuts", audio_dir, AudioFindings(tmp_path / "copies"))
    assert described(corpus) == {id_: WANTED[id_] for id_ in "ab"}
    assert [(item.reason, item.detail) for item in corpus.skipped.items] == [("unsuitable cut", "a mixture of cuts")]


@pytest.mark.parametrize("change", ["perturb_speed", "perturb_tempo"])
def test_copies_at_other_speeds_are_left_out(change: str, manifests: Path, audio_dir: Path, tmp_path: Path) -> None:
    """Cuts of icefall have them. Dev and test sets that are taken from train would share words with it."""
    cuts = CutSet.from_manifests(
        RecordingSet.from_file(manifests / "c_recordings_train.jsonl.gz"),
        SupervisionSet.from_file(manifests / "c_supervisions_train.jsonl.gz"),
    ).to_eager()
    copies = getattr(cuts, change)(0.9).to_eager()
    for name in ("cuts", "pair", "copies"):
        (tmp_path / name).mkdir()
    (cuts + copies).to_file(tmp_path / "cuts" / "cuts_train.jsonl.gz")
    recordings, supervisions, _ = (cuts + copies).decompose()
    recordings.to_file(tmp_path / "pair" / "recordings_train.jsonl.gz")
    supervisions.to_file(tmp_path / "pair" / "supervisions_train.jsonl.gz")
    copies.to_file(tmp_path / "copies" / "cuts_train.jsonl.gz")
    for name in ("cuts", "pair", "copies"):
        corpus = read_lhotse_corpus(tmp_path / name, audio_dir, AudioFindings(tmp_path / "audio copies"))
        assert described(corpus) == {id_: WANTED[id_] for id_ in "ab" if name != "copies"}
        assert [(item.id[0], item.reason) for item in corpus.skipped.items] == [
            (i, "copy at another speed") for i in "ab"
        ]


def test_lhotse_to_kaldi_and_back(manifests: Path, audio_dir: Path, tmp_path: Path) -> None:
    """What lhotse exports for Kaldi is the same corpus."""
    for split in ("train", "test"):
        (tmp_path / "k" / split).mkdir(parents=True)
        export_to_kaldi(
            RecordingSet.from_file(manifests / f"c_recordings_{split}.jsonl.gz"),
            SupervisionSet.from_file(manifests / f"c_supervisions_{split}.jsonl.gz"),
            tmp_path / "k" / split,
        )
    assert described(read_kaldi_corpus(tmp_path / "k", audio_dir, AudioFindings(tmp_path / "copies"))) == WANTED
