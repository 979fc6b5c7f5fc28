"""Exports of tiny models, made once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from export_cases import export, make_model
from filelock import FileLock

from summarymix.chunking import ChunkConfig

Exported = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(encoder, format, *chunks) to the folder of such an export of ``make_model(encoder)``. Making one takes seconds.

    Of streaming Conformers with a limited left context there are files in all precisions.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder is one of its own in that of all workers
        shared = shared.parent

    def make(encoder: str, format: str, *chunks: ChunkConfig) -> Path:
        sizes = "-".join(f"{chunk.chunk_size}_{chunk.left_chunks}_{chunk.lookahead}" for chunk in chunks)
        folder = shared / f"exported-{encoder}-{format}-{sizes}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                has_all = (encoder, format) == ("conformer", "onnx-streaming") and chunks[0].left_chunks >= 0
                export(make_model(encoder), format, chunks, folder, *(("int8", "fp16") if has_all else ()))
        return folder

    return make
