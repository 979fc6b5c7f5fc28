"""Exports of tiny models, made once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from export_cases import export, make_model
from filelock import FileLock

from summarymix.chunking import ChunkConfig

Exported = Callable[[str, str, ChunkConfig], Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(encoder, format, chunk) to the folder of such an export of ``make_model(encoder)``. Making one takes seconds."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder is one of its own in that of all workers
        shared = shared.parent

    def make(encoder: str, format: str, chunk: ChunkConfig) -> Path:
        folder = shared / f"exported-{encoder}-{format}-{chunk.chunk_size}-{chunk.left_chunks}-{chunk.lookahead}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                int8 = (encoder, format) == ("conformer", "onnx-streaming")
                export(make_model(encoder), format, chunk, folder, int8)
        return folder

    return make
