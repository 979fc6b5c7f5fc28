"""RESULTS.md says what results.jsonl holds, each figure in its place."""

from pathlib import Path

import pytest
from result_cases import make_result, write_experiment

from summarymix.scoring.comparison import SeedComparison
from summarymix.scoring.experiments import collect
from summarymix.scoring.report import interval_table, pivot, write_report
from summarymix.scoring.results import append_result


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_row_for_a_way_of_decoding_and_one_column_for_a_split() -> None:
    results = [
        make_result(split="test-other", wer=9.0, rtf=0.03, seconds=300.0),
        make_result(split="test-clean", wer=3.0, rtf=0.01, seconds=100.0),
        make_result(split="test-clean", wer=2.0, mode="offline", chunk_ms=None, left_chunks=-1, state_bytes=None),
        make_result(split="dev", wer=None, left_chunks=-1),
        make_result(split="dev", wer=4.0, cer=1.25, left_chunks=8),
    ]
    header, *rows = pivot(results, ["wer", "cer"])
    assert len(rows) == 4
    by_column = dict(zip(header, rows[0], strict=True))
    assert (by_column["test-clean"], by_column["test-other"], by_column["dev"]) == ("3.00", "9.00", "–")
    # Of all its audio: (0.03 · 300 + 0.01 · 100) / 400.
    assert by_column["RTF"] == "0.0250"
    assert dict(zip(header, rows[1], strict=True))["test-other"] == "–"
    assert dict(zip(header, rows[2], strict=True))["left context"] == "unlimited"
    assert dict(zip(header, rows[3], strict=True))["dev"] == "4.00 / 1.25"


def test_streaming_results_have_a_table_of_intervals_and_delays() -> None:
    streamed = make_result(
        interval=(0.75, 1.5),
        above_offline=(0.25, -0.125, 0.5),
        first_partial_ms=(700.4, 900.0),
        first_stable_ms=(800.0, 1000.0),
        final_ms=(20.0, 30.0),
        changed_words=12.34,
    )
    header, row = interval_table([make_result(mode="simulated"), streamed])
    assert row[2:] == [
        *("streaming", "640 ms", "2", "1.25 [0.75, 1.50]", "+0.25 [-0.12, +0.50]"),
        *("700 / 900", "800 / 1000", "20 / 30", "12.3 %"),
    ]
    assert header[-5:] == ["against offline", "first word", "stable", "final", "changed words"]
    silent = make_result(final_ms=(20.0, 30.0), wer=None)
    assert interval_table([silent])[-1][5:] == ["–", "–", "–", "–", "20 / 30", "–"]
    assert interval_table([make_result()]) == []


def bare_folder(exp_dir: Path, **changes: object) -> Path:
    """Results, and nothing of the training that they are of."""
    append_result(exp_dir / "results.jsonl", make_result(command="./decode.py --exp-dir x", **changes))
    append_result(exp_dir / "results.jsonl", make_result(command="./decode.py --exp-dir x", split="dev", **changes))
    return exp_dir


def test_a_section_has_sizes_commands_and_what_was_chosen(tmp_path: Path) -> None:
    exp_dir = write_experiment(tmp_path / "exp-a", [("streaming", 640, 1.0)])
    bare_folder(exp_dir, parameters=66_110_931)
    text = write_report([collect(exp_dir), collect(bare_folder(tmp_path / "exp-b"))])
    assert text.startswith("# Results of the recipe mini\n")
    first, second = text.split("## exp-b")
    assert "Number of parameters: 66110931, i.e., 66.11 M." in first
    assert "Trained for 2 epochs, 140 steps.\n\n```bash\ntrain.py --exp-dir exp-a --seed 42\n```" in first
    assert "Epoch 3, avg 1 was chosen on dev among 2 candidates" in first
    assert "```bash\n./decode.py --select\n./decode.py --exp-dir x\n```" in first
    # Without a log and a choice, what is known is told.
    assert "Trained" not in second
    assert "```bash\n./decode.py --exp-dir x\n```" in second


def test_what_is_missing_or_mixed_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none/results.jsonl: run ./decode.py --exp-dir"):
        collect(tmp_path / "none")
    experiments = [collect(bare_folder(tmp_path / name, recipe=name)) for name in ("mini", "librispeech")]
    with pytest.raises(ValueError, match=r"recipes \['librispeech', 'mini'\]"):
        write_report(experiments)
    with pytest.raises(ValueError, match="No experiment"):
        write_report([])


def test_the_metric_of_the_results_comes_first_and_is_named(tmp_path: Path) -> None:
    exp_dir = tmp_path / "exp"
    silent = {"no_speech": 1, "no_speech_seconds": 7200.0, "no_speech_insertions": 4}
    append_result(exp_dir / "results.jsonl", make_result(metric="cer", wer=80.0, cer=6.0, units=900, **silent))
    append_result(exp_dir / "results.jsonl", make_result(split="no", metric="cer", wer=None, **silent))
    text = write_report([collect(exp_dir)])
    assert "are character error rates / word error rates in per cent. In brackets: insertions an hour without" in text
    assert "| 6.00 / 80.00 [2.0] |" in text
    assert "| – [2.0] " in text
    assert "test 50 utterances, 900 characters, 0 skipped" in text


def test_a_comparison_is_by_the_metric_of_the_results(tmp_path: Path) -> None:
    exp_dir = write_experiment(tmp_path / "exp", [("offline", None, 80.0)])
    append_result(exp_dir / "results.jsonl", make_result(mode="simulated", metric="cer", wer=70.0, cer=6.0))
    comparison = SeedComparison([collect(exp_dir)])
    assert "Columns named after splits are error rates in per cent" in comparison.section()
    header, _, row = map(cells, comparison.section().splitlines()[7:10])
    columns = dict(zip(header, row, strict=True))
    assert (columns["test offline"], columns["test 640 ms (2) CER"]) == ("80.00", "6.00")
