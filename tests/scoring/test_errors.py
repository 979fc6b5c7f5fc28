"""Error reports add up, whoever counts."""

import random
import re
from pathlib import Path

import pytest

from summarymix.scoring.errors import (
    ErrorStats,
    ScoredUtterance,
    error_rates,
    format_alignment,
    read_recogs,
    write_errs,
    write_recogs,
)
from summarymix.scoring.metrics import METRICS, UNIT_NAMES, Metric


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
    assert stats.units == sum(len(u.ref) for u in utterances)
    # Lengths fix the difference between insertions and deletions, whatever the alignment.
    surplus = sum(len(u.hyp) - len(u.ref) for u in utterances)
    assert stats.insertions.total() - stats.deletions.total() == surplus
    assert stats.correct == stats.units - stats.deletions.total() - stats.substitutions.total()


def test_report_sections_agree_with_its_totals(tmp_path: Path) -> None:
    utterances = random_utterances(7)
    stats = ErrorStats.from_utterances(utterances)
    write_errs(tmp_path / "errs.txt", stats, error_rates(utterances))
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


def test_recogs_are_read_back_with_any_id_and_once_each(tmp_path: Path) -> None:
    path = tmp_path / "recogs.txt"
    utterances = [ScoredUtterance("a\x85b", ["x"], []), ScoredUtterance("c\u2028d", ["y"], ["y"])]
    write_recogs(path, utterances)
    assert read_recogs(path) == utterances
    path.write_text(2 * path.read_text())
    with pytest.raises(ValueError, match=r"recogs.txt, line 5: the second ref of a"):
        read_recogs(path)


def test_recogs_are_sorted_and_complete(tmp_path: Path) -> None:
    write_recogs(tmp_path / "recogs.txt", [ScoredUtterance("b", ["x"], []), ScoredUtterance("a", ["y", "z"], ["y"])])
    expected = "a:\tref=['y', 'z']\na:\thyp=['y']\nb:\tref=['x']\nb:\thyp=[]\n"
    assert (tmp_path / "recogs.txt").read_text() == expected


def test_runs_of_errors_are_joined() -> None:
    pairs = [("FOR", "FOR"), ("SIR", ""), ("I", "EYE"), ("THINK", "THINK"), ("", "SO")]
    assert format_alignment(pairs) == "FOR (SIR I->EYE) THINK (*->SO)"


def test_references_without_words_have_no_rate(tmp_path: Path) -> None:
    utterances = [ScoredUtterance("a", [], ["x"])]
    stats = ErrorStats.from_utterances(utterances)
    assert stats.rate is None
    assert stats.errors == 1
    write_errs(tmp_path / "errs.txt", stats, error_rates(utterances))
    assert (tmp_path / "errs.txt").read_text().startswith("%WER = n/a\n")


def test_spaces_between_words_are_characters() -> None:
    utterances = [
        ScoredUtterance("a", ["ONE", "TWO"], ["ONE", "TOO"]),  # 7 characters, 1 replaced
        ScoredUtterance("b", ["ICE", "CREAM"], ["ICECREAM"]),  # 9, the space deleted
        ScoredUtterance("c", [], ["A"]),  # none, 1 inserted
    ]
    stats = ErrorStats.from_utterances(utterances, "cer")
    assert (stats.units, stats.errors) == (16, 3)
    assert error_rates(utterances) == {"wer": 100.0, "cer": pytest.approx(300 / 16), "mer": 100.0}
    assert str(stats) == "%CER 18.75% [3 / 16, 1 ins, 1 del, 1 sub]"


@pytest.mark.parametrize("metric", METRICS)
def test_a_report_counts_in_the_units_of_its_metric(metric: Metric, tmp_path: Path) -> None:
    """Independent of the segmentation of Chinese, which has no words of its own."""
    utterances = [
        ScoredUtterance("a", ["我", "用", "手机"], ["我用", "首", "机"]),
        ScoredUtterance("b", ["打开WI", "FI"], ["打开WIFI"]),
    ]
    units, errors = {"wer": (5, 5), "cer": (4 + 7, 2), "mer": (4 + 4, 3)}[metric]
    write_errs(tmp_path / "errs.txt", ErrorStats.from_utterances(utterances, metric), error_rates(utterances))
    text = (tmp_path / "errs.txt").read_text()
    assert text.startswith(f"%{metric.upper()} = {100 * errors / units:.2f}\n")
    assert f"over {units} reference {UNIT_NAMES[metric]} (" in text
    assert f"WER 100.00%, CER {200 / 11:.2f}%, MER {300 / 8:.2f}%\n" in text
    alignment = {"cer": "打 开 W I (␣->*) F I", "mer": "打 开 (WI FI->WIFI)", "wer": "(打开WI FI->打开WIFI)"}[metric]
    assert f"b:\t{alignment}\n" in text


def test_insertions_in_recordings_without_speech() -> None:
    utterances = [
        ScoredUtterance("a", ["ONE"], ["ONE", "TWO"], 10.0),
        ScoredUtterance("b", [], ["A", "CAT"], 60.0),
        ScoredUtterance("c", [], [], 120.0),
    ]
    stats = ErrorStats.from_utterances(utterances)
    assert (stats.no_speech, stats.no_speech_seconds, stats.no_speech_insertions) == (2, 180.0, 2)
    assert stats.without_speech() == "2 recordings without speech, 0.05 h: 40.0 insertions an hour (words)"
    assert stats.rate == 300.0  # with all insertions
    assert ErrorStats.from_utterances(utterances, "cer").no_speech_insertions == 5
    assert ErrorStats.from_utterances(utterances[:1]).without_speech() == ""
