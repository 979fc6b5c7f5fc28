import gzip
import json
import pickle
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lhotse import Recording, SupervisionSegment
from lhotse.audio import AudioSource
from manifest_cuts import load_cuts
from memory import traced_peaks

from summarymix.data.extraction import ExtractionOptions, extract_split
from summarymix.data.manifests import manifest_path, write_manifest
from summarymix.data.segments import Segments, open_segments


def generate(folder: Path, count: int) -> None:
    """Write manifests of recordings with up to three supervisions, in no order, and with any characters in ids."""
    rng = random.Random(0)
    recordings, supervisions = [], []
    for i in range(count):
        name = f"{rng.choice(['a', 'Z', 'ü', '日', chr(34), chr(92)])}{i}"
        channels = [0, 1] if i % 5 == 0 else [0]
        source = AudioSource("file", channels, f"audio/{i}.flac")
        recordings.append(Recording(name, [source], 16000, 160_000, 10.0, channels))
        for k in range(rng.randrange(4)):
            start, duration = round(rng.uniform(0, 6), 3), round(rng.uniform(0.5, 4), 4)
            segment = SupervisionSegment(f"{name}-{k}", name, start, duration, rng.choice(channels), text=f"{i} {k}")
            supervisions.append(segment)
    rng.shuffle(recordings)
    rng.shuffle(supervisions)
    write_manifest(recordings, manifest_path(folder, "c", "recordings", "train"))
    write_manifest(supervisions, manifest_path(folder, "c", "supervisions", "train"))


def open_from(manifests: Path, folder: Path) -> Segments:
    paths = (manifest_path(manifests, "c", kind, "train") for kind in ("recordings", "supervisions"))
    with ThreadPoolExecutor(1) as executor:
        return open_segments(*paths, folder, executor)


def test_cuts_are_those_that_lhotse_makes(tmp_path: Path) -> None:
    generate(tmp_path, 60)
    expected = sorted(load_cuts(tmp_path, "c", "train"), key=lambda cut: cut.id)
    segments = open_from(tmp_path, tmp_path / "copy")
    assert [segments[i] for i in range(len(segments))] == expected
    assert segments.seconds == pytest.approx(sum(cut.duration for cut in expected), rel=1e-4)  # whole samples
    assert pickle.loads(pickle.dumps(segments))[7] == expected[7]


def write_ids(folder: Path, ids: list[str]) -> None:
    recordings = [Recording("r", [AudioSource("file", [0], "r.flac")], 16000, 160_000, 10.0, [0])]
    write_manifest(recordings, manifest_path(folder, "c", "recordings", "train"))
    write_manifest([SupervisionSegment(i, "r", 0, 1) for i in ids], manifest_path(folder, "c", "supervisions", "train"))


def test_ids_that_come_twice_are_refused(tmp_path: Path) -> None:
    """Otherwise an utterance would get the features, or the audio, of another one."""
    for double in ("b", "x" * 200):
        write_ids(tmp_path, ["x" * 200, "a", "b", double, "x" * 199])
        with pytest.raises(ValueError, match=rf"c_supervisions_train.*several supervisions have the id {double},"):
            open_from(tmp_path, tmp_path / "copy")
    write_ids(tmp_path, ["x" * 200, "x" * 201, "x" * 128, "x" * 127])
    assert len(open_from(tmp_path, tmp_path / "copy")) == 4
    recordings = [Recording("r", [AudioSource("file", [0], f"{i}.flac")], 16000, 1600, 0.1, [0]) for i in range(2)]
    write_manifest(recordings, manifest_path(tmp_path, "c", "recordings", "train"))
    with pytest.raises(ValueError, match=r"c_recordings_train.*several recordings have the id r,"):
        open_from(tmp_path, tmp_path / "copy")


def test_long_ids_are_in_order_too(tmp_path: Path) -> None:
    heads = ["x" * 127, "x" * 128, "é" * 64, "a"]
    ids = [head + end for head in heads for end in ("", "b", "ab", "a", "y" * 300)]
    random.Random(0).shuffle(ids)
    write_ids(tmp_path, ids)
    segments = open_from(tmp_path, tmp_path / "copy")
    assert [segments[i].id for i in range(len(segments))] == sorted(ids)


def test_a_long_id_takes_no_memory_for_others(tmp_path: Path) -> None:
    def work(length: int) -> None:
        open_from(tmp_path, tmp_path / f"copy{length}")
        shutil.rmtree(tmp_path / f"copy{length}")

    ids = [f"u{i}" for i in range(500)]
    small, large = traced_peaks(lambda length: write_ids(tmp_path, [*ids, "u" * length]), work, 10, 100_000)
    assert large < small + 20 * 100_000


def test_manifests_are_read_again_only_if_they_change(tmp_path: Path, monkeypatch) -> None:
    generate(tmp_path, 10)
    before = len(open_from(tmp_path, tmp_path / "copy"))
    opened: list[Path] = []
    original = gzip.open
    monkeypatch.setattr(gzip, "open", lambda path, mode: opened.append(path) or original(path, mode))
    assert len(open_from(tmp_path, tmp_path / "copy")) == before
    assert not opened
    generate(tmp_path, 20)
    assert len(open_from(tmp_path, tmp_path / "copy")) > before
    assert len(opened) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_missing_recordings_are_named(whole: bool, tmp_path: Path) -> None:
    generate(tmp_path, 10)
    path = manifest_path(tmp_path, "c", "recordings", "train")
    lines = [] if whole else gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:-4]
    path.write_bytes(gzip.compress(b"".join(lines)))
    with pytest.raises(ValueError, match=r"c_supervisions_train.*: the recording .*\d of .*-\d is not in .*"):
        open_from(tmp_path, tmp_path / "copy")
    assert not list((tmp_path / "copy").iterdir())


@pytest.mark.parametrize("line", ['{"id": "a"', '{"id": "a"}', "3"])
def test_other_lines_are_named(line: str, tmp_path: Path) -> None:
    generate(tmp_path, 10)
    path = manifest_path(tmp_path, "c", "supervisions", "train")
    path.write_bytes(path.read_bytes() + gzip.compress(line.encode()))
    count = len(gzip.decompress(path.read_bytes()).splitlines())
    with pytest.raises(ValueError, match=rf"c_supervisions_train.jsonl.gz, line {count}: no id and recording_id and"):
        open_from(tmp_path, tmp_path / "copy")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    options = ExtractionOptions(storage="none", speeds=(0.9,), shard_size=100)
    with ThreadPoolExecutor(1) as executor:

        def work(count: int) -> None:
            extract_split(tmp_path, tmp_path / f"out{count}", "c", "train", options, executor)
            shutil.rmtree(tmp_path / f"out{count}" / "c_shards_train")

        small, large = traced_peaks(lambda count: generate(tmp_path, count), work, 100, 800)
    assert large < 1.5 * small


def test_lines_that_lhotse_did_not_write(tmp_path: Path) -> None:
    generate(tmp_path, 20)
    expected = open_from(tmp_path, tmp_path / "copy")
    for kind in ("recordings", "supervisions"):
        path = manifest_path(tmp_path, "c", kind, "train")
        items = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        other = [json.dumps(dict(reversed(item.items())), separators=(",", ":")) for item in items]
        path.write_bytes(gzip.compress("\n".join(other).encode()))
    found = open_from(tmp_path, tmp_path / "copy")
    assert [found[i] for i in range(len(found))] == [expected[i] for i in range(len(expected))]
