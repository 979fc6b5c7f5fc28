"""A recogniser with a tiny random model."""

import pytest
from recognizer_cases import make_recognizer

from summarymix.decoding.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return make_recognizer()
