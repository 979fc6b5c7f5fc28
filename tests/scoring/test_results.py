"""results.jsonl survives what happens to files; tables show what was counted."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from result_cases import make_result

from summarymix.scoring.results import Result, append_result, read_results, render_table


def test_results_round_trip_and_later_ones_supersede(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, other, second = make_result(), make_result(mode="simulated"), make_result(wer=0.5)
    for result in (first, other, second):
        append_result(path, result)
    assert len(path.read_text().splitlines()) == 3
    assert read_results(path) == [other, second]


def test_half_a_line_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"recipe": "mi')
    append_result(path, make_result())
    assert read_results(path) == [make_result()]
    with open(path, "a") as file:
        file.write('{"recipe": "mi')  # not followed by another result yet
    assert read_results(path) == [make_result()]
    append_result(path, make_result(split="other"))
    assert read_results(path) == [make_result(), make_result(split="other")]
    path.write_text(path.read_text().removesuffix("\n"))
    append_result(path, make_result(split="third"))
    assert [result.split for result in read_results(path)] == [make_result().split, "other", "third"]
    path.write_text('{"recipe": "mi\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 1 is not a record"):
        read_results(path)
    path.write_text('{"recipe": "mini"}\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 1 is not a result"):
        read_results(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="Cannot append to /dev/full: No space left on device"):
        append_result(Path("/dev/full"), make_result())


def test_results_of_older_versions_are_read(tmp_path: Path) -> None:
    fields = asdict(make_result())
    for name in ("command", "hyps", "ctm"):
        del fields[name]
    (tmp_path / "results.jsonl").write_text(json.dumps(fields) + "\n")
    [result] = read_results(tmp_path / "results.jsonl")
    assert result == make_result()
    assert (result.recogs, result.errs, result.hyps, result.ctm) == ("recogs.txt", "errs.txt", "", "")


def test_contract_fields_are_present() -> None:
    contract = (
        "recipe split mode method chunk_ms left_chunks epoch avg wer words insertions deletions substitutions "
        "utterances skipped rtf parameters commit"
    )
    assert set(contract.split()) <= asdict(make_result()).keys()


@pytest.mark.parametrize("markdown", [False, True])
def test_table_has_one_row_per_result(markdown: bool) -> None:
    offline = make_result(mode="offline", chunk_ms=None, left_chunks=-1, latency_ms=None, state_bytes=None)
    lines = render_table([offline, make_result(left_chunks=-1)], markdown).splitlines()
    assert len(lines) == 4
    assert "offline" in lines[2]
    assert "640 ms" in lines[3]
    assert "unlimited" in lines[3]
    assert all(line.startswith("| ") == markdown for line in lines)


def test_the_table_shows_what_was_counted() -> None:
    plain = make_result(cer=0.5)
    chinese = make_result(metric="cer", wer=90.0, cer=7.0, mer=7.0, units=400)
    silent = make_result(no_speech=2, no_speech_seconds=1800.0, no_speech_insertions=3)

    def cells(*results: Result) -> list[list[str]]:
        return [
            [cell.strip() for cell in row.strip("|").split("|")] for row in render_table(results, True).splitlines()
        ]

    header, _, row = cells(plain)
    assert dict(zip(header, row, strict=True))["WER %"] == "1.25"
    assert header[5:10] == ["WER %", "CER %", "ins", "del", "sub"]
    header, _, first, second = cells(chinese, plain)
    assert header[5:11] == ["CER %", "WER %", "ins", "del", "sub", "of"]
    assert first[5:11] == ["7.00", "90.00", "1", "2", "2", "characters"]
    assert second[5:11] == ["0.50", "1.25", "1", "2", "2", "words"]
    header, _, row = cells(silent)
    assert dict(zip(header, row, strict=True))["ins/h without speech"] == "6.0"


CHANGES = {
    "recipe": "other",
    "split": "dev",
    "mode": "simulated",
    "method": "beam",
    "search_options": "beam_size=8",
    "chunk_ms": 320,
    "left_chunks": 4,
    "lookahead_ms": 160,
    "epoch": 4,
    "avg": 2,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_result_of_another_setting_replaces_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, make_result())
    append_result(path, make_result(**{name: CHANGES[name]}))
    assert len(read_results(path)) == 2
