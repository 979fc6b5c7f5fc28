import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from summarymix.data.lines import LineFile, run_in_order, write_lines


def test_any_line_can_be_read(tmp_path: Path) -> None:
    lines = [b"x" * (i % 7) + b"\n" for i in range(70_000)] + [b"the last one has no end"]
    write_lines(iter(lines), tmp_path / "a.jsonl")
    for file in (opened := LineFile(tmp_path / "a.jsonl"), pickle.loads(pickle.dumps(opened))):
        assert len(file) == len(lines)
        assert [file[i] for i in (70_000, 3, 65_536, 0)] == [lines[i] for i in (70_000, 3, 65_536, 0)]


def test_items_are_taken_when_they_can_be_worked_on() -> None:
    taken: list[int] = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    def work(item: int) -> int:
        time.sleep(0.001 * (20 - item))
        return item * item

    with ThreadPoolExecutor(4) as executor:
        results = run_in_order(executor, work, items(), ahead=5)
        for i, result in enumerate(results):
            assert result == i * i
            assert len(taken) <= i + 5


def test_after_an_error_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.05)
        raise ValueError(item)

    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="0"):
        list(run_in_order(executor, work, range(100), ahead=50))
    assert len(begun) <= 2
