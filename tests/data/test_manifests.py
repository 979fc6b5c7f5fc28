"""Damaged manifests are named by all that read them."""

import gzip
from pathlib import Path

import pytest
from lhotse import SupervisionSegment

from summarymix.data.manifests import CutManifest, read_items, write_manifest
from summarymix.lm.text import read_texts


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "c_supervisions_train.jsonl.gz"
    write_manifest([SupervisionSegment(f"u{i}", "r", i, 1, text=f"{i * i}") for i in range(100)], path)
    return path


def test_items_are_those_written(manifest: Path) -> None:
    assert [item.text for item in read_items(manifest)] == [f"{i * i}" for i in range(100)]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "unpacked"])
def test_damaged_file_is_named(damage: str, manifest: Path) -> None:
    packed = manifest.read_bytes()
    middle = len(packed) // 2
    damaged = {
        "truncated": packed[:middle],
        "flipped": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
        "unpacked": gzip.decompress(packed),
    }
    manifest.write_bytes(damaged[damage])
    for read in (lambda: CutManifest(manifest).lines(), lambda: read_texts([manifest], [])):
        with pytest.raises(ValueError, match=r"c_supervisions_train.jsonl.gz.*(is damaged|line \d+ cannot be used)"):
            list(read())


def test_line_that_is_no_item_is_named(manifest: Path) -> None:
    lines = gzip.decompress(manifest.read_bytes()).splitlines(keepends=True)
    manifest.write_bytes(gzip.compress(lines[0] + b"{}\n" + lines[2]))
    with pytest.raises(ValueError, match=r"c_supervisions_train.jsonl.gz, line 2 cannot be used.*prepare.sh"):
        list(read_items(manifest))
