"""Shared fixtures: tiny models and exports, a corpus of noise with a training run, and calls of scripts."""

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from export_cases import export
from export_cases import make_model as make_exported
from filelock import FileLock
from noise_runs import make_corpus, make_run
from programs import Interpreter
from talking_models import make_model

from summarymix.chunking import ChunkConfig
from summarymix.model import Transducer

ROOT = Path(__file__).parents[1]

# Scripts of recipes take this environment as it is; otherwise they would install their own checkout into it.
os.environ["SKIP_SETUP"] = "1"

# Machines are shared, so the time of an example depends on their load.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", params=["stateless", "lstm"])
def model(request: pytest.FixtureRequest) -> Transducer:
    return make_model(request.param)


@pytest.fixture(scope="session", params=["stateless", "lstm", "zipformer"])
def any_model(request: pytest.FixtureRequest) -> Transducer:
    return make_model("stateless", encoder="zipformer") if request.param == "zipformer" else make_model(request.param)


@pytest.fixture(scope="session")
def stateless_model() -> Transducer:
    return make_model("stateless")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def exp_dir(corpus: Path, request: pytest.FixtureRequest) -> Path:
    """Training run on ``corpus``; parameter: model.mixing.mode."""
    return make_run(corpus, getattr(request, "param", "merged"))


@pytest.fixture
def clean(exp_dir: Path) -> Iterator[None]:
    """Delete the results after a test."""
    yield
    for name in ("selected.json", "results.jsonl"):
        (exp_dir / name).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def fast_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of shell scripts, in which python starts without importing the library again."""
    interpreter = Interpreter(tmp_path_factory.mktemp("python"))
    yield interpreter.environment()
    interpreter.close()


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path: Path):
    """Call a script in ``tmp_path``, in this process, because loading torch and lhotse takes seconds."""

    def call(script: str, *options: object) -> Result:
        path = ROOT / script
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
        monkeypatch.syspath_prepend(path.parent)
        status: str | int | None = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as exit_:
            status = exit_.code
        out, err = capsys.readouterr()
        return Result(1, out, err + status) if isinstance(status, str) else Result(status or 0, out, err)

    return call


Exported = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(encoder, format, *chunks) to the folder of such an export of ``export_cases.make_model(encoder)``.

    Making one takes seconds. Of streaming Conformers with a limited left context there are files in all precisions, of
    offline ones in float16 too.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder is one of its own in that of all workers
        shared = shared.parent

    def make(encoder: str, format: str, *chunks: ChunkConfig) -> Path:
        sizes = "-".join(f"{chunk.chunk_size}_{chunk.left_chunks}_{chunk.lookahead}" for chunk in chunks)
        folder = shared / f"exported-{encoder}-{format}-{sizes}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                more: tuple[str, ...] = ()
                if (encoder, format) == ("conformer", "onnx"):
                    more = ("fp16",)
                elif (encoder, format) == ("conformer", "onnx-streaming") and chunks[0].left_chunks >= 0:
                    more = ("int8", "fp16")
                export(make_exported(encoder), format, chunks, folder, *more)
        return folder

    return make
