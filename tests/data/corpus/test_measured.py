"""Lists of audio files as preparation has found them."""

import os
from pathlib import Path

from summarymix.data.corpus.measured import Measured, changed_file, read_measured, write_measured
from summarymix.data.corpus.on_disk import DiskDict


def test_files_that_have_changed_gone_or_come_are_named(tmp_path: Path) -> None:
    read, unreadable, missing = (str(tmp_path / name) for name in ("a \u00e9.wav", "b.wav", "c.wav"))
    for path in (read, unreadable):
        Path(path).write_bytes(b"12345")
    files = {
        read: Measured.of(read, 16000, 5),
        unreadable: Measured.unread(unreadable),
        missing: Measured.unread(missing),
    }
    (tmp_path / "p").mkdir()
    write_measured(tmp_path / "p", DiskDict(files.items()))
    assert changed_file(tmp_path / "p") is None
    assert changed_file(tmp_path) is None  # nothing was measured
    # Checks reuse what is known of the content alone.
    measured = read_measured(tmp_path)
    assert [measured.get(path) for path in files] == [files[read], None, None]

    Path(missing).touch()
    assert changed_file(tmp_path / "p") == missing
    os.utime(unreadable, (0, 0))
    assert changed_file(tmp_path / "p") == unreadable
    Path(read).unlink()
    assert changed_file(tmp_path / "p") == read
