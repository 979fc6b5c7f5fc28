import errno
import os

import pytest

from summarymix.files import atomic_write, check_disk_space, new_folder, read_json_lines, remove_own, write_list


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "new_folder" / "x.txt"
    with atomic_write(path) as file:
        file.write("olé")
    with pytest.raises(ValueError, match="boom"), atomic_write(path) as file:
        file.write("half of the n")
        raise ValueError("boom")
    assert path.read_text(encoding="utf-8") == "olé"
    assert os.listdir(path.parent) == ["x.txt"]


def test_readers_see_nothing_before_the_block_ends(tmp_path):
    with atomic_write(tmp_path / "x.bin", "wb") as file:
        file.write(b"12")
        assert not (tmp_path / "x.bin").exists()
    assert (tmp_path / "x.bin").read_bytes() == b"12"


def test_a_full_disk_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "x.txt"
    with pytest.raises(OSError, match=r"No space left to write .*x\.txt: free some room"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_device(tmp_path, monkeypatch):
    monkeypatch.setattr("summarymix.files.Path.with_name", lambda self, name: type(self)("/dev/full"))
    monkeypatch.setattr("summarymix.files.Path.unlink", lambda self, missing_ok=False: None)
    with pytest.raises(OSError, match="No space left to write"), atomic_write(tmp_path / "x") as file:
        file.write("some bytes")


def test_too_little_room_is_found_out_before(tmp_path):
    check_disk_space(tmp_path / "not" / "yet", 1, "one byte")
    with pytest.raises(OSError, match=r"A film will take about 5000000\.0 GB in .*yet, where .* GB are free"):
        check_disk_space(tmp_path / "not" / "yet", 5e15, "A film")
    assert not (tmp_path / "not").exists()


def test_a_new_folder_replaces_an_empty_one_where_it_can(tmp_path, monkeypatch):
    for name in ("new", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with new_folder(tmp_path / name) as folder:
            (folder / "x").touch()
        assert os.listdir(tmp_path / name) == ["x"]
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with new_folder(tmp_path / "link") as folder:
        (folder / "y").touch()
    assert os.listdir(tmp_path / "target") == ["y"]
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("summarymix.files.Path.iterdir", lambda self: iter(()))  # /dev/shm may have files
    refusal = "cannot be replaced by another folder: choose a new one within it"
    for place in (".", tmp_path / "here", "/dev/shm"):
        with pytest.raises(FileExistsError, match=refusal), new_folder(place):
            pytest.fail("the work begins")


def test_json_lines_without_half_a_last_one(tmp_path):
    path = tmp_path / "x.jsonl"
    whole = '{"a": "é"}\n'.encode()
    for end in range(len(whole)):
        path.write_bytes(whole + whole[:end])
        assert [record for _, record in read_json_lines(path)] == [{"a": "é"}] * (1 + (end == len(whole) - 1))
    path.write_bytes(whole[:8] + b"\n" + whole)
    with pytest.raises(ValueError, match=r"x.jsonl, line 1 is not a record"):
        list(read_json_lines(path))


def test_only_own_folders_are_removed(tmp_path):
    own = r"\d+\.tar|\d+"
    folder = tmp_path / "folder"
    remove_own(folder, own)
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "2.tar").write_text("")
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path, other in ((folder, folder / "1" / "notes.txt"), (link, None)):
        if other:
            other.write_text("precious")
        with pytest.raises(FileExistsError, match=rf"{path.name} is in the way"):
            remove_own(path, own)
        assert (folder / "1" / "2.tar").exists()
        if other:
            other.unlink()
    remove_own(folder, own)
    assert not folder.exists()


def test_an_earlier_list_stays_if_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "list.txt"
    write_list(path, ["a"])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="An earlier file there is unchanged"):
        patch.setattr(os, "fsync", full)
        write_list(path, ["b"])
    assert path.read_text() == "a\n"
    write_list(path, [])
    assert not path.exists()
