"""Decoding with exported models: their settings, and the measured figures in the README of their folder."""

from pathlib import Path

from summarymix.decoding.evaluate import DecodeSetting
from summarymix.export.onnx import Precision
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.export.readme import BEGIN, END, Measured, table
from summarymix.files import atomic_write
from summarymix.scoring.results import read_results


def exported_settings(model: OnnxTransducer) -> list[DecodeSetting]:
    """The settings of the encoders."""
    chunks = model.encoder.chunks
    return [DecodeSetting("offline" if chunk.chunk_size is None else "streaming", chunk) for chunk in chunks]


def exported_label(precision: Precision) -> str:
    """Ending of the names of methods in results of exported files."""
    return "-onnx" if precision == "fp32" else f"-onnx-{precision}"


def describe_measured(model: OnnxTransducer, results: Path) -> str:
    """Write the results of greedy search in ``results``, a results.jsonl, into the table of an export's README. Exports
    by earlier versions do not say which model they are of; theirs are those of the same epoch and average.

    Returns:
        The README's path, or a sentence that says why it was left as it is.
    """
    about = model.about()
    measured: dict[tuple[str, Precision], Measured] = {}
    for result in read_results(results):
        if model.digest not in (None, result.model):
            continue
        for encoder in about.encoders:
            chunk = encoder.chunk
            key = result.search, result.epoch, result.avg, result.chunk_ms, result.left_chunks, result.lookahead_ms
            method = "greedy_search" + exported_label(encoder.precision)
            if key == (method, model.epoch, model.avg, chunk.chunk_ms, chunk.left_chunks, chunk.lookahead_ms):
                earlier = measured.get((encoder.name, encoder.precision))
                rates = (earlier.rates if earlier else {}) | {f"{result.metric.upper()} % {result.split}": result.rate}
                rtf = result.rtf if result.threads == 1 else (earlier.rtf if earlier else None)
                measured[encoder.name, encoder.precision] = Measured(rates, rtf)
    readme = model.folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return f"{readme} has no table of encoders, so it is left as it is"
    with atomic_write(readme) as file:
        file.write(before + table(about, measured) + after)
    return str(readme)
