import os
import subprocess
import time
from pathlib import Path

import pytest

HELPER = Path(__file__).parents[2] / "local" / "parse_options.sh"

SCRIPT = f"""#!/usr/bin/env bash
# A recipe.
#
#   --dl-dir DIR   where

set -euo pipefail
cd "$(dirname "$0")"
nj=1
dl_dir=download
. {HELPER}
options_help="Further options."
parse_options "$@"
echo "nj=$nj dl_dir=$dl_dir stage=$stage stop_stage=$stop_stage"
for number in 0 1 2; do
  if stage $number "Title $number" marks/$number "$nj"; then
    echo "run $number"
    if [ -e fail$number ]; then false; fi
    stage_done
  fi
done
"""


@pytest.fixture
def recipe(tmp_path: Path):
    (tmp_path / "prepare.sh").write_text(SCRIPT)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        # From another folder, by a relative name, as people call it.
        command = ["bash", f"{tmp_path.name}/prepare.sh", *options]
        return subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True)

    return run


def ran(result: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("run ")]


def test_options(recipe) -> None:
    result = recipe("--dl-dir", "/a b", "--nj=3", "--stop_stage", "0", "--stage", "-1")
    assert result.stdout.splitlines()[0] == "nj=3 dl_dir=/a b stage=-1 stop_stage=0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nope", "1"], "prepare.sh: unknown option --nope"),
        (["--PATH", "1"], "unknown option --PATH"),
        (["--nj"], "option --nj needs a value"),
        (["word"], "unexpected argument 'word'"),
        (["--stage", "one"], "--stage takes a number, not 'one'"),
        (["--stop-stage=x"], "--stop-stage takes a number, not 'x'"),
    ],
)
def test_wrong_options(recipe, options: list[str], message: str) -> None:
    result = recipe(*options)
    assert result.returncode == 2
    assert message in result.stderr
    assert not ran(result)


def test_help_is_the_header_and_the_common_options(recipe) -> None:
    result = recipe("--help")
    assert result.returncode == 0
    assert result.stdout == "A recipe.\n\n  --dl-dir DIR   where\nFurther options.\n"


def test_what_is_done_is_not_done_again(recipe) -> None:
    assert ran(recipe("--stop-stage", "1")) == [0, 1]
    assert ran(recipe()) == [2]
    result = recipe()
    assert ran(result) == []
    assert "Stage 0: Title 0: already done" in result.stdout


def test_a_failed_stage_is_not_marked(recipe, tmp_path: Path) -> None:
    (tmp_path / "fail1").touch()
    result = recipe()
    assert result.returncode != 0
    assert ran(result) == [0, 1]
    (tmp_path / "fail1").unlink()
    assert ran(recipe()) == [1, 2]


def test_other_settings_and_earlier_stages_make_it_stale(recipe, tmp_path: Path) -> None:
    assert ran(recipe()) == [0, 1, 2]
    assert ran(recipe("--nj", "5")) == [0, 1, 2]
    time.sleep(0.02)
    (tmp_path / "marks" / "0").unlink()
    assert ran(recipe("--nj", "5", "--stop-stage", "0")) == [0]
    assert ran(recipe("--nj", "5")) == [1, 2]
    assert ran(recipe("--nj", "5")) == []


def test_an_empty_mark_of_a_full_disk_does_not_count(recipe, tmp_path: Path) -> None:
    assert ran(recipe()) == [0, 1, 2]
    (tmp_path / "marks" / "2").write_text("")
    assert ran(recipe()) == [2]
    assert sorted(os.listdir(tmp_path / "marks")) == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["..", "--help", "a/b", ".x", "_x", ""])
def test_names_that_cannot_be_paths_or_arguments(name: str) -> None:
    script = f'set -eu; . {HELPER}; check_names train dev-clean_2.x 测试; echo fine; check_names train "$1"; echo lost'
    done = subprocess.run(["bash", "-c", script, "run.sh", name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "fine\n")
    assert f"'{name}' cannot be the name of a split or a corpus" in done.stderr
