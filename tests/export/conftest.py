"""Exports of tiny models, made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from export_cases import export, make_model

from summarymix.chunking import ChunkConfig

Exported = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(encoder, format, chunk) to the folder of such an export of ``make_model(encoder)``. Making one takes seconds."""

    @cache
    def make(encoder: str, format: str, chunk: ChunkConfig) -> Path:
        int8 = (encoder, format) == ("conformer", "onnx-streaming")
        return export(make_model(encoder), format, chunk, tmp_path_factory.mktemp("exported") / "model", int8)

    return make
