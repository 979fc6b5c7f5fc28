import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from server import serve

from summarymix.data.download import Archive, fetch, unpack


def pack(folder: Path, top: str, part: str, contents: dict[str, bytes]) -> bytes:
    """Write the archive ``{part}.tar.gz`` with these files in ``{top}/``; its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{part}.tar.gz", "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return (folder / f"{part}.tar.gz").read_bytes()


@pytest.fixture
def published(tmp_path: Path) -> bytes:
    noise = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(200))
    files = {
        "README.TXT": b"read me",
        "dev-clean/1/2/1-2-0000.flac": noise,
        "dev-clean/1/2/1-2.trans.txt": b"1-2-0000 A\n",
    }
    return pack(tmp_path / "server" / "12", "LibriSpeech", "dev-clean", files)


def archive(url: str, content: bytes, **changes) -> Archive:
    options = {"num_bytes": len(content), "md5": hashlib.md5(content).hexdigest(), "unpacked_bytes": len(content)}
    return Archive(f"{url}/12/dev-clean.tar.gz", **{**options, **changes})


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


FILES = {
    "dev-clean.tar.gz",
    "LibriSpeech/README.TXT",
    "LibriSpeech/dev-clean/1/2/1-2-0000.flac",
    "LibriSpeech/dev-clean/1/2/1-2.trans.txt",
}


def test_download_and_unpack_once(published: bytes, tmp_path: Path) -> None:
    dl_dir = tmp_path / "download"
    with serve(tmp_path / "server") as server:
        assert fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
        assert tree(dl_dir) == FILES
        asked = len(server.requests)
        assert not fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
        assert len(server.requests) == asked


def test_interrupted_download_goes_on(published: bytes, tmp_path: Path) -> None:
    dl_dir = tmp_path / "download"
    with serve(tmp_path / "server") as server:
        server.cut_short = 1000
        with pytest.raises(OSError, match=r"dev-clean.tar.gz is incomplete .*run the same command again"):
            fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
        assert tree(dl_dir) == {"dev-clean.tar.gz"}
        server.cut_short = None
        assert fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
        assert server.requests[-1] == ("/12/dev-clean.tar.gz", "bytes=1000-")
    assert tree(dl_dir) == FILES


def test_whole_archive_needs_no_server(published: bytes, tmp_path: Path) -> None:
    dl_dir = tmp_path / "download"
    dl_dir.mkdir()
    (dl_dir / "dev-clean.tar.gz").write_bytes(published)
    (dl_dir / ".dev-clean.tar.gz.part" / "LibriSpeech" / "dev-clean" / "9").mkdir(parents=True)  # killed in unpacking
    assert fetch(archive("http://nowhere.invalid", published), dl_dir, "LibriSpeech/dev-clean")
    assert tree(dl_dir) == FILES
    assert not (dl_dir / "LibriSpeech" / "dev-clean" / "9").exists()


def test_what_the_user_has_is_never_touched(published: bytes, tmp_path: Path) -> None:
    dl_dir = tmp_path / "download"
    own = dl_dir / "LibriSpeech" / "dev-clean" / "own.flac"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    (dl_dir / "LibriSpeech" / "README.TXT").write_text("own")
    (dl_dir / "dev-clean.tar.gz").write_bytes(published[:500])
    with serve(tmp_path / "server") as server:
        assert not fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
        assert not server.requests
        own.rename(dl_dir / "own.flac")
        own.parent.rmdir()
        assert fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-clean")
    assert (dl_dir / "LibriSpeech" / "README.TXT").read_text() == "own"


def test_failures_say_what_to_do(published: bytes, tmp_path: Path) -> None:
    dl_dir = tmp_path / "download"
    with serve(tmp_path / "server") as server:
        with pytest.raises(OSError, match=r"dev-clean.tar.gz will take about 2000000\.0 GB in .*: free some room"):
            fetch(archive(server.url, published, unpacked_bytes=2e15), dl_dir, "LibriSpeech/dev-clean")
        assert not server.requests
        with pytest.raises(OSError, match="holds no LibriSpeech/dev-other: delete it"):
            fetch(archive(server.url, published), dl_dir, "LibriSpeech/dev-other")


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        (tarfile.SYMTYPE, "LibriSpeech/x", "/tmp"),
        (tarfile.LNKTYPE, "LibriSpeech/x", "LibriSpeech/README.TXT"),
        (tarfile.FIFOTYPE, "LibriSpeech/x", ""),
        (tarfile.REGTYPE, "../x", ""),
        (tarfile.REGTYPE, "/x-of-a-test", ""),
    ],
)
def test_links_and_names_that_lead_out_are_refused(tmp_path: Path, kind: bytes, name: str, target: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("LibriSpeech/README.TXT"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)
    with pytest.raises(OSError, match=rf"a\.tar is damaged or no archive .*{name} is a link.*delete it"):
        unpack(tmp_path / "a.tar", tmp_path / "folder")
    assert tree(tmp_path) == {"a.tar", "folder/LibriSpeech/README.TXT"}


def test_without_a_published_sum_size_and_gzips_own_sum_are_checked(published: bytes, tmp_path: Path) -> None:
    spoilt = bytearray(published)
    spoilt[len(spoilt) // 2] ^= 1
    cases = [(published, {}), (published, {"num_bytes": len(published) + 1}), (bytes(spoilt), {})]
    problems = [None, f"{len(published)} bytes instead of {len(published) + 1}", "CRC check failed|invalid|incorrect"]
    for i, ((content, changes), problem) in enumerate(zip(cases, problems, strict=True)):
        (tmp_path / "server" / "12" / "dev-clean.tar.gz").write_bytes(content)
        dl_dir = tmp_path / f"download-{i}"
        with serve(tmp_path / "server") as server:
            what = archive(server.url, content, md5=None, **changes)
            if problem is None:
                assert fetch(what, dl_dir, "LibriSpeech/dev-clean")
                assert tree(dl_dir) == FILES
            else:
                with pytest.raises(OSError, match=rf"incomplete or damaged \(.*({problem})"):
                    fetch(what, dl_dir, "LibriSpeech/dev-clean")
                assert tree(dl_dir) == {"dev-clean.tar.gz"}
