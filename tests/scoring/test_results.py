"""Error reports add up, whoever counts; results.jsonl survives what happens to files."""

import json
import random
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from result_cases import make_result

from summarymix.scoring.results import (
    ErrorStats,
    ScoredUtterance,
    append_result,
    format_alignment,
    read_results,
    render_table,
    write_errs,
    write_recogs,
)


def edit_distance(ref: list[str], hyp: list[str]) -> int:
    """Levenshtein's distance, by its definition."""
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        previous, row = row, [i]
        for j, h in enumerate(hyp, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (r != h)))
    return row[-1]


def random_utterances(seed: int, number: int = 40) -> list[ScoredUtterance]:
    rng = random.Random(seed)
    vocabulary = ["one", "two", "three", "*", "naïve", "o'clock"]
    return [
        ScoredUtterance(
            f"cut-{i:03d}",
            rng.choices(vocabulary, k=rng.randrange(8)),
            rng.choices(vocabulary, k=rng.randrange(8)),
        )
        for i in rng.sample(range(number), number)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_totals_equal_an_independent_count(tmp_path: Path, seed: int) -> None:
    utterances = random_utterances(seed)
    stats = ErrorStats.from_utterances(utterances)
    assert stats.errors == sum(edit_distance(u.ref, u.hyp) for u in utterances)
    assert stats.words == sum(len(u.ref) for u in utterances)
    # Lengths fix the difference between insertions and deletions, whatever the alignment.
    surplus = sum(len(u.hyp) - len(u.ref) for u in utterances)
    assert stats.insertions.total() - stats.deletions.total() == surplus
    assert stats.correct == stats.words - stats.deletions.total() - stats.substitutions.total()


def test_report_sections_agree_with_its_totals(tmp_path: Path) -> None:
    utterances = random_utterances(7)
    stats = ErrorStats.from_utterances(utterances)
    write_errs(tmp_path / "errs.txt", stats)
    text = (tmp_path / "errs.txt").read_text()
    head, details, subs, dels, ins, words = re.split(
        r"\n(?:PER-UTT DETAILS|SUBSTITUTIONS|DELETIONS|INSERTIONS|PER-WORD STATS):.*\n", text
    )
    match = re.search(r"Errors: (\d+) insertions, (\d+) deletions, (\d+) substitutions, over (\d+)", head)
    assert match is not None
    totals = [int(number) for number in match.groups()]
    counts = [sum(int(line.split()[0]) for line in part.splitlines() if line) for part in (ins, dels, subs)]
    assert totals == [*counts, sum(len(u.ref) for u in utterances)]
    assert head.startswith(f"%WER = {100 * sum(counts) / totals[3]:.2f}\n")
    assert [line.split(":")[0] for line in details.splitlines() if line] == sorted(u.cut_id for u in utterances)

    for line in words.splitlines():
        word, *numbers = line.split()
        _, _, in_ref, in_hyp = map(int, numbers)
        assert in_ref == sum(u.ref.count(word) for u in utterances)
        assert in_hyp == sum(u.hyp.count(word) for u in utterances)


def test_recogs_are_sorted_and_complete(tmp_path: Path) -> None:
    write_recogs(tmp_path / "recogs.txt", [ScoredUtterance("b", ["x"], []), ScoredUtterance("a", ["y", "z"], ["y"])])
    expected = "a:\tref=['y', 'z']\na:\thyp=['y']\nb:\tref=['x']\nb:\thyp=[]\n"
    assert (tmp_path / "recogs.txt").read_text() == expected


def test_runs_of_errors_are_joined() -> None:
    pairs = [("FOR", "FOR"), ("SIR", ""), ("I", "EYE"), ("THINK", "THINK"), ("", "SO")]
    assert format_alignment(pairs) == "FOR (SIR I->EYE) THINK (*->SO)"


def test_references_without_words_have_no_rate(tmp_path: Path) -> None:
    stats = ErrorStats.from_utterances([ScoredUtterance("a", [], ["x"])])
    assert stats.wer is None
    assert stats.errors == 1
    write_errs(tmp_path / "errs.txt", stats)
    assert (tmp_path / "errs.txt").read_text().startswith("%WER = n/a\n")


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
    with pytest.raises(ValueError, match=r"results.jsonl, line 1 is not a result"):
        read_results(path)
    path.write_text(path.read_text().split("\n", 1)[1])
    assert read_results(path) == [make_result()]


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
    assert result.files == ["recogs.txt", "errs.txt"]


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


def test_characters_are_counted_with_the_spaces_between_words() -> None:
    stats = ErrorStats.from_utterances(
        [
            ScoredUtterance("a", ["ONE", "TWO"], ["ONE", "TOO"]),  # 7 characters, 1 replaced
            ScoredUtterance("b", ["ICE", "CREAM"], ["ICECREAM"]),  # 9, the space deleted
            ScoredUtterance("c", [], ["A"]),  # none, 1 inserted
        ]
    )
    assert (stats.characters, stats.character_errors) == (16, 3)
    assert stats.cer == pytest.approx(300 / 16)
    assert ErrorStats.from_utterances([ScoredUtterance("c", [], ["A"])]).cer is None
