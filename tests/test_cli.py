"""Command lines from dataclasses."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from summarymix.cli import clear_errors, option_names, parse_config
from summarymix.training.config import TrainConfig


@dataclass
class Inner:
    num_layers: int = 4
    """How many."""
    betas: tuple[float, float] = (0.9, 0.98)


@dataclass
class Outer:
    exp_dir: Path = Path("exp")
    precision: Literal["fp32", "bf16"] = "fp32"
    max_steps: int | None = None
    model: Inner = field(default_factory=Inner)
    settings: list[tuple[int | None, int]] = field(default_factory=lambda: [(None, -1), (640, 2)])


def test_defaults_and_overrides() -> None:
    assert parse_config(Outer, []) == Outer()
    line = ["--exp_dir", "a-b", "--model.num_layers", "8", "--settings", "[[null, -1], [320, 2]]"]
    assert parse_config(Outer, line) == Outer(
        exp_dir=Path("a-b"), model=Inner(num_layers=8), settings=[(None, -1), (320, 2)]
    )


def test_dashes_are_underscores_in_names_but_not_in_values() -> None:
    assert parse_config(Outer, ["--exp-dir=my-exp", "--model.num-layers", "8", "--max-steps", "5"]) == Outer(
        exp_dir=Path("my-exp"), model=Inner(num_layers=8), max_steps=5
    )
    assert parse_config(Outer, ["--exp-dir", "my-exp_1"]).exp_dir == Path("my-exp_1")


def test_later_options_win_over_earlier_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("max_steps: 1\nmodel: {num_layers: 2, betas: [0.8, 0.9]}\n")
    second.write_text("model: {num_layers: 3}\n")
    config = parse_config(Outer, ["--config", str(first), "--config", str(second), "--max-steps", "7"])
    assert config == Outer(max_steps=7, model=Inner(3, (0.8, 0.9)))


@pytest.mark.parametrize("option", ["--print_config", "--print-config"])
def test_printed_configuration_reads_back_the_same(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--model.conformer.num-layers", "7", "--optim.lr", "3e-4", "--validation", "[[320, 2]]", "--max-steps", "9"]
    with pytest.raises(SystemExit) as exit_:
        parse_config(TrainConfig, [*line, option])
    assert exit_.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    config = parse_config(TrainConfig, ["--config", str(file)])
    assert config == parse_config(TrainConfig, line)
    assert (config.model.conformer.num_layers, config.optim.lr, config.max_steps) == (7, 3e-4, 9)
    assert config.validation == [(320, 2)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--model.num_layer", "8"], ["model.num_layer", "did you mean model.num_layers?"]),
        (["--num-layers", "8"], ["did you mean model.num_layers?"]),
        (["--expdir", "x"], ["did you mean exp_dir?"]),
        (["--model.num_layers", "many"], ["model.num_layers", "many"]),
        (["--precision", "fp8"], ["precision", "fp8", "bf16"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_errors_name_the_option(line: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_config(Outer, line)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 3  # without a list of all options
    assert message.endswith(" --help\n")


def test_unknown_key_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model: {num_layer: 2}\n")
    with pytest.raises(SystemExit):
        parse_config(Outer, ["--config", str(file)])
    assert "'num_layer' (did you mean model.num_layers?)" in capsys.readouterr().err


def test_help_shows_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_config(Outer, ["--help"], "What it does.")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "What it does." in text
    assert "How many." in text


def test_ctrl_c_and_a_closed_pipe_end_with_a_line_or_none(tmp_path: Path) -> None:
    program = """
import sys
from summarymix.cli import clear_errors
with clear_errors("p.py"):
    if sys.argv[1] == "print":
        for number in range(100000):
            print(number)
    if sys.argv[1] == "connection":
        raise BrokenPipeError("[Errno 32] of a server")
    raise KeyboardInterrupt
"""
    for word, told, status in [
        ("print", "", 141),
        ("connection", "p.py: [Errno 32] of a server\n", 1),
        ("wait", "p.py: stopped by Ctrl-C\n", 130),
    ]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, word], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        if word == "print":
            process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (told, status)


def test_a_worker_that_is_killed_is_explained(tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("""
import concurrent.futures, os
from summarymix.cli import clear_errors
with clear_errors("p.py"), concurrent.futures.ProcessPoolExecutor(1) as executor:
    executor.submit(os._exit, 1).result()
""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"p\.py: a worker was killed \(.*\), .*use fewer workers \(--nj\).*\n", done.stderr)


def test_the_library_of_another_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "egs" / "mini" / "train.py"
    (tmp_path / "summarymix").mkdir()
    (tmp_path / "summarymix" / "__init__.py").touch()
    root = Path(__file__).parents[1]
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    of_environment = (tmp_path / ".venv/bin/summarymix", tmp_path / ".venv/lib/pytest/__main__.py")
    for program in (script, root / "egs/mini/ASR/train.py", *of_environment):
        monkeypatch.setattr(sys, "argv", [str(program)])
        if program == script:
            refusal = rf"p.py: .* script of {tmp_path}, but the library of {root} is installed"
            with pytest.raises(SystemExit, match=refusal), clear_errors("p.py"):
                pytest.fail("the program begins")
        else:
            with clear_errors("p.py"):
                pass


def test_characters_that_the_output_lacks_become_escapes(tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("from summarymix.cli import clear_errors\nwith clear_errors('p.py'):\n    print('é – x')")
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, program], capture_output=True, env=environment, check=True)
    assert done.stdout == "é \\u2013 x\n".encode("latin-1")


def test_option_names_are_dotted() -> None:
    assert option_names(Outer) == [
        "exp_dir",
        "precision",
        "max_steps",
        "model",
        "model.num_layers",
        "model.betas",
        "settings",
    ]


def test_options_that_do_not_go_together_end_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    for line, message in (
        (["--model.mixing.decay_seconds", "5", "--model.mixing.mode", "local"], "does not apply to mixing.mode local"),
        (["--num_epochs", "0"], "--num_epochs 0 must be at least 1"),
        (["--valid_every_steps", "0"], "--valid_every_steps 0 must be at least 1"),
        (["--optim.clip_norm", "0"], "--optim.clip_norm 0.0 must be above 0"),
        (["--optim.lr", "-1"], "--optim.lr -1.0 must be at least 0"),
        (["--optim.betas", "[1.5, 2]"], "--optim.betas [1.5, 2.0] must be from 0 to below 1"),
        (["--scales.ctc", "-1"], "--scales.ctc -1.0 must be at least 0"),
        (["--model.context_size", "0"], "--model.context_size 0 must be at least 1"),
        (["--model.conformer.dim", "0"], "--model.conformer.dim 0 must be at least 1"),
        (["--model.zipformer.ref_duration", "0"], "--model.zipformer.ref_duration 0.0 must be above 0"),
        (
            ["--model.zipformer.dims", "[64, 64, 96, 0, 96, 64]"],
            "zipformer.dims (64, 64, 96, 0, 96, 64) must be",
        ),
        (["--keep_best_k", "-1"], "--keep_best_k -1 must be at least 0"),
        (["--max_steps", "0"], "--max_steps 0 must be at least 1"),
        (["--compile", "true"], "--compile fuses operations of the zip-style encoder, and a Conformer has none"),
        (["--loss.prune_range", "1"], "--loss.prune_range 1 must be 2 or more in this lattice"),
        (["--loss.fastemit", "-0.1"], "--loss.fastemit -0.1 must be at least 0"),
        (["--loss.fastemit", "0.1", "--loss.backend", "k2"], "--loss.fastemit needs --loss.backend native or auto"),
    ):
        with pytest.raises(SystemExit) as exit_:
            parse_config(TrainConfig, line)
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
