import os
import subprocess
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


def test_variables_of_the_environment_are_no_options_of_prepare() -> None:
    show = f'. {HELPER.with_name("prepare_stages.sh")}; echo "${{lang-none}} ${{text_case-none}} ${{punctuation-none}}"'
    environment = os.environ | {"lang": "de", "text_case": "lower", "punctuation": "remove"}
    done = subprocess.run(["bash", "-euc", show], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "none none none\n"


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
    changed = recipe("--nj", "5")
    assert ran(changed) == [0, 1, 2]
    assert "Stage 0: Title 0 again, with the options '5' instead of '1'" in changed.stdout
    (tmp_path / "marks" / "0").unlink()
    assert ran(recipe("--nj", "5", "--stop-stage", "0")) == [0]
    stale = recipe("--nj", "5")
    assert ran(stale) == [1, 2]
    assert "Stage 1: Title 1 again, because an earlier stage has run" in stale.stdout
    assert ran(recipe("--nj", "5")) == []


def test_a_stage_may_depend_on_another_one_than_the_last(tmp_path: Path) -> None:
    """Stage 2 depends on nothing, and stage 3 on stage 0."""
    script = tmp_path / "prepare.sh"
    stages = [("0", ""), ("1", ""), ("2", ' ""'), ("3", " marks/0")]
    calls = [f'if stage {n} T marks/{n} "$v"{on}; then echo run {n}; stage_done; fi' for n, on in stages]
    script.write_text("\n".join(["set -euo pipefail", "v=a", f". {HELPER}", 'parse_options "$@"', *calls]))

    def again(*removed: int) -> list[int]:
        for number in removed:
            (tmp_path / "marks" / str(number)).unlink()
        return ran(subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True, check=True))

    assert [again(), again(), again(1), again(0)] == [[0, 1, 2, 3], [], [1], [0, 1, 3]]


def test_clock_has_no_influence(recipe, tmp_path: Path) -> None:
    recipe()
    marks = [tmp_path / "marks" / str(number) for number in range(3)]
    for number, mark in enumerate(marks):
        os.utime(mark, (1e9 - number, 1e9 - number))  # each older than the one before
    assert ran(recipe()) == []
    # The clock is set back: what runs again is older than what used its former result.
    marks[0].unlink()
    recipe("--stop-stage", "0")
    os.utime(marks[0], (1, 1))
    assert ran(recipe("--stage", "2")) == []
    assert ran(recipe()) == [1, 2]


def test_mark_says_how_to_run_a_stage_again(recipe, tmp_path: Path) -> None:
    recipe()
    assert "already done (to run it again, remove marks/1)" in recipe().stdout
    (tmp_path / "marks" / "1").unlink()
    assert ran(recipe()) == [1, 2]


def test_marks_of_earlier_versions_count(recipe, tmp_path: Path) -> None:
    recipe()
    for mark in (tmp_path / "marks").iterdir():
        mark.write_text("1\n")
    assert ran(recipe()) == []
    (tmp_path / "marks" / "1").unlink()
    assert ran(recipe()) == [1, 2]
    assert ran(recipe()) == []


def test_stage_before_may_be_missing(recipe, tmp_path: Path) -> None:
    recipe()
    (tmp_path / "marks" / "0").unlink()
    assert ran(recipe("--stage", "1")) == []
    (tmp_path / "marks" / "1").unlink()
    assert ran(recipe("--stage", "1")) == [1, 2]


def test_file_is_written_whole_or_not_at_all(recipe, tmp_path: Path) -> None:
    recipe()
    before = (tmp_path / "marks" / "1").read_text()
    (tmp_path / "marks" / "1").write_text(before.replace("# run ", "# run other "))
    (tmp_path / "marks" / "2.part").symlink_to("/dev/full")
    result = recipe()
    assert result.returncode != 0
    assert ran(result) == [2]
    assert not (tmp_path / "marks" / "2").exists()


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
