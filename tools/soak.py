#!/usr/bin/env python3
"""Kill the programs of a recipe at random moments, start them again, and compare with a run that nobody disturbed.

    python tools/soak.py                          50 kills of each program; an hour or two on a CPU
    python tools/soak.py --kills 3 --programs prepare.sh train.py

The corpus is a handful of tones. Each program is run once undisturbed. Then it starts from the same files again and its
process group receives SIGKILL, SIGTERM and SIGINT in turns, up to three times; the same command is repeated until it
ends well, and every file must have the same content, bit for bit, apart from times. The exit status is 1 otherwise.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from summarymix.runs import read_checkpoint
from summarymix.scoring.results import read_results

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS_IN_A_ROW = 3
SECONDS_TO_END = 60.0  # after a signal
# Folders whose content nobody reads again, or has times in it.
IGNORED_FOLDERS = {"tensorboard", "__pycache__"}
TIMES = {"wall_seconds", "cpu_seconds", "log_lines", "rtf", "first_partial_ms", "first_stable_ms", "final_ms"}
# Names of a stage's runs, and the fingerprint of a Shar export, which has the time of its manifest.
MARKS_OF_TIME = re.compile(r"# (run|after) |[0-9a-f]{16}$")
# A program that makes a folder says so if it was killed between making it and its last line.
ALREADY_THERE = "is there already"


@dataclass(frozen=True)
class Program:
    """A program to kill."""

    name: str
    command: Sequence[str]
    folder: Path
    """Folder in which it runs."""


@dataclass
class Outcome:
    """Result of killing a program many times."""

    kills: Counter[signal.Signals] = field(default_factory=Counter)
    rounds: int = 0
    leftovers: int = 0
    """Temporary files that kills have left."""
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{number} {name.name}" for name, number in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kinds}), {self.rounds} runs to the end, {self.leftovers} temporary files "
            f"left, {len(self.differences)} differences"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [program.name for program in recipe_programs(Path())]
    parser.add_argument("--kills", type=int, default=50, help="kills of each program (50)")
    parser.add_argument("--programs", nargs="+", choices=names, default=names, help="programs to kill (all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--work-dir", type=Path, help="empty folder to work in, which is kept (a temporary one)")
    args = parser.parse_args()
    if args.work_dir is not None and args.work_dir.exists() and any(args.work_dir.iterdir()):
        parser.error(f"--work-dir {args.work_dir} is not empty: choose another folder")
    # A background job of a shell ignores Ctrl-C, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = (args.work_dir or Path(temporary)).resolve()
        make_corpus(work_dir / "corpus")
        (work_dir / "egs").mkdir()
        rng = random.Random(args.seed)
        differ = False
        for program in recipe_programs(work_dir):
            outcome = soak(program, work_dir / "egs", args.kills if program.name in args.programs else 0, rng)
            if program.name in args.programs or outcome.differences:
                print(f"{program.name}: {outcome}", *outcome.differences, sep="\n  ", flush=True)
                differ |= bool(outcome.differences)
            if not outcome.rounds and outcome.differences:
                break  # it does not end well undisturbed, so the next one has nothing to work on
    sys.exit(1 if differ else 0)


def recipe_programs(work_dir: Path) -> list[Program]:
    """The programs of a recipe in the order of their use, with the options for a tiny model."""
    recipe = work_dir / "egs" / "soak" / "ASR"
    corpus = work_dir / "corpus"
    sizes = {"num_layers": 1, "dim": 16, "feedforward_dim": 16, "summary_dim": 16, "kernel_size": 5}
    model = [f"--model.conformer.{name}={size}" for name, size in sizes.items()]
    training = ["--num-epochs=3", "--data.max-duration=4", "--data.num-workers=1", "--average-period=1"]
    training += ["--save-every-steps=2", "--valid-every-steps=3", "--tensorboard=false"]
    streaming = ["--chunk-ms", "640", "--left-chunks", "2"]
    python = sys.executable
    new_recipe = [python, str(ROOT / "tools" / "new_recipe.py"), "soak", "--table", str(corpus / "table.tsv")]
    audio = [str(corpus / f"{number}.flac") for number in range(3)]
    return [
        Program("new_recipe.py", [*new_recipe, "--egs-dir", str(work_dir / "egs")], work_dir),
        Program("prepare.sh", ["./prepare.sh", "--nj", "2", "--speed-perturb", "", "--shar", "true"], recipe),
        Program("train.py", [python, "train.py", *model, *training], recipe),
        Program("decode.py", [python, "decode.py", "--mode", "offline", "simulated", "streaming", *streaming], recipe),
        Program("export.py", [python, "export.py", "--format", "onnx-streaming", "--out", "exp/onnx"], recipe),
        Program("transcribe.py", [python, "transcribe.py", "exp", *audio, "--out-dir", "exp/texts"], recipe),
    ]


def make_corpus(folder: Path) -> None:
    """Write 24 utterances, one tone a word, and a table with a row that cannot be used."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = ["ONE", "TWO", "THREE", "STOP"]
    rows = ["audio\ttext\tspeaker\tsplit", "gone.flac\tONE\ts0\ttrain"]
    for number in range(24):
        chosen = rng.integers(len(words), size=3)
        rate = 16001 if number % 8 == 0 else 16000  # an odd rate is converted
        time_axis = np.arange(int(0.4 * rate)) / rate  # (n,)
        samples = np.concatenate([np.sin(2 * np.pi * 300 * (1 + word) * time_axis) for word in chosen])
        soundfile.write(folder / f"{number}.flac", 0.3 * samples + 0.01 * rng.standard_normal(len(samples)), rate)
        split = "dev" if number % 6 == 0 else "test" if number % 6 == 1 else "train"
        rows.append(f"{number}.flac\t{' '.join(words[word] for word in chosen)}\ts{number % 6}\t{split}")
    (folder / "table.tsv").write_text("".join(f"{row}\n" for row in rows))


def soak(program: Program, output: Path, kills: int, rng: random.Random) -> Outcome:
    """Run a program undisturbed, then kill it until there were ``kills``; ``output`` is left as undisturbed.

    Args:
        program: program to kill.
        output: folder with all that it writes.
        kills: number of signals that must reach it.
        rng: generator of the moments.
    """
    before, after = output.with_name("before"), output.with_name("after")
    outcome = Outcome()
    _replace(before, output)
    start = time.monotonic()
    if problem := _run(program, 3600.0):
        outcome.differences.append(f"undisturbed: {problem}")
        return outcome
    seconds = time.monotonic() - start
    _replace(after, output)
    expected = contents(output)
    while outcome.kills.total() < kills:
        _replace(output, before)
        told = _disturb(program, seconds, min(KILLS_IN_A_ROW, kills - outcome.kills.total()), rng, outcome)
        outcome.rounds += 1
        outcome.leftovers += sum(_is_partial(path) for path in output.rglob("*"))
        found = [told] if told else _differences(expected, contents(output))
        if found:
            kept = output.with_name(f"different-{program.name}-{outcome.rounds}")
            _replace(kept, output)
            outcome.differences += [f"run {outcome.rounds}: {one} (see {kept})" for one in found]
    _replace(output, after)
    return outcome


def _disturb(program: Program, seconds: float, kills: int, rng: random.Random, outcome: Outcome) -> str:
    """Kill a program up to ``kills`` times, then let it end; return what went wrong, or nothing."""
    for _ in range(rng.randint(1, kills)):
        # The larger of two moments, because programs spend their first seconds on imports.
        moment = seconds * max(rng.random(), rng.random())
        number = SIGNALS[outcome.kills.total() % len(SIGNALS)]
        with tempfile.TemporaryFile("w+") as log:
            process = _start(program, stdout=log, stderr=subprocess.STDOUT)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, number)
            else:  # it ends before the moment
                log.seek(0)
                if problem := _problem(process.returncode, log.read()):
                    return problem
                break
        has_ended = _has_ended(process)
        if has_ended and process.returncode == 0:
            break
        outcome.kills[number] += 1
        if not has_ended:
            return f"it goes on {SECONDS_TO_END:g} s after {number.name}"
    return _run(program, 20 * seconds + SECONDS_TO_END)


def _start(program: Program, **options: Any) -> "subprocess.Popen[str]":
    """Start a program in a process group of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SKIP_SETUP": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    return subprocess.Popen(
        program.command,
        cwd=program.folder,
        env=environment,
        start_new_session=True,
        text=True,
        preexec_fn=_default_signals,
        **silent,
    )


def _default_signals() -> None:
    """Undo that a background job of a shell ignores SIGINT, as do all the processes that it starts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _run(program: Program, timeout: float) -> str:
    """Run a program to its end; return what went wrong, or nothing."""
    process = _start(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"it has not ended after {timeout:.0f} s"
    return _problem(process.returncode, output)


def _problem(status: int, output: str) -> str:
    """Describe the failure of a program that has ended by itself; empty if there is none."""
    return "" if status == 0 or ALREADY_THERE in output else f"exit status {status}: {' '.join(output.split()[-60:])}"


def _has_ended(process: "subprocess.Popen[str]") -> bool:
    """Wait for all processes of the group; kill what goes on for too long."""
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def _replace(target: Path, source: Path) -> None:
    """Make ``target`` a copy of ``source`` with the same times of modification."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file's content by path, without times and temporary files."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if _is_partial(path) or path.name in IGNORED_FOLDERS:
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _is_partial(path: Path) -> bool:
    return path.name.endswith(".part")


def _digest(path: Path) -> str:
    content: Any
    if path.suffix == ".pt":
        content = _plain(read_checkpoint(path))
    elif path.name == "results.jsonl":
        content = _plain(sorted((vars(result) for result in read_results(path)), key=str))
    elif path.name == "log.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        content = [line for line in lines if line["kind"] in ("valid", "epoch", "left_out", "skipped")]
    elif path.name == "measured.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        content = [(name, size, *audio) for name, size, _, *audio in lines]  # without times of modification
    elif path.suffix == ".gz":
        content = gzip.decompress(path.read_bytes())
    elif path.name.endswith(".done"):
        content = [line for line in path.read_text().splitlines() if not MARKS_OF_TIME.match(line)]
    else:
        content = path.read_bytes()
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value whose ``repr`` is complete, without times."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes()
    return value


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in found]
    other = [f"{name} differs" for name in expected if name in found and found[name] != expected[name]]
    return missing + other + [f"{name} is one too many" for name in found if name not in expected]


if __name__ == "__main__":
    main()
