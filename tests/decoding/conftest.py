"""The models of ``talking_models``, made once."""

import pytest
from talking_models import make_model

from summarymix.model import Transducer


@pytest.fixture(scope="session", params=["stateless", "lstm"])
def model(request: pytest.FixtureRequest) -> Transducer:
    return make_model(request.param)


@pytest.fixture(scope="session", params=["stateless", "lstm", "zipformer"])
def any_model(request: pytest.FixtureRequest) -> Transducer:
    return make_model("stateless", encoder="zipformer") if request.param == "zipformer" else make_model(request.param)


@pytest.fixture(scope="session")
def stateless_model() -> Transducer:
    return make_model("stateless")
