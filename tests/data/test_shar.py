import gzip
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from batch_cases import assert_same, config_for, tiny_cuts, train_data
from lhotse import CutSet
from lhotse.shar import SharWriter
from lhotse.utils import fastcopy
from memory import traced_peaks
from server import serve

from summarymix.data import remote_files, shar
from summarymix.data.evaluation_data import EvalData
from summarymix.data.loading import Batch
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.noise import NoiseConfig
from summarymix.data.shar import export_split, place_in_shar, read_data, read_shar, with_data
from summarymix.data.skipped import SkippedItems
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


def export(fbank: Path, out_dir: Path, executor=None, shard_size: int = 16, **fields: str) -> SkippedItems:
    with executor or ThreadPoolExecutor(1) as running:
        return export_split(fbank, "tiny", "train", out_dir, fields or {"features": "numpy"}, shard_size, running)


def batches_of(data: str, fbank: Path, tokenizer: Tokenizer, shar_dir: Path | str | None, **options) -> list[Batch]:
    """The batches of an epoch or of an evaluation."""
    options["shar_dir"] = None if shar_dir is None else str(shar_dir)
    if data == "eval":
        return list(EvalData(config_for(fbank, **options), tokenizer, "train", output_lengths))
    return list(train_data(fbank, tokenizer, **options).epoch(1))


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: content for name, content in files.items() if not name.endswith(".done")}


@pytest.mark.parametrize("data", ["train", "eval"])
def test_batches_are_those_of_the_manifests(data: str, prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare(speeds=(0.9,))
    assert len(export(fbank, tmp_path / "shar")) == 0
    ordinary = batches_of(data, fbank, tokenizer, None)
    assert_same(batches_of(data, fbank, tokenizer, tmp_path / "shar"), ordinary)
    assert_same(batches_of(data, fbank, tokenizer, tmp_path / "shar", num_workers=2), ordinary)


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_audio_features_and_noise(on_the_fly: bool, prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare()
    export(fbank, tmp_path / "shar", features="numpy", recording="flac")
    noise = [cut.truncate(duration=0.8, preserve_id=True) for cut in tiny_cuts(fbank)]
    write_manifest(noise, tmp_path / "noise.jsonl.gz")
    for manifest in (None, str(tmp_path / "noise.jsonl.gz")):
        options = {"on_the_fly": on_the_fly, "noise": NoiseConfig(manifest)}
        one, other = (batches_of("train", fbank, tokenizer, shar, **options) for shar in (None, tmp_path / "shar"))
        assert_same(one, other)


@pytest.mark.parametrize("scheme", ["http", "memory"])
def test_from_urls(scheme: str, prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare()
    export(fbank, tmp_path / "shar")
    ordinary = batches_of("train", fbank, tokenizer, None)
    if scheme == "memory":
        files = fsspec.filesystem("memory")
        files.put(str(tmp_path / "shar"), "/bucket/shar", recursive=True)
        assert_same(batches_of("train", fbank, tokenizer, "memory://bucket/shar"), ordinary)
        files.rm("/bucket", recursive=True)
        return
    with serve(tmp_path) as server:
        assert_same(batches_of("train", fbank, tokenizer, f"{server.url}/shar"), ordinary)
        whole = [path for path, wanted in server.requests if wanted is None]
        # Of the archives only the cuts' own bytes are asked for, each once.
        assert {Path(path).suffix for path in whole} == {".json", ".gz"}
        assert len(server.requests) - len(whole) == 40
        assert_same(batches_of("train", fbank, tokenizer, f"{server.url}/shar", num_workers=1), ordinary)


def test_lhotse_reads_it(prepare, tmp_path: Path) -> None:
    fbank = prepare()
    export(fbank, tmp_path / "shar", features="numpy", recording="flac")
    cuts = {cut.id: cut for cut in tiny_cuts(fbank)}
    theirs = list(CutSet.from_shar(in_dir=tmp_path / "shar" / "train"))
    assert [cut.id for cut in theirs] == list(cuts)
    stored = list(read_shar(str(tmp_path / "shar"), "tiny", "train", "features"))
    contents = read_data(stored)
    ours = [with_data(cut, contents) for cut in stored]
    for cut, their, our in zip(cuts.values(), theirs, ours, strict=True):
        assert (their.load_features() == cut.load_features()).all()
        assert (our.load_features() == cut.load_features()).all()
        assert (their.load_audio() == cut.load_audio()).all()


def test_result_does_not_depend_on_jobs_or_interruption(prepare, tmp_path: Path, monkeypatch) -> None:
    fbank = prepare()
    export(fbank, tmp_path / "whole", ProcessPoolExecutor(2), shard_size=8)
    assert len(contents(tmp_path / "whole")) == 5 * 2 + 2

    written: list[str] = []
    original = SharWriter.write

    def write(self, cut) -> None:
        if len(written) == 20:
            raise KeyboardInterrupt  # killed in the third shard of five
        written.append(cut.id)
        original(self, cut)

    monkeypatch.setattr(SharWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
        export(fbank, tmp_path / "killed", shard_size=8)
    assert not (tmp_path / "killed" / "train.json").exists()
    with pytest.raises(FileNotFoundError, match=r"No Shar index .*train.json .*make it with local/export_shar.py"):
        read_shar(str(tmp_path / "killed"), "tiny", "train", "features")
    monkeypatch.setattr(SharWriter, "write", lambda self, cut: written.append(cut.id) or original(self, cut))
    export(fbank, tmp_path / "killed", shard_size=8)
    assert len(written) == 20 + 40 - 16  # two shards were done
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    export(fbank, tmp_path / "killed", shard_size=8)
    assert len(written) == 44

    manifest = cuts_path(fbank, "tiny", "train")
    write_manifest(list(read_cuts(manifest))[:10], manifest)
    export(fbank, tmp_path / "killed", shard_size=8)
    assert len(written) == 54
    assert len(contents(tmp_path / "killed")) == 2 * 2 + 2
    assert len(list(read_shar(str(tmp_path / "killed"), "tiny", "train", "features"))) == 10


def test_memory_does_not_grow_with_the_corpus(prepare, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shar, "_SHARDS_AHEAD", 1)
    fbank = prepare(count=1)
    manifest = cuts_path(fbank, "tiny", "train")
    (cut,) = tiny_cuts(fbank)

    def generate(count: int) -> None:
        write_manifest([fastcopy(cut, id=f"{cut.id}-{i}") for i in range(count)], manifest)

    small, large = traced_peaks(generate, lambda _: export(fbank, tmp_path / "shar", shard_size=25), 75, 600)
    assert large < 1.5 * small


def test_unreadable_cuts_are_left_out_and_listed(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare(count=20)
    cuts = tiny_cuts(fbank)
    stored = {cut.id: Path(cut.features.storage_path) / cut.features.storage_key for cut in cuts}
    first = stored[cuts[1].id].read_bytes()
    stored[cuts[1].id].write_bytes(b"damaged")
    for cut in cuts[2:9]:  # all of the second shard are among them
        stored[cut.id].unlink()
    skipped = export(fbank, tmp_path / "shar", shard_size=4)
    assert skipped.counts == {"missing features": 7, "unreadable features": 1}
    for item, cut in zip(skipped.items, cuts[1:9], strict=True):
        assert item.file == cut.recording.sources[0].source
        assert str(stored[cut.id]) in item.detail
        assert "extra info" not in item.detail
    assert [item.id for item in SkippedItems.read(tmp_path / "shar" / "skipped-train-shar.tsv").items] == [
        cut.id for cut in cuts[1:9]
    ]
    left = [cut.id for cut in cuts[:1] + cuts[9:]]
    assert [cut.id for cut in read_shar(str(tmp_path / "shar"), "tiny", "train", "features")] == left
    assert len(json.loads((tmp_path / "shar" / "train.json").read_text())["cuts"]) == 4

    (place,) = [
        place_in_shar(cut)
        for cut in read_shar(str(tmp_path / "shar"), "tiny", "train", "features")
        if cut.id == left[3]
    ]
    tar = Path(place.tar)
    tar.write_bytes(tar.read_bytes()[: place.offset + 10])
    trained_on = [i for batch in batches_of("train", fbank, tokenizer, tmp_path / "shar") for i in batch.cut_ids]
    listed = SkippedItems.read(tmp_path / "exp" / "skipped-train-unreadable.tsv").items
    assert sorted(trained_on + [item.id for item in listed]) == sorted(left)
    assert left[3] in {item.id for item in listed}
    assert all(f"{tar}, byte" in item.detail for item in listed)

    # The remedy helps.
    assert skipped.items[0].remedy.startswith("restore the file, then remove the .done files in the output folder")
    stored[cuts[1].id].write_bytes(first)
    (tmp_path / "shar" / ".train.done").unlink()
    assert export(fbank, tmp_path / "shar", shard_size=4).counts == {"missing features": 7}


def test_what_is_not_there(prepare, tmp_path: Path) -> None:
    fbank = prepare(count=4, storage="none")
    with pytest.raises(ValueError, match=r"has no features: add the data, or set --features none"):
        export(fbank, tmp_path / "shar")
    export(fbank, tmp_path / "shar", recording="flac")
    with pytest.raises(ValueError, match=r"has no features, only recording: --data.on_the_fly false needs an export"):
        read_shar(str(tmp_path / "shar"), "tiny", "train", "features")
    with serve(tmp_path) as server, pytest.raises(FileNotFoundError, match=r"No Shar index .*dev.json .*404"):
        read_shar(f"{server.url}/shar", "tiny", "dev", "recording")


@pytest.mark.parametrize("content", ["<html>Log in</html>", "{}", "[]"])
def test_another_answer_of_a_server_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(content)
    with serve(tmp_path) as server, pytest.raises(ValueError, match=r"http.*/train.json is no index by .*begins with"):
        read_shar(server.url, "tiny", "train", "features")


def test_an_export_of_another_corpus_is_neither_read_nor_replaced(prepare, tmp_path: Path) -> None:
    fbank = prepare(count=4)
    export(fbank, tmp_path / "shar")
    before = contents(tmp_path / "shar")
    with pytest.raises(ValueError, match=r"train.json is the export of tiny, not of other: correct the prefix"):
        read_shar(str(tmp_path / "shar"), "other", "train", "features")
    cuts_path(fbank, "tiny", "train").rename(cuts_path(fbank, "other", "train"))
    with ThreadPoolExecutor(1) as executor, pytest.raises(FileExistsError, match=r"train.json is the export of tiny"):
        export_split(fbank, "other", "train", tmp_path / "shar", {"features": "numpy"}, 16, executor)
    assert contents(tmp_path / "shar") == before


def test_damaged_shard_is_named(prepare, tmp_path: Path) -> None:
    export(prepare(count=4), tmp_path / "shar")
    shard = tmp_path / "shar" / "train" / "cuts.000000.jsonl.gz"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cuts.000000.jsonl.gz is damaged"):
        list(read_shar(str(tmp_path / "shar"), "tiny", "train", "features"))


def test_remote_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote_files, "_PAUSES", (0.0, 0.0))
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with serve(tmp_path) as server:
        for location in (str(tmp_path / "file"), f"{server.url}/file", f"local://{tmp_path}/file"):
            assert remote_files.read_bytes(location) == bytes(range(200))
            assert remote_files.read_bytes(location, 3, 5) == bytes([3, 4, 5, 6, 7])
            with pytest.raises(OSError, match="ends before byte 210"):
                remote_files.read_bytes(location, 190, 20)
        server.failures = 2
        assert remote_files.read_bytes(f"{server.url}/file", 3, 1) == bytes([3])
        server.failures = 3
        with pytest.raises(OSError, match="503"):
            remote_files.read_bytes(f"{server.url}/file")
        server.cut_short = 50
        with pytest.raises(OSError, match=r"/file: the connection broke \(IncompleteRead\(50 bytes read"):
            remote_files.read_bytes(f"{server.url}/file")
        monkeypatch.setattr(remote_files.time, "sleep", lambda _: setattr(server, "cut_short", None))
        assert remote_files.read_bytes(f"{server.url}/file") == bytes(range(200))
        asked = len(server.requests)
        with pytest.raises(OSError, match="404"):
            remote_files.read_bytes(f"{server.url}/nope")
        server.ranges = False
        with pytest.raises(OSError, match="does not support range requests: use another server"):
            remote_files.read_bytes(f"{server.url}/file", 3, 5)
        assert len(server.requests) == asked + 2
        # A whole archive comes with the refusal. It is not read.
        (tmp_path / "archive").write_bytes(bytes(50_000_000))
        server.sent = 0
        with pytest.raises(OSError, match="does not support range requests"):
            remote_files.read_bytes(f"{server.url}/archive", 3, 5)
        assert server.sent < 25_000_000
        # Some servers name the encoding of stored .gz files, which browsers then unpack.
        packed = gzip.compress(b"lines")
        (tmp_path / "cuts.gz").write_bytes(packed)
        server.encoding = "gzip"
        assert remote_files.read_bytes(f"{server.url}/cuts.gz") == packed
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ImportError, match="s3fs"):
        remote_files.read_bytes("s3://bucket/file")


def test_requests_share_a_few_connections_that_stay_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with serve(tmp_path) as server:
        server.delay = 0.01
        for _ in range(2):
            spans = [remote_files.Span(f"{server.url}/file", i, 1) for i in range(100)]
            assert remote_files.read_many(spans) == [bytes([i]) for i in range(100)]
        assert len(server.requests) == 200
        assert 1 < server.most_in_flight <= remote_files.AT_A_TIME
        assert (before := server.connections) <= remote_files.AT_A_TIME
        with multiprocessing.get_context("fork").Pool(1) as pool:  # a forked process has its own
            assert pool.apply(remote_files.read_bytes, (f"{server.url}/file", 3, 1)) == bytes([3])
        assert server.connections == before + 1


def test_a_request_that_fails_concerns_no_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote_files, "_PAUSES", (0.0, 0.0))
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with serve(tmp_path) as server:
        url = f"{server.url}/file"
        server.drops = 2
        assert remote_files.read_many([remote_files.Span(url, i, 1) for i in range(9)]) == [
            bytes([i]) for i in range(9)
        ]
        assert server.drops == 0
        server.drops = 3
        with pytest.raises(OSError, match=r"/file: the connection broke \(Remote end closed connection"):
            remote_files.read_bytes(url)
        one, missing, short, other = remote_files.read_many(
            [
                remote_files.Span(url, 1, 1),
                remote_files.Span(f"{server.url}/nope"),
                remote_files.Span(url, 190, 20),
                remote_files.Span(url, 2, 1),
            ]
        )
        assert (one, other) == (bytes([1]), bytes([2]))
        assert "404" in str(missing)
        assert "ends before byte 210" in str(short)


def test_one_missing_tar_fails_only_its_cuts(prepare, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fbank = prepare(count=20)
    export(fbank, tmp_path / "shar", shard_size=1)
    lost = tiny_cuts(fbank)[3].id
    (tmp_path / "shar" / "train" / "features.000003.tar").unlink()
    with serve(tmp_path) as server:
        read = batches_of("train", fbank, tokenizer, f"{server.url}/shar", num_workers=2)
    assert sorted(i for batch in read for i in batch.cut_ids) == sorted({c.id for c in tiny_cuts(fbank)} - {lost})
    (item,) = SkippedItems.read(tmp_path / "exp" / "skipped-train-unreadable.tsv").items
    assert item.id == lost
    assert "404" in item.detail
    assert "features.000003.tar, byte" in item.detail


@pytest.mark.parametrize("split", ["..", ".", "--help", "a/b", ""])
def test_hostile_split_names_remove_nothing(split: str, prepare, tmp_path: Path) -> None:
    fbank = prepare(count=4)
    # Manifests by that name exist, as they did when such names were accepted.
    for path in (tmp_path / f"tiny_cuts_{split}.jsonl.gz", tmp_path / "shar" / "a" / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cuts_path(fbank, "tiny", "train").read_bytes())
    before = contents(tmp_path)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=r"the split .* cannot be a name"):
        export_split(tmp_path, "tiny", split, tmp_path / "shar", {"features": "numpy"}, 16, executor)
    assert contents(tmp_path) == before


def test_a_folder_of_others_is_not_removed(prepare, tmp_path: Path) -> None:
    fbank = prepare(count=4)
    export(fbank, tmp_path / "shar")
    mine = tmp_path / "shar" / "train" / "mine" / "cuts.000000.jsonl.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    before = contents(tmp_path / "shar")
    with pytest.raises(FileExistsError, match=r"shar/train is in the way: .*/mine is not from this program.*Move it"):
        export(fbank, tmp_path / "shar", shard_size=2)
    assert contents(tmp_path / "shar") == before
    mine.unlink()
    mine.parent.rmdir()
    export(fbank, tmp_path / "shar", shard_size=2)
    assert len(json.loads((tmp_path / "shar" / "train.json").read_text())["cuts"]) == 2
