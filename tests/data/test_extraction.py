import errno
import gzip
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import lhotse
import numpy as np
import pytest
import soundfile
from lhotse import Recording
from lhotse.audio.utils import AudioLoadingError
from lhotse.features.io import NumpyFilesWriter
from manifest_cuts import load_cuts
from tables import prepare_table

from summarymix import files
from summarymix.data import extraction
from summarymix.data.cuts import features_file
from summarymix.data.extraction import ExtractionOptions, extract_split
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest

COMPUTE_FBANK = Path(__file__).parents[2] / "local" / "compute_fbank.py"


@pytest.fixture
def manifests(make_corpus, tmp_path: Path) -> Path:
    table, audio_dir = make_corpus(40)
    prepare_table(table, audio_dir, "tiny", tmp_path / "manifests")
    return tmp_path / "manifests"


def extract(manifests: Path, out_dir: Path, executor=None, **options):
    options = ExtractionOptions(**{"shard_size": 8, **options})
    with executor or ThreadPoolExecutor(1) as running:
        return extract_split(manifests, out_dir, "tiny", "train", options, running)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_features_are_those_of_the_audio(manifests: Path, tmp_path: Path) -> None:
    skipped = extract(manifests, tmp_path / "fbank")
    assert len(skipped) == 0
    cuts = list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))
    assert sorted(cut.id for cut in cuts) == sorted(f"u{i}" for i in range(40))
    assert [cut.id for cut in cuts] != sorted(cut.id for cut in cuts)  # shuffled, for training from front to back
    reference = lhotse.Fbank(lhotse.FbankConfig(num_mel_bins=80))
    for cut in cuts:
        lhotse.qa.validate(cut, read_data=True)
        np.testing.assert_allclose(cut.load_features(), reference.extract(cut.load_audio(), 16000), atol=1e-5)


def test_result_does_not_depend_on_jobs_or_repetition(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    results = []
    for name, executor in (("a", ThreadPoolExecutor(1)), ("b", ProcessPoolExecutor(2))):
        monkeypatch.chdir(tmp_path / name)
        extract(manifests, Path("fbank"), executor, speeds=(0.9,))
        results.append(contents(Path("fbank")))
    assert results[0] == results[1]
    assert len(list(read_cuts(cuts_path("fbank", "tiny", "train")))) == 80


def test_result_does_not_depend_on_the_manifests_order(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    """Corpora are often listed in the order of the file system."""
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        extract(manifests, Path("fbank"), speeds=(0.9,), storage="none")
        results.append(contents(Path("fbank")))
        for path in manifests.glob("tiny_*.jsonl.gz"):
            lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
            path.write_bytes(gzip.compress(b"".join(reversed(lines))))
    assert results[0] == results[1]


def test_workers_in_another_folder(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    """Paths may be relative; those in the manifest stay so."""
    table = tmp_path / "table.tsv"
    monkeypatch.chdir(tmp_path)
    prepare_table(table, Path("audio"), "tiny", Path("manifests"))
    (tmp_path / "elsewhere").mkdir()
    extract(Path("manifests"), Path("here"), ThreadPoolExecutor(1))
    for storage in ("numpy_files", "none"):
        there = ProcessPoolExecutor(1, initializer=os.chdir, initargs=(tmp_path / "elsewhere",))
        extract(Path("manifests"), Path("there"), there, storage=storage)
        if storage == "numpy_files":
            assert set(contents(Path("there"))) == set(contents(Path("here")))
            cut = next(iter(read_cuts(cuts_path("there", "tiny", "train"))))
            assert cut.features.storage_path == "there/tiny_feats_train"
            assert cut.recording.sources[0].source.startswith("audio/")
            assert cut.load_features().shape == (cut.num_frames, 80)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_workers_that_do_not_see_the_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"worker on .* cannot find .*use a disk that all workers"):
        extraction._extract_shard(
            extraction._Shard(0, [], (), []), tmp_path / "nope", Path("s"), Path("f"), ExtractionOptions()
        )


def test_dask_gives_the_same_files(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    results = {}
    with (
        distributed.LocalCluster(1, processes=False, threads_per_worker=2, dashboard_address=None) as cluster,
        cluster.get_client() as client,
    ):
        for name, executor in (("pool", ThreadPoolExecutor(1)), ("dask", client.get_executor()), ("command", None)):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            if executor is not None:
                extract(manifests, Path("fbank"), executor, shard_size=ExtractionOptions.shard_size)
            else:
                command = ["--prefix", "tiny", "--splits", "train", "--manifest-dir", manifests, "--out-dir", "fbank"]
                command += ["--executor", "dask", "--dask-scheduler", cluster.scheduler_address]
                monkeypatch.setattr(sys, "argv", ["compute_fbank.py", *map(str, command)])
                runpy.run_path(str(COMPUTE_FBANK), run_name="__main__")
            results[name] = contents(Path("fbank"))
    assert results["dask"] == results["pool"] == results["command"]


def test_killed_and_started_again_gives_the_same_files(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    command = [sys.executable, str(COMPUTE_FBANK), "--prefix", "tiny", "--splits", "train", "--nj", "1"]
    command += ["--manifest-dir", str(manifests), "--out-dir", "fbank", "--speed-perturb", "0.9,1.1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    # A process group of its own, because the worker has to die as well.
    process = subprocess.Popen(command, cwd=killed, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(killed.rglob("*.npy")):
        time.sleep(0.002)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not cuts_path(killed / "fbank", "tiny", "train").exists()

    subprocess.run(command, cwd=killed, check=True, capture_output=True)
    monkeypatch.chdir(whole)
    extract(manifests, Path("fbank"), speeds=(0.9, 1.1), shard_size=ExtractionOptions.shard_size)
    assert contents(killed / "fbank") == contents(whole / "fbank")


def test_finished_shards_are_used_again_unless_the_audio_changed(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    computed: list[str] = []
    original = extraction._compute

    def compute(cut, *others):
        if len(computed) == 20:
            raise KeyboardInterrupt  # killed in the third shard of eight
        computed.append(cut.id)
        return original(cut, *others)

    monkeypatch.setattr(extraction, "_compute", compute)
    with pytest.raises(KeyboardInterrupt):
        extract(manifests, tmp_path / "fbank")
    monkeypatch.setattr(extraction, "_compute", lambda cut, *others: computed.append(cut.id) or original(cut, *others))
    extract(manifests, tmp_path / "fbank")
    assert len(computed) == 20 + 40 - 16  # two shards were done
    extract(manifests, tmp_path / "fbank")
    assert len(computed) == 44

    audio = Path(load_cuts(manifests, "tiny", "train")[0].recording.sources[0].source)
    samples, _ = soundfile.read(audio)
    soundfile.write(audio, samples / 2, 16000)
    extract(manifests, tmp_path / "fbank")
    assert len(computed) == 44 + 8

    # Lost features are computed again, and a manifest from which cuts were removed gets them back.
    before = contents(tmp_path / "fbank")
    cuts = list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))
    features_file(cuts[9]).unlink()
    write_manifest(cuts[1:], cuts_path(tmp_path / "fbank", "tiny", "train"))
    extract(manifests, tmp_path / "fbank")
    assert (len(computed), contents(tmp_path / "fbank")) == (52 + 8, before)
    shutil.rmtree(tmp_path / "fbank" / "tiny_feats_train")
    extract(manifests, tmp_path / "fbank")
    assert (len(computed), contents(tmp_path / "fbank")) == (60 + 40, before)


def test_speeds_that_need_a_huge_filter_are_refused(manifests: Path, tmp_path: Path) -> None:
    extract(manifests, tmp_path / "fbank", speeds=(0.95,))
    for path in (tmp_path / "audio").glob("*.flac"):
        soundfile.write(path, soundfile.read(path)[0], 22050)
    prepare_table(tmp_path / "table.tsv", tmp_path / "audio", "tiny", tmp_path / "manifests")
    extract(manifests, tmp_path / "fbank", speeds=(0.9,))
    with pytest.raises(ValueError, match=r"u\d+ has 22050 Hz, of which the speed 0.95 needs .*: leave that speed out"):
        extract(manifests, tmp_path / "fbank", speeds=(0.9, 0.95))


def test_ids_of_copies_at_other_speeds_are_refused(make_corpus, tmp_path: Path) -> None:
    """Otherwise a copy would get the features of an utterance with its id."""
    table, audio_dir = make_corpus(12)
    table.write_text(table.read_text().replace("\tu7\t", "\tu3_sp0.9\t"))
    prepare_table(table, audio_dir, "tiny", tmp_path / "manifests")
    with pytest.raises(ValueError, match=r"train.*: u3_sp0.9 is an utterance, and would be the copy of u3 at"):
        extract(tmp_path / "manifests", tmp_path / "fbank", speeds=(1.1, 0.9))
    assert not (tmp_path / "fbank" / "tiny_feats_train").exists()
    extract(tmp_path / "manifests", tmp_path / "fbank", speeds=(1.1,))


def test_features_of_other_options_are_removed(manifests: Path, tmp_path: Path) -> None:
    extract(manifests, tmp_path / "fbank", speeds=(0.9,))
    with_copies = contents(tmp_path / "fbank")
    extract(manifests, tmp_path / "fbank")
    cuts = list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))
    assert set((tmp_path / "fbank").rglob("*.npy")) == {features_file(cut) for cut in cuts}
    extract(manifests, tmp_path / "fbank", speeds=(0.9,))
    assert contents(tmp_path / "fbank") == with_copies
    mine = tmp_path / "fbank" / "tiny_feats_train" / "mine.txt"
    mine.touch()
    with pytest.raises(FileExistsError, match=r"tiny_feats_train is in the way: .*mine.txt is not from this program"):
        extract(manifests, tmp_path / "fbank")


def storing(count: int):
    """The function that stores features; after ``count`` calls, the program is interrupted."""
    original, stored = extraction._store, []

    def store(*arguments):
        if len(stored) == count:
            raise KeyboardInterrupt
        stored.append(1)
        return original(*arguments)

    return store


def test_an_interrupted_run_with_other_audio_leaves_no_shard_with_its_features(
    manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(manifests, tmp_path / "fbank")
    before = contents(tmp_path / "fbank")
    audio = sorted((tmp_path / "audio").glob("*.flac"))
    kept = [(path, path.read_bytes(), path.stat()) for path in audio]
    for path in audio:
        soundfile.write(path, soundfile.read(path)[0] / 2, 16000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "_store", storing(13))
        extract(manifests, tmp_path / "fbank")
    for path, content, stat in kept:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    extract(manifests, tmp_path / "fbank")
    assert contents(tmp_path / "fbank") == before


def test_an_interrupted_run_with_other_cuts_leaves_none_with_the_features_of_another(
    make_corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the other corpus an id may be in another shard, with other audio."""
    table, audio_dir = make_corpus(12)
    first, *lines = table.read_text().splitlines()
    prepare_table(table, audio_dir, "tiny", tmp_path / "manifests")
    extract(tmp_path / "manifests", tmp_path / "fbank", shard_size=4)
    before = contents(tmp_path / "fbank")
    other = [line.replace(f"u{i}.flac", f"u{11 - i}.flac") for i, line in enumerate(lines)]
    other[0] = other[0].replace("\tu0\t", "\tz\t")
    (tmp_path / "other.tsv").write_text("\n".join([first, *other]) + "\n")
    prepare_table(tmp_path / "other.tsv", audio_dir, "tiny", tmp_path / "others")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "_store", storing(5))
        patch.setattr(extraction, "_SHARDS_AHEAD", 1)  # the third shard is not touched
        extract(tmp_path / "others", tmp_path / "fbank", shard_size=4)
    extract(tmp_path / "manifests", tmp_path / "fbank", shard_size=4)
    assert {name: before[name] for name in before} == {name: contents(tmp_path / "fbank").get(name) for name in before}


def test_truncated_audio_is_left_out_and_listed(manifests: Path, tmp_path: Path) -> None:
    audio = sorted((tmp_path / "audio").glob("*.flac"))
    whole, stat = audio[0].read_bytes(), audio[0].stat()
    audio[0].write_bytes(whole[:2000].ljust(len(whole), b"x"))
    os.utime(audio[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    audio[1].rename(tmp_path / "moved")
    shorter = audio[2].read_bytes()
    soundfile.write(audio[2], np.zeros(3000), 16000)
    skipped = extract(manifests, tmp_path / "fbank")
    assert skipped.counts == {"unreadable audio": 2, "missing audio": 1}
    assert {item.file for item in skipped.items} == {*map(str, audio[:3])}
    for item in skipped.items:
        assert len(item.detail) < 200
        assert "lhotse" not in item.detail.lower()
    assert len(list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))) == 37
    assert (tmp_path / "fbank" / "skipped-tiny-train-audio.tsv").read_text().count("\n") == 4
    # The remedy helps, even if size and time of the file are as before.
    assert {item.remedy for item in skipped.items} == {
        f"restore the file, then remove {tmp_path}/fbank/tiny_shards_train and compute the features again "
        "(stage 2 of prepare.sh)"
    }
    audio[0].write_bytes(whole)
    os.utime(audio[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (tmp_path / "moved").rename(audio[1])
    audio[2].write_bytes(shorter)
    shutil.rmtree(tmp_path / "fbank" / "tiny_shards_train")
    assert len(extract(manifests, tmp_path / "fbank")) == 0
    for path in audio:
        path.unlink()
    with pytest.raises(ValueError, match=r"No audio of .* can be read"):
        extract(manifests, tmp_path / "fbank")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_samples_that_are_no_audio_are_told_at_once(value: float, make_corpus, tmp_path: Path) -> None:
    """Their features would be left out of every epoch, and computing them again would not help."""
    table, audio_dir = make_corpus(3)
    samples = np.zeros(16000, np.float32)
    samples[4000] = value
    soundfile.write(audio_dir / "bad.wav", samples, 16000, "FLOAT")
    table.write_text(table.read_text().replace("u1.flac", "bad.wav"))
    prepare_table(table, audio_dir, "tiny", tmp_path / "manifests")
    (item,) = extract(tmp_path / "manifests", tmp_path / "fbank").items
    assert (item.id, item.file, item.reason) == ("u1", str(audio_dir / "bad.wav"), "unreadable audio")
    assert item.detail == f"ValueError: the sample at 0.25 s is {value:g}"


def test_disk_that_cannot_be_read_is_not_the_cuts_fault(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    """lhotse's errors hide the number of the system's error."""

    def fail(path: Path, *mode: str, **options):
        if str(path).endswith(".flac"):
            raise OSError(errno.EIO, "Input/output error")
        return open(path, *mode, **options)

    def load(recording: Recording, **options) -> None:
        raise AudioLoadingError("LibsndfileError: System error.")

    with monkeypatch.context() as broken:
        broken.setattr(files, "open", fail, raising=False)
        broken.setattr(Recording, "load_audio", load)
        with pytest.raises(OSError, match=r"Cannot read .*u\d+\.flac \(Input/output error\).*the same command again"):
            extract(manifests, tmp_path / "fbank")
    assert len(extract(manifests, tmp_path / "fbank")) == 0


def test_error_that_passes_loses_no_cut(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    tried: list[str] = []
    original = Recording.load_audio

    def load(recording: Recording, **options) -> np.ndarray:
        tried.append(recording.id)
        if len(tried) == 5:
            raise AudioLoadingError("LibsndfileError: System error.")
        return original(recording, **options)

    monkeypatch.setattr(Recording, "load_audio", load)
    assert len(extract(manifests, tmp_path / "fbank")) == 0
    assert len(tried) == 41


def test_full_disk_is_not_the_cuts_fault(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    def full(self, key, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NumpyFilesWriter, "write", full)
    with pytest.raises(
        OSError, match=r"Cannot write the features of u\d+ to .*No space left on device.*the same command again"
    ):
        extract(manifests, tmp_path / "fbank")


def test_without_storage_cuts_have_no_features(manifests: Path, tmp_path: Path) -> None:
    extract(manifests, tmp_path / "fbank", storage="none")
    cuts = list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))
    assert len(cuts) == 40
    assert not any(cut.has_features for cut in cuts)


def test_other_sample_rates_are_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(8000) * 0.1, 8000)
    (tmp_path / "t.tsv").write_text("audio\ttext\na.wav\tONE\n")
    prepare_table(tmp_path / "t.tsv", tmp_path, "tiny", tmp_path / "manifests")
    extract(tmp_path / "manifests", tmp_path / "fbank")
    (cut,) = read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train"))
    assert cut.load_features().shape == (100, 80)
    assert cut.sampling_rate == 16000
    lhotse.qa.validate(cut, read_data=True)


def test_lilcom_is_close_and_the_same_every_time(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("lilcom", reason="The compressed storage is optional: pip install lilcom")
    results = []
    for name, storage in (("a", "numpy_files"), ("b", "lilcom_chunky"), ("c", "lilcom_chunky")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        executor = ProcessPoolExecutor(2) if name == "c" else ThreadPoolExecutor(1)
        extract(manifests, Path("fbank"), executor, storage=storage)
        cuts = list(read_cuts(cuts_path("fbank", "tiny", "train")))
        results.append(([cut.load_features() for cut in cuts], contents(Path("fbank"))))
    (exact, exact_files), (close, files), (_, again) = results
    for a, b in zip(exact, close, strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)  # lilcom's steps are 1/32
    assert files == again
    assert sum(map(len, files.values())) < 0.4 * sum(map(len, exact_files.values()))


def test_lilcom_is_asked_for(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(extraction, "is_module_available", lambda name: False)
    with pytest.raises(ImportError, match="needs the package lilcom: pip install lilcom, or use numpy_files"):
        extract(manifests, tmp_path / "fbank", storage="lilcom_chunky")


def test_large_splits_are_compressed(manifests: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(extraction, "is_module_available", lambda name: chosen.append(name))
    hours = sum(cut.duration for cut in load_cuts(manifests, "tiny", "train")) / 3600
    monkeypatch.setattr(extraction, "LARGE_HOURS", 1.01 * hours)
    extract(manifests, tmp_path / "fbank", speeds=(0.9,))
    assert not chosen
    assert not capsys.readouterr().out
    monkeypatch.setattr(extraction, "LARGE_HOURS", 0.99 * hours)
    with pytest.raises(ImportError, match="needs the package lilcom"):
        extract(manifests, tmp_path / "fbank", speeds=(0.9,))
    assert (
        "train: 0 h, so its features go into compressed archives (--storage lilcom_chunky)" in capsys.readouterr().out
    )
    extract(manifests, tmp_path / "fbank", speeds=(0.9,), storage="none")


def test_too_small_disk_is_found_out_before(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    seconds = sum(cut.duration for cut in load_cuts(manifests, "tiny", "train"))
    needed = (1 + 1 / 0.9 + 1 / 1.1) * seconds * 100 * 80 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0.99 * needed))
    with pytest.raises(OSError, match=r"Storing the features of train will take about .* in .*fbank, where"):
        extract(manifests, tmp_path / "fbank", speeds=(0.9, 1.1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1.01 * needed))
    extract(manifests, tmp_path / "fbank", speeds=(0.9, 1.1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    extract(manifests, tmp_path / "fbank", speeds=(0.9, 1.1))  # all of it is there


def test_every_id_gets_its_own_file(tmp_path: Path) -> None:
    """Also ids that are longer than file names may be, and ids that look like paths."""
    long = "天地玄黄宇宙洪荒" * 20
    ids = [long, long + "日", "..", ".", "a", "a.npy", "../a", "a/b", "x" * 250, "A b"]
    lines = ["audio\ttext\tid"]
    for i, id_ in enumerate(ids):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).standard_normal(8000) * 0.1, 16000)
        lines.append(f"{i}.wav\tONE\t{id_}")
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    prepare_table(tmp_path / "t.tsv", tmp_path, "tiny", tmp_path / "manifests")
    assert len(extract(tmp_path / "manifests", tmp_path / "out" / "fbank")) == 0
    cuts = {cut.id: cut for cut in read_cuts(cuts_path(tmp_path / "out" / "fbank", "tiny", "train"))}
    assert cuts.keys() == {*ids}
    for cut in cuts.values():
        lhotse.qa.validate(cut, read_data=True)
    assert len({cut.load_features().tobytes() for cut in cuts.values()}) == len(ids)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fbank"]


def test_a_file_that_cannot_be_written_stops_no_other(manifests: Path, tmp_path: Path, monkeypatch) -> None:
    original = NumpyFilesWriter.write

    def write(self, key, value):
        if key == "u7":
            raise OSError(21, "Is a directory")
        return original(self, key, value)

    monkeypatch.setattr(NumpyFilesWriter, "write", write)
    (item,) = extract(manifests, tmp_path / "fbank").items
    assert (item.id, item.reason, item.detail) == ("u7", "unwritable features", "[Errno 21] Is a directory")
    assert len(list(read_cuts(cuts_path(tmp_path / "fbank", "tiny", "train")))) == 39
    # The remedy helps.
    monkeypatch.setattr(NumpyFilesWriter, "write", original)
    shutil.rmtree(tmp_path / "fbank" / "tiny_shards_train")
    assert len(extract(manifests, tmp_path / "fbank")) == 0


def test_a_folder_of_others_is_not_removed(manifests: Path, tmp_path: Path) -> None:
    mine = tmp_path / "fbank" / "tiny_shards_train" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(FileExistsError, match=r"tiny_shards_train is in the way: .*mine.txt is not from this program"):
        extract(manifests, tmp_path / "fbank")
    assert mine.read_text() == "precious"
