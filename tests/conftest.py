"""Models of ``talking_models`` and runs of ``noise_runs``, made once, for whoever decodes."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from noise_runs import make_corpus, make_run
from talking_models import make_model

from summarymix.model import Transducer

# Machines are shared: how long an example takes says nothing about the code.
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
    """Parameter: model.mixing.mode."""
    return make_run(corpus, getattr(request, "param", "merged"))


@pytest.fixture
def clean(exp_dir: Path) -> Iterator[None]:
    """Leaves no results to other tests."""
    yield
    for name in ("selected.json", "results.jsonl"):
        (exp_dir / name).unlink(missing_ok=True)
