"""Export of graphs to ONNX files, in float32, float16 and int8."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from summarymix.data.skipped import described
from summarymix.export.graphs import Graph

OPSET = 20  # torch's default; sherpa-onnx 2.0 reads up to 26
LAST_IR_VERSION = 10  # sherpa-onnx 2.0 reads up to 13, older versions less
Precision = Literal["fp32", "int8", "fp16"]
# Operators between a sum over time and the division of a mean
OF_MEANS = {"ReduceSum", "CumSum", "Add", "Sub", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Max",
            "Clip", "Div"}  # fmt: skip
ENDINGS: dict[Precision, str] = {"fp32": ".onnx", "int8": ".int8.onnx", "fp16": ".fp16.onnx"}


def check_installed(*packages: str) -> None:
    """Check that packages are installed, without importing them; by default those that an export needs.

    Raises:
        ImportError: one is missing; the message has the command that installs all of them.
    """
    packages = packages or ("onnx", "onnxruntime", "onnxscript")  # torch's exporter is made of the last one
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ImportError(f"{', '.join(missing)} is not installed: pip install {' '.join(packages)}")


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file.

    This uses torch.export: the older exporter, which traces, silently exports a wrong graph of the convolutions.
    """
    check_installed()
    import onnx

    axes = {name: torch.export.Dim(name) for name in ("N", "T")}
    shapes = tuple({axis: axes[size] for axis, size in graph.dynamic[name].items()} for name in graph.inputs)
    with torch.no_grad(), _quiet():
        program = torch.export.export(graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output):
        _name_axes(value, graph)
    onnx.helper.set_model_props(model, graph.metadata)
    onnx.save(model, path)


def _name_axes(value: "onnx.ValueInfoProto", graph: Graph) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Replace torch's names of dynamic axes: inputs as in ``graph.dynamic``, outputs by position."""
    for i, axis in enumerate(value.type.tensor_type.shape.dim):
        if axis.dim_param:
            axis.dim_param = graph.dynamic.get(value.name, {}).get(i, f"{value.name}_{i}")


def convert(graph: Graph, source: Path, target: Path, precision: Precision) -> None:
    """Write a graph's ONNX file of another precision than float32. Inputs, outputs and states stay in float32.

    Args:
        graph: the graph.
        source: its ONNX file in float32.
        target: the file to write.
        precision: precision of that file.
    """
    import onnx

    with _quiet():
        model = _quantized(source) if precision == "int8" else _halved(source)
    onnx.helper.set_model_props(model, graph.metadata)
    onnx.save(model, target)


def _halved(source: Path) -> "onnx.ModelProto":  # type: ignore[name-defined]  # noqa: F821
    """Convert an ONNX file to float16. Means over time stay in float32, because sums of many frames exceed float16."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    original = onnx.load(source)
    of_means = _of_means(original.graph.node)
    halved = convert_float_to_float16(original, keep_io_types=True, node_block_list=of_means)
    # The converter casts every value between two such nodes to float16 and back.
    kept = {output for node in halved.graph.node if node.name in of_means for output in node.output}
    casts = [node for node in halved.graph.node if node.op_type == "Cast"]
    narrowed = {node.output[0]: node.input[0] for node in casts if node.input[0] in kept}
    for node in casts:
        if node.input[0] in narrowed:
            node.op_type, node.input[0] = "Identity", narrowed[node.input[0]]
            del node.attribute[:]
    model = OnnxModel(halved)
    model.topological_sort()  # the converter appends the casts of inputs
    return model.model


def _of_means(nodes: Sequence["onnx.NodeProto"]) -> list[str]:  # type: ignore[name-defined]  # noqa: F821
    """Names of the nodes from each sum to the division by its count."""
    chain = [node for node in nodes if node.op_type in OF_MEANS]
    summed, divided = set[str](), set[str]()  # values computed from a sum, and values of which a quotient is computed
    for node in chain:  # in the order of computation
        if node.op_type in ("ReduceSum", "CumSum") or (summed.intersection(node.input) and node.op_type != "Div"):
            summed.update(node.output)
    for node in reversed(chain):
        if node.op_type == "Div" or divided.intersection(node.output):
            divided.update(node.input)
    between = summed & divided
    return [node.name for node in chain if between.intersection(node.output if node.op_type != "Div" else node.input)]


def _quantized(source: Path) -> "onnx.ModelProto":  # type: ignore[name-defined]  # noqa: F821
    """Convert the weights of matrix products, and of embeddings, in an ONNX file to int8.

    Activations are quantised dynamically, so no calibration is needed. Convolutions stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        folded, quantized = Path(folder, "folded.onnx"), Path(folder, "quantized.onnx")
        # Only initializers are quantised: fold the halves of the combiner's matrix, which the graph computes.
        quant_pre_process(source, folded, skip_symbolic_shape=True)
        quantize_dynamic(folded, quantized, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"])
        model = onnx.load(quantized)
    used = {node.domain for node in model.graph.node}
    versions = [version for version in model.opset_import if version.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(versions)  # older programs may not have the unused domains
    return model


def load_onnx(path: Path, num_threads: int | None = None) -> Callable[..., list[Tensor]]:
    """Load an ONNX file as a function of its inputs, in order. This needs ONNX Runtime alone.

    Args:
        path: the file.
        num_threads: CPU threads; None: as many as PyTorch uses.
    """
    session = _session(path, num_threads)
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        values = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, values)]

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata that :func:`write_onnx` stored. This needs ONNX Runtime alone."""
    return _session(path, 1, is_optimized=False).get_modelmeta().custom_metadata_map


def _session(path: Path, num_threads: int | None = None, is_optimized: bool = True) -> Any:
    """Open an ONNX file in ONNX Runtime.

    Raises:
        ValueError: this is impossible.
    """
    check_installed("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads or torch.get_num_threads()
    # Threads that spin while they wait take the CPUs from the other graphs' threads and from PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions have no base class of their own.
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot open {path} ({described(error)}): export the model again") from error


def check_file(graph: Graph, path: Path) -> None:
    """Compare a file's inputs, outputs and metadata with the graph's.

    Raises:
        RuntimeError: the file differs from the graph.
    """
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model)
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    expected = list(graph.inputs), list(graph.outputs)
    if names != expected:
        raise RuntimeError(f"{path} has the inputs and outputs {names}, expected {expected}")
    for value in model.graph.input:
        example = graph.inputs[value.name]
        element = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        wanted = [graph.dynamic[value.name].get(i, size) for i, size in enumerate(example.shape)]
        if element != example.numpy().dtype or axes != wanted:
            raise RuntimeError(f"{path}: {value.name} is {element} {axes}, expected {example.numpy().dtype} {wanted}")
    if missing := graph.metadata.items() - {(item.key, item.value) for item in model.metadata_props}:
        raise RuntimeError(f"{path} lacks the metadata {dict(missing)}")
    if model.ir_version > LAST_IR_VERSION:
        raise RuntimeError(
            f"{path} has IR version {model.ir_version}, above {LAST_IR_VERSION}: use another version of onnx"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of the exporters."""
    loggers = [logging.getLogger(name) for name in (None, "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
