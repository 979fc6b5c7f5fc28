"""Records of experiments outlive their folders, and models are compared over the seeds that they share."""

import json
import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from result_cases import write_experiment

from summarymix.scoring.comparison import T_95, Interval, SeedComparison
from summarymix.scoring.experiments import collect, merge, read_experiments, write_experiments

ROOT = Path(__file__).parents[2]

# Offline, simulated and streaming WER of each seed.
WERS = {
    "conformer": {42: (2.0, 3.0, 3.0), 43: (3.0, 5.0, 5.0), 44: (4.0, 4.0, 4.0)},
    "conformer+attention": {42: (2.5, 3.5, 3.75), 43: (3.0, 5.0, 5.0)},
    "lite": {45: (9.0, 9.0, 9.0)},
}


def write_folders(folder: Path) -> list[Path]:
    """All of WERS, and one experiment that is not compared."""
    folders = [write_experiment(folder / "exp", [("offline", None, 1.0)])]
    for group, seeds in WERS.items():
        for seed, (offline, simulated, streaming) in seeds.items():
            wers = [("offline", None, offline), ("simulated", 640, simulated), ("streaming", 640, streaming)]
            folders.append(write_experiment(folder / f"{group}-s{seed}", wers, seed))
    return folders


def comparison(folder: Path) -> SeedComparison:
    return SeedComparison([collect(exp_dir) for exp_dir in write_folders(folder)[1:]])


def table(text: str) -> dict[str, dict[str, str]]:
    """The rows of the first Markdown table in a text, by their first cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    end = next((i for i, row in enumerate(rows[1:], 1) if row[0] == rows[0][0]), len(rows))
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[:end]}


def test_a_record_has_what_the_folder_tells(tmp_path: Path) -> None:
    experiment = collect(write_experiment(tmp_path / "conformer+local-s7", [("offline", None, 1.0)], seed=7))
    assert (experiment.group, experiment.seed, experiment.parameters) == ("conformer+local", 7, [3_000_000])
    assert (experiment.epochs, experiment.steps, experiment.threads) == (2, 140, 2)
    # The last costs, but the largest of the peaks that processes had.
    assert (experiment.cpu_seconds, experiment.peak_memory) == (97.0, 600_000_000)
    assert experiment.selection["tried"] == 2
    assert [result.substitutions for result in experiment.results] == [4]
    # Only the seed of the run itself makes a group.
    assert collect(write_experiment(tmp_path / "model-s1", [("offline", None, 1.0)], seed=2)).group == "model-s1"


def test_records_are_kept_replaced_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    folders = write_folders(tmp_path)
    experiments = merge([], [collect(folder) for folder in reversed(folders)])
    write_experiments(path, experiments)
    assert read_experiments(path) == experiments
    assert len(path.read_text().splitlines()) == len(folders) + 2

    lines = path.read_text().splitlines()
    again = collect(write_experiment(folders[2], [("offline", None, 99.0)], seed=43))
    write_experiments(path, merge(read_experiments(path), [again]))
    changed = [i for i, (old, new) in enumerate(zip(lines, path.read_text().splitlines(), strict=True)) if old != new]
    assert [json.loads(lines[i].rstrip(","))["name"] for i in changed] == ["conformer-s43"]

    with pytest.raises(ValueError, match="Several folders are called conformer-s43"):
        merge([], [again, again])
    path.write_text('[{"name": "x"}]')
    with pytest.raises(ValueError, match=r"comparison.json was not made by local/collect_results.py"):
        read_experiments(path)


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "exp", [("offline", None, 1.0)])
    expected = collect(folder)
    log = folder / "log.jsonl"
    text = log.read_text()
    log.write_text(text + '{"kind": "co')
    assert collect(folder) == expected
    log.write_text('{"kind": "co\n' + text)
    with pytest.raises(ValueError, match=r"log.jsonl, line 1 is not a record"):
        collect(folder)


def test_results_of_different_test_sets_are_not_compared(tmp_path: Path) -> None:
    one, other = (
        collect(write_experiment(tmp_path / f"{name}-s42", [("offline", None, 1.0)]))
        for name in ("conformer", "zipformer")
    )
    SeedComparison([one, other])
    smaller = replace(other, results=[replace(result, utterances=50, words=100) for result in other.results])
    with pytest.raises(ValueError, match=r"conformer-s42 and zipformer-s42 were scored on different sets test.*50"):
        SeedComparison([one, smaller])


def test_streaming_is_compared_with_simulated_of_the_same_checkpoint(tmp_path: Path) -> None:
    wers = [("simulated", 640, 3.0), ("streaming", 640, 3.0)]
    one = collect(write_experiment(tmp_path / "conformer-s42", wers))
    others = [replace(result, epoch=9, substitutions=99) for result in one.results if result.mode == "simulated"]
    mixed = replace(one, selection={}, results=[*one.results, *others])
    assert SeedComparison([mixed])._exactness().endswith("in 1 of 1 cases.")


def test_quantiles_are_those_of_t() -> None:
    for freedom, quantile in enumerate(T_95, 1):
        x = torch.linspace(-quantile, quantile, 100_001, dtype=torch.float64)
        density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        density *= math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        assert float(torch.trapezoid(density, x)) == pytest.approx(0.95, abs=1e-4)


def test_interval() -> None:
    assert str(Interval.from_values([1.0, 2.0, 3.0])) == "+2.00 [-0.48, +4.48]"  # 2 ± 4.303 / √3
    assert str(Interval.from_values([-1.0])) == "-1.00"


def test_error_rates_and_costs_are_means_over_seeds(tmp_path: Path) -> None:
    text = comparison(tmp_path).section()
    rows = table(text)
    assert list(rows)[2:] == ["conformer", "conformer+attention", "lite"]
    assert rows["conformer"]["seeds"] == "3"
    assert rows["conformer"]["test offline"] == "3.00 ± 1.00"
    assert rows["conformer"]["test 640 ms (2)"] == "4.00 ± 1.00"
    assert rows["lite"]["test offline"] == "9.00"
    assert rows["conformer"]["dev loss"] == "0.1875 ± 0.0000"
    assert rows["conformer"]["CPU seconds"] == "133"  # 90 + 43
    assert rows["conformer"]["memory"] == "600 MB"
    assert rows["conformer"]["steps"] == "140"
    # Of six pairs of simulated and streaming decoding one differs.
    assert "the same numbers of errors as simulated streaming in 5 of 6 cases" in text


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    text = comparison(tmp_path).section().split("Differences")[1]
    rows = table(text)
    assert "`conformer`" in text
    assert list(rows)[2:] == ["conformer+attention", "lite"]
    # Of the seeds 42 and 43: 0.5 and 0; 0.25 ± 12.706 · 0.3536 / √2.
    assert rows["conformer+attention"]["test offline"] == "+0.25 [-2.93, +3.43]"
    assert rows["lite"]["test offline"] == "–"


def test_what_was_chosen_on_dev_counts(tmp_path: Path) -> None:
    """Not what somebody has decoded afterwards."""
    folder = write_experiment(tmp_path / "a-s42", [("offline", None, 1.0)])
    results = folder / "results.jsonl"
    later = json.loads(results.read_text()) | {"epoch": 2, "wer": 0.5}
    results.write_text(results.read_text() + json.dumps(later) + "\n")
    assert table(SeedComparison([collect(folder)]).section())["a"]["test offline"] == "1.00"


def test_impossible_comparisons_are_refused(tmp_path: Path) -> None:
    experiments = [collect(exp_dir) for exp_dir in write_folders(tmp_path)[1:]]
    with pytest.raises(ValueError, match=r"--baseline none is not one of .* conformer, conformer\+attention, lite"):
        SeedComparison(experiments, "none")
    with pytest.raises(ValueError, match="conformer-s42 and conformer-s42 have the same model and seed"):
        SeedComparison([experiments[0], experiments[0]])


def test_from_folders_to_a_page_with_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def run(program: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        runpy.run_path(str(ROOT / "local" / program), run_name="__main__")

    records, page, plot = (tmp_path / name for name in ("comparison.json", "RESULTS.md", "plots/comparison.png"))
    first, *others = write_folders(tmp_path / "exps")
    run("collect_results.py", "--out", records, *others)
    (tmp_path / "unfinished").mkdir()
    run("collect_results.py", "--out", records, first, tmp_path / "unfinished")
    out = capsys.readouterr().out
    assert f"{tmp_path}/unfinished is left out: No results in" in out
    assert out.endswith("1 of 7 experiments are new or updated\n")

    options = ("--comparison", records, "--baseline", "conformer", "--plot", plot)
    run("write_results.py", "--out", page, *options)
    text = page.read_text()
    assert text.index("\n## exp\n") < text.index("\n## Comparison over seeds\n")
    assert "![Word error rates](plots/comparison.png)" in text
    assert "train.py --exp-dir lite-s45 --seed 45\n" in text
    assert "conformer-s43" not in text  # only the commands of first seeds
    image = plot.read_bytes()
    assert image.startswith(b"\x89PNG")
    assert len(image) < 50_000
    # The same records give the same files.
    run("write_results.py", "--out", page, *options)
    assert (page.read_text(), plot.read_bytes()) == (text, image)

    # A page of folders alone would lose the comparison.
    with pytest.raises(SystemExit, match=r"RESULTS\.md has a comparison over seeds, .* --comparison too, or another"):
        run("write_results.py", "--out", page, others[0])
    assert page.read_text() == text
    run("write_results.py", "--out", page, *options, others[0])
    monkeypatch.setattr(sys, "argv", ["write_results.py", "--out", str(page), "--plot", str(plot), str(first)])
    with pytest.raises(SystemExit, match="--baseline and --plot need experiments called MODEL-sSEED"):
        runpy.run_path(str(ROOT / "local" / "write_results.py"), run_name="__main__")


def test_rates_are_those_of_simulated_decoding(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "a-s42", [("simulated", 640, 3.0), ("streaming", 640, 5.0)])
    [rates] = SeedComparison([collect(folder)]).rates.values()
    assert rates == {"a": {42: 3.0}}


def test_sizes_of_test_sets_are_in_the_units_of_the_metric(tmp_path: Path) -> None:
    one, other = (collect(write_experiment(tmp_path / f"{n}-s42", [("offline", None, 1.0)])) for n in ("a", "b"))
    one, other = (
        replace(e, results=[replace(r, metric="cer", cer=1.0, units=units) for r in e.results])
        for e, units in ((one, 1000), (other, 900))
    )
    with pytest.raises(ValueError, match="1000 and 900 characters"):
        SeedComparison([one, other])


def test_streaming_is_compared_with_simulated_decoding_of_the_same_weights(tmp_path: Path) -> None:
    one = collect(write_experiment(tmp_path / "a-s42", [("simulated", 640, 3.0), ("streaming", 640, 3.0)]))
    others = [replace(r, avg=9, substitutions=99) for r in one.results if r.mode == "simulated"]
    mixed = replace(one, selection={}, results=[*one.results, *others])
    assert SeedComparison([mixed])._exactness().endswith("in 1 of 1 cases.")
