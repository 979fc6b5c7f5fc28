"""Collections on disk behave like those in memory."""

import random

import pytest

from summarymix.data.corpus.on_disk import Database, DiskDict, DiskList, DiskSet, full_disk_explained


def test_a_dict_on_disk_equals_one_in_memory() -> None:
    """Names of any characters, which are set again while others are read."""
    random.seed(1)
    names = ["", "b", "a\0", "a", "é", "\U0001f600", "\uffff", "\ud800"]
    found: DiskDict[int | None] = DiskDict([("b", -1)])
    wanted: dict[str, int | None] = {"b": -1}
    for step in range(200):
        name = random.choice(names)
        assert (name in found) == (name in wanted)
        assert found.get(name, "none") == wanted.get(name, "none")
        name = random.choice([name, random.choice(names)])
        found[name] = wanted[name] = step if step % 5 else None
        assert found[name] == wanted[name]
        assert len(found) == len(wanted)
    assert list(found.items()) == list(wanted.items())
    assert list(found.in_order()) == sorted(wanted)


def test_sets_and_lists_on_disk() -> None:
    names = DiskSet(["a"])
    assert [names.add("a"), names.add("b"), names.add("b")] == [False, True, False]
    assert ["b" in names, "c" in names] == [True, False]
    rows: DiskList[tuple[str, float | None]] = DiskList()
    assert not rows
    for row in (("a", 0.1), ("b", None)):
        rows.append(row)
    assert rows
    assert list(zip(rows, rows, strict=True)) == [(("a", 0.1), ("a", 0.1)), (("b", None), ("b", None))]


def test_a_full_disk_is_explained() -> None:
    database = Database("CREATE TABLE t (x)")
    database.execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match=r"is full.* TMPDIR"), full_disk_explained():
        for _ in range(100):
            database.execute("INSERT INTO t VALUES (?)", ("x" * 1000,))
