"""The stages of run.sh, with a prepare.sh and a train.py that only note their options."""

import subprocess
from pathlib import Path

import pytest

STAGES = Path(__file__).parents[2] / "local" / "run_stages.sh"

RUN = f"""#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. {STAGES}
begin "$@"
run_stages c train
"""
PREPARE = """#!/usr/bin/env bash
echo "$@" >prepared
printf '%s\n' "$@" >prepared-words
mkdir -p "$2/fbank"
echo "cuts in $2" >"$2/fbank/c_cuts_train.jsonl.gz"
mkdir -p "$2/lang_char"
[ -e "$2/lang_char/bpe.model" ] || echo tokens >"$2/lang_char/bpe.model"
"""
TRAIN = """import sys, yaml
from pathlib import Path
from summarymix.configs import plain
from summarymix.data.config import CorpusConfig, DataConfig
from summarymix.training.config import TrainConfig
options = dict(zip(sys.argv[1:], sys.argv[2:]))
given = yaml.safe_load(open("conf/conformer.yaml"))
data = DataConfig(
    prefix="c",
    lang_dir=options.get("--data.lang-dir", given.get("lang_dir", "data/lang_char")),
    manifest_dir=options.get("--data.manifest-dir", "data/fbank"),
    corpora=[CorpusConfig("d", given.get("dir", "."), train=given.get("train", []), dev=given.get("dev", []))],
)
config = yaml.safe_dump(plain(TrainConfig(data=data)))
if "--print_config" in sys.argv:
    print(config)
else:
    open("trained", "w").write(" ".join(sys.argv[1:]))
    open("trained-words", "w").write("\\n".join(sys.argv[1:]))
    Path(options["--exp-dir"], "config.yaml").write_text(config)
"""
DECODE = """import sys
open("decoded", "a").write(" ".join(sys.argv[3:]) + "\\n")
"""


@pytest.fixture
def recipe(tmp_path: Path, fast_python: dict[str, str]):
    for name, text in (("run.sh", RUN), ("prepare.sh", PREPARE), ("train.py", TRAIN), ("decode.py", DECODE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "conformer.yaml").write_text("num_epochs: 30\n")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [tmp_path / "run.sh", "--nproc", "1", "--stop-stage", "1", *options]
        return subprocess.run(command, capture_output=True, text=True, env=fast_python)

    return run


def test_training_reads_the_folder_that_was_prepared(recipe, tmp_path: Path) -> None:
    result = recipe()
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "prepared").read_text() == "--data-dir data\n"
    assert "--data." not in (tmp_path / "trained").read_text()

    # Another folder, although there are older data in the first one.
    options = ("--exp-dir", "exp-raw", "--train-options", "--num-workers 1")
    result = recipe("--data-dir", "data-raw", "--prepare-options", "--text raw", *options)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "prepared").read_text() == "--data-dir data-raw --text raw\n"
    assert (tmp_path / "trained").read_text().split()[2:] == [
        *("--exp-dir", "exp-raw", "--data.manifest-dir", "data-raw/fbank", "--data.lang-dir", "data-raw/lang_char"),
        *("--num-workers", "1"),
    ]


def test_only_the_users_options_are_split_at_spaces(recipe, tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    (folder / "fbank").mkdir(parents=True)
    (folder / "fbank" / "musan_cuts.jsonl.gz").touch()
    (tmp_path / "run.sh").write_text(
        RUN.replace(
            "run_stages c", 'prepare_arguments+=(--words "a b")\ntrain_arguments+=(--words "c d")\nrun_stages c'
        )
    )
    result = recipe("--data-dir", folder, "--prepare-options", "--nj  1", "--train-options", "--seed  2")
    assert result.returncode == 0, result.stderr
    prepared = (tmp_path / "prepared-words").read_text().splitlines()
    assert prepared == ["--data-dir", str(folder), "--words", "a b", "--nj", "1"]
    assert (tmp_path / "trained-words").read_text().splitlines()[4:] == [
        *("--data.noise.manifest", f"{folder}/fbank/musan_cuts.jsonl.gz"),
        *("--data.manifest-dir", f"{folder}/fbank", "--data.lang-dir", f"{folder}/lang_char"),
        *("--words", "c d", "--seed", "2"),
    ]


def test_an_edited_configuration_is_trained(recipe, tmp_path: Path) -> None:
    (tmp_path / "conf" / "more.yaml").write_text("seed: 1\n")
    options = ("--config", "conf/conformer.yaml conf/more.yaml")
    assert "Stage 1: Train: done" in recipe(*options).stdout
    assert "Stage 1: Train: already done" in recipe(*options).stdout
    (tmp_path / "conf" / "more.yaml").write_text("seed: 2\n")
    assert "Stage 1: Train: done" in recipe(*options).stdout


def test_other_data_need_another_folder_once_there_is_a_checkpoint(recipe, tmp_path: Path) -> None:
    recipe()
    (tmp_path / "prepare.sh").write_text(PREPARE.replace("cuts in", "other cuts in"))
    assert recipe().returncode == 0  # nothing has been trained
    (tmp_path / "exp" / "epoch-1.pt").touch()
    (tmp_path / "prepare.sh").write_text(PREPARE)
    result = recipe()
    assert result.returncode == 1
    assert "exp was trained on other data: remove it, or give another --exp-dir" in result.stdout


@pytest.fixture
def two(recipe, tmp_path: Path) -> Path:
    """The manifests of another recipe, in the configuration's data.corpora."""
    folder = tmp_path / "two/data/fbank"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (folder / f"d_cuts_{split}.jsonl.gz").write_text(f"cuts of {split}")
    (tmp_path / "conf/conformer.yaml").write_text("dir: two\ntrain: [train]\ndev: [dev]\n")
    return folder


def test_splits_of_another_recipe_are_where_the_configuration_says(recipe, two: Path) -> None:
    result = recipe("--splits", "test@d dev@d")
    assert result.returncode == 0, result.stdout + result.stderr
    (two / "d_cuts_train.jsonl.gz").unlink()
    assert "No two/data/fbank/d_cuts_train.jsonl.gz: run stage 0, or correct" in recipe().stdout


def test_another_recipe_that_is_prepared_again_is_other_data(recipe, two: Path, tmp_path: Path) -> None:
    def decoded(*options: str) -> bool:
        (tmp_path / "decoded").write_text("")
        result = recipe("--stop-stage", "3", *options)
        assert result.returncode == 0, result.stdout + result.stderr
        return bool((tmp_path / "decoded").read_text())

    assert decoded()
    (tmp_path / "exp/epoch-1.pt").touch()
    assert not decoded()
    (two / "d_cuts_dev.jsonl.gz").write_text("other cuts")
    assert decoded()
    assert decoded("--splits", "test@d")
    assert "--select" not in (tmp_path / "decoded").read_text()
    (two / "d_cuts_test.jsonl.gz").write_text("other cuts")
    assert decoded("--splits", "test@d")
    assert not decoded("--splits", "test@d")
    recorded = tmp_path / "exp/.data"
    recorded.write_text(recorded.read_text().splitlines(keepends=True)[0])  # of this recipe alone
    assert not decoded("--splits", "test@d")
    (two / "d_cuts_train.jsonl.gz").write_text("other cuts")
    assert "exp was trained on other data" in recipe().stdout


def test_a_corpus_that_is_added_or_removed_is_other_data(recipe, two: Path, tmp_path: Path) -> None:
    config = tmp_path / "conf/conformer.yaml"
    both = config.read_text()
    for exp, first, second in (("added", "seed: 1\n", both), ("removed", both, "seed: 1\n")):
        config.write_text(first)
        assert recipe("--exp-dir", exp).returncode == 0
        (tmp_path / exp / "epoch-1.pt").touch()
        assert recipe("--exp-dir", exp).returncode == 0
        config.write_text(second)
        assert f"{exp} was trained on other data" in recipe("--exp-dir", exp).stdout


def test_a_link_to_a_folder_of_other_data_is_refused_too(recipe, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "exp").symlink_to("disk")
    assert recipe().returncode == 0
    (tmp_path / "exp" / "epoch-1.pt").touch()
    (tmp_path / "prepare.sh").write_text(PREPARE.replace("cuts in", "other cuts in"))
    assert "exp was trained on other data" in recipe().stdout


def test_a_mistake_in_the_configuration_has_no_traceback(recipe, tmp_path: Path) -> None:
    (tmp_path / "conf" / "conformer.yaml").unlink()
    (tmp_path / "train.py").write_text("import sys; sys.exit('train.py: no conf/conformer.yaml')")
    result = recipe("--data-dir", "other")
    assert result.returncode != 0
    assert result.stderr == "train.py: no conf/conformer.yaml\n"


def test_other_tokens_are_trained(recipe, tmp_path: Path) -> None:
    assert "Stage 1: Train: done" in recipe().stdout
    assert "Stage 1: Train: already done" in recipe().stdout
    (tmp_path / "data/lang_char/bpe.model").write_text("other tokens\n")
    assert "Stage 1: Train: done" in recipe().stdout
    (tmp_path / "data/lang_other").mkdir()
    (tmp_path / "data/lang_other/bpe.model").write_text("tokens\n")
    options = ("--train-options", "--data.lang-dir data/lang_other")
    assert "Stage 1: Train: done" in recipe(*options).stdout
    (tmp_path / "data/lang_other/bpe.model").write_text("other tokens\n")
    assert "Stage 1: Train: done" in recipe(*options).stdout
    long = tmp_path / "a folder whose name: it is too long for one line" / "and has spaces"  # of the printed YAML
    long.mkdir(parents=True)
    (tmp_path / "conf" / "conformer.yaml").write_text(f"lang_dir: '{long}'\n")
    for tokens in ("tokens", "other tokens"):
        (long / "bpe.model").write_text(tokens)
        assert "Stage 1: Train: done" in recipe().stdout
        assert "Stage 1: Train: already done" in recipe().stdout


def test_corrected_dev_and_test_data_are_decoded(recipe, tmp_path: Path) -> None:
    def decoded() -> list[str]:
        (tmp_path / "decoded").write_text("")
        result = recipe("--stop-stage", "3")
        assert result.returncode == 0, result.stderr
        return [line.split()[0] for line in (tmp_path / "decoded").read_text().splitlines()]

    assert decoded() == ["--select", "--compare"]
    assert decoded() == []
    (tmp_path / "data/fbank/c_cuts_test.jsonl.gz").write_text("test cuts")
    assert decoded() == ["--select", "--compare"]
    assert decoded() == []


def test_tokens_outside_the_data_stay(recipe, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN.replace("data/lang_char", "../other/data/lang"))
    assert recipe("--data-dir", "raw").returncode == 0
    assert "--data.manifest-dir raw/fbank --data.lang-dir ../other/data/lang" in (tmp_path / "trained").read_text()


def test_data_are_needed_for_training_only(recipe, tmp_path: Path) -> None:
    result = recipe("--stage", "1")
    assert result.returncode == 1
    assert "No data/fbank/c_cuts_train.jsonl.gz: run stage 0, or correct --data-dir" in result.stdout
    assert recipe("--stage", "2", "--stop-stage", "1").returncode == 0


@pytest.mark.parametrize("options", ["--data-dir X", "--nj 2 --data_dir=X"])
def test_another_folder_for_preparation_alone_is_refused(options: str, recipe, tmp_path: Path) -> None:
    result = recipe("--prepare-options", options)
    assert result.returncode == 2
    assert "run.sh: give --data-dir to run.sh itself" in result.stderr
    assert not (tmp_path / "prepared").exists()


def test_prepared_noise_is_used_unless_it_is_not_wanted(recipe, tmp_path: Path) -> None:
    noise = tmp_path / "data/fbank/musan_cuts.jsonl.gz"
    noise.parent.mkdir(parents=True)
    noise.touch()
    for options, is_used in (((), True), (("--prepare-options", "--nj 1 --musan  false"), False)):
        result = recipe(*options)
        assert result.returncode == 0, result.stderr
        assert ("--data.noise.manifest data/fbank/musan_cuts.jsonl.gz" in (tmp_path / "trained").read_text()) == is_used


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--chunk-ms", "640 100"), "--chunk-ms 100 is not a multiple of the encoder's frame of 40 ms"),
        (("--left-chunks", "2 -3"), "left context is -1 (unlimited) or a number of chunks, not -3"),
        (("--splits", "tset"), "No data/fbank/c_cuts_tset.jsonl.gz: run stage 0, or correct --data-dir or --splits"),
        (("--splits", "tset@d"), "No data/fbank/d_cuts_tset.jsonl.gz: run stage 0, or correct --data-dir or --splits"),
    ],
)
def test_options_of_decoding_are_checked_before_training(
    options: tuple[str, ...], message: str, recipe, tmp_path: Path
) -> None:
    result = recipe(*options)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert not (tmp_path / "trained").exists()
    assert recipe("--chunk-ms", "1280 40", "--left-chunks", "-1 0 4", "--splits", "train").returncode == 0
