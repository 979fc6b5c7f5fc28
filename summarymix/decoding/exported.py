"""Decoding with exported models: their settings, and the measured figures in the README of their folder."""

from pathlib import Path

from summarymix.decoding.evaluate import DecodeSetting
from summarymix.export.onnx import Precision
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.export.readme import Measured, describe
from summarymix.files import atomic_write
from summarymix.scoring.results import read_results


def exported_settings(model: OnnxTransducer) -> list[DecodeSetting]:
    """The settings of the encoders."""
    chunks = model.encoder.chunks
    return [DecodeSetting("offline" if chunk.chunk_size is None else "streaming", chunk) for chunk in chunks]


def exported_label(precision: Precision) -> str:
    """What names of methods end with in results of exported files."""
    return "-onnx" if precision == "fp32" else f"-onnx-{precision}"


def describe_measured(model: OnnxTransducer, results: Path) -> Path:
    """Write the README of an exported model anew, with the results of greedy search in ``results``, a results.jsonl.

    Returns:
        The README.
    """
    about = model.about()
    measured: dict[tuple[str, Precision], Measured] = {}
    methods = {"greedy_search" + exported_label(precision): precision for precision in about.precisions}
    for result in read_results(results):
        if result.search not in methods or (result.epoch, result.avg) != (model.epoch, model.avg):
            continue
        values = result.chunk_ms, result.left_chunks, result.lookahead_ms
        for encoder in about.encoders:
            if values == (encoder.chunk.chunk_ms, encoder.chunk.left_chunks, encoder.chunk.lookahead_ms):
                earlier = measured.get((encoder.name, methods[result.search]))
                rates = (earlier.rates if earlier else {}) | {f"{result.metric.upper()} % {result.split}": result.rate}
                measured[encoder.name, methods[result.search]] = Measured(rates, result.rtf * result.threads)
    readme = model.folder / "README.md"
    with atomic_write(readme) as file:
        file.write(describe(about, measured))
    return readme
