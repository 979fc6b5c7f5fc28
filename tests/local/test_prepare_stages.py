"""The stages of prepare.sh, without the programs that they call."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

STAGES = Path(__file__).parents[2] / "local" / "prepare_stages.sh"

Prepare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    def call(
        splits: str = "", *options: str, under: tuple[str, ...] = (), programs: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "prepare.sh"
        script.write_text(f"""#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. {STAGES}
begin "$@"
echo "nj=$nj"
{"" if programs is None else f"_stages_dir={programs}"}
prepare_stages c {splits}
""")
        command = [*under, "bash", script, "--stop-stage", "1", *options]
        return subprocess.run(command, capture_output=True, text=True)

    return call


def write_listing(recipe: Path, *splits: str) -> None:
    listing = recipe / "data/manifests/.c-manifests.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"c_{kind}_{s}.jsonl.gz\n" for s in splits for kind in ("recordings", "supervisions")))


def test_splits_that_the_recipe_does_not_name_stop_it(prepare: Prepare, tmp_path: Path) -> None:
    write_listing(tmp_path, "train", "train_extra", "dev-a", "test")
    result = prepare('train "dev-a test"')
    assert result.returncode == 1
    assert "The corpus has splits that this recipe does not name: train_extra\n" in result.stdout
    assert 'Correct prepare.sh: prepare_stages c "TRAIN ..."' in result.stdout
    assert "no longer" not in result.stdout
    for splits in ('"train train_extra" "dev-a test"', 'train "dev-a test" train_extra'):
        assert prepare(splits).returncode == 0


def test_splits_that_have_vanished_stop_it(prepare: Prepare, tmp_path: Path) -> None:
    write_listing(tmp_path, "train", "test")
    result = prepare('train "dev test"')
    assert result.returncode == 1
    assert "The corpus no longer has splits that this recipe names: dev\n" in result.stdout
    assert "does not name" not in result.stdout


def test_other_splits_are_prepared(prepare: Prepare, tmp_path: Path) -> None:
    """Whatever their kind: features, validation, tokens and Shar come again for those that a recipe names."""
    programs = tmp_path / "programs"
    programs.mkdir()
    names = ("compute_fbank", "validate_cuts", "train_bpe", "index_cuts", "export_shar")
    for name in names:
        (programs / f"{name}.py").write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (programs / f"{name}.py").chmod(0o755)

    def ran(splits: str) -> list[str]:
        result = prepare(f"{splits}", "--stop-stage", "6", "--shar", "true", programs=programs)
        assert result.returncode == 0, result.stderr
        return [line for line in result.stdout.splitlines() if line.startswith(names)]

    assert len(ran('train "dev test"')) == 6
    assert ran('train "dev test"') == []
    again = ran('train "dev test more"')
    assert [line.split()[0] for line in again if "more" in line] == ["compute_fbank", "validate_cuts", "export_shar"]
    # Of training data there are copies at other speeds.
    again = ran('"train more" "dev test"')
    assert {line.split()[0] for line in again} == {*names}
    again = ran('train "dev test more"')
    assert [line.split()[0] for line in again if "more" in line] == ["compute_fbank", "validate_cuts", "export_shar"]
    again = ran('"train extra" "dev test more"')
    assert [line.split()[0] for line in again if "extra" in line] == [
        *("compute_fbank", "validate_cuts", "train_bpe", "index_cuts", "export_shar")
    ]


def test_recipes_that_choose_their_splits_themselves_have_no_list_to_compare(prepare: Prepare) -> None:
    assert prepare('train "dev test"').returncode == 0


def test_processes_are_as_many_as_the_processors_that_it_may_use(prepare: Prepare, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "nj=1\n" in prepare('train "dev test"', under=("taskset", "--cpu-list", "0")).stdout
