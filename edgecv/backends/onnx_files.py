"""Reading, converting and describing ONNX files on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.common import layout_of, quiet, static_shape
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ArtifactError, ToolchainError


def read(path: Path) -> Any:
    """The ONNX model (ModelProto) of ``path``, checked by onnx, without what exporters note down for people.

    Raises:
        ArtifactError: not an ONNX file, or not a valid one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, DecodeError, OSError) as error:
        raise ArtifactError(f"{path} is not a valid ONNX file ({error}); export the model again") from error
    strip_notes(model)
    return model


def strip_notes(model: Any) -> None:
    """Remove what exporters note down for people (source lines, paths, versions), in place: no engine reads it."""
    graph = model.graph
    model.ClearField("metadata_props")
    for name in ("doc_string", "producer_version"):
        model.ClearField(name)
    parts = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        parts += [function, *function.node]
    for item in parts:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def specs(model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of ``model``.

    Raises:
        UsageError: a length is open.
    """
    import onnx

    def spec(value: Any) -> TensorSpec:
        kind = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        lengths = [item.dim_value if item.HasField("dim_value") else item.dim_param for item in kind.shape.dim]
        shape = static_shape(value.name, lengths)
        return TensorSpec(value.name, shape, dtype, layout_of(shape))

    weights = {item.name for item in model.graph.initializer}
    inputs = tuple(spec(value) for value in model.graph.input if value.name not in weights)
    return inputs, tuple(spec(value) for value in model.graph.output)


def to_float16(model: Any, log: Path) -> Any:
    """``model`` with float16 weights and computation; inputs and outputs stay float32.

    Raises:
        ToolchainError: the converter refuses the graph.
    """
    with quiet(log):
        from onnxruntime.transformers.float16 import convert_float_to_float16

        try:
            half = convert_float_to_float16(model, keep_io_types=True)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise ToolchainError(f"the float16 conversion failed ({error}); see {log}") from error
    _sort_nodes(half.graph)
    return half


def _sort_nodes(graph: Any) -> None:
    """Put every node behind those that make its inputs, as ONNX demands; the converter appends its casts."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    order: list[int] = []
    placed: set[int] = set()
    waiting = list(range(len(graph.node) - 1, -1, -1))
    while waiting:
        index = waiting[-1]
        needed = [makers[name] for name in graph.node[index].input if name in makers and makers[name] not in placed]
        if needed and index not in placed:
            waiting.extend(reversed(needed))
            continue
        waiting.pop()
        if index not in placed:
            placed.add(index)
            order.append(index)
    nodes = [graph.node[index] for index in order]
    copies = [type(node)() for node in nodes]
    for node, copy in zip(nodes, copies, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def lower_opset(model: Any, newest: int, log: Path) -> Any:
    """``model`` in an opset of at most ``newest``; the same model where it is already.

    Raises:
        ToolchainError: an operator of the graph does not exist in that opset.
    """
    import onnx

    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset <= newest:
        return model
    for node in model.graph.node:
        # Reductions: the attribute's default, which the converter would carry into opsets without it.
        kept = [item for item in node.attribute if item.name != "noop_with_empty_axes" or item.i != 0]
        del node.attribute[:]
        node.attribute.extend(kept)
    with quiet(log):
        try:
            lowered = onnx.version_converter.convert_version(model, newest)
            onnx.checker.check_model(lowered, full_check=True)
        except (RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ToolchainError(
                f"the graph cannot be brought from ONNX opset {opset} to {newest} ({error})"
            ) from error
    return lowered
