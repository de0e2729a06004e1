"""Values that do not depend on the picture, computed once by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgecv.errors import ModelError
from edgecv.models.onnx_import.values import Constant

__all__ = ["attributes_of", "constant_of", "evaluate", "session"]

_QUIET = 4


def session(model: onnx.ModelProto, *, plain: bool = False) -> Any:
    """An ONNX Runtime session on the CPU that prints nothing; ``plain`` leaves the graph as it stands.

    Raises:
        RuntimeError: (or a kin of it) ONNX Runtime refuses the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def evaluate(
    node: NodeProto, inputs: Sequence[Constant | None], *, opsets: Sequence[onnx.OperatorSetIdProto], ir_version: int
) -> list[Constant]:
    """The outputs of one node on constants.

    Raises:
        ModelError: ONNX Runtime cannot compute it.
    """
    feeds, values = {}, []
    for name, value in zip(node.input, inputs, strict=True):
        if value is not None and name not in feeds:
            feeds[name] = value
            values.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            )
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", values, outputs)
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=ir_version)
    try:
        made = session(model, plain=True).run(None, feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise ModelError(
            f"{node.op_type} of node {node.name or node.output[0]!r}: ONNX Runtime cannot compute it "
            f"({str(error).strip().splitlines()[0][:200]})"
        ) from error
    found = iter(np.asarray(item) for item in made)
    return [next(found) if name else np.empty(0) for name in node.output]


def constant_of(node: NodeProto) -> Constant:
    """The value of a Constant node."""
    found = attributes_of(node)
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in found:
            return np.asarray(found[name], dtype=kind)
    for name in ("value_int", "value_ints"):
        if name in found:
            return np.asarray(found[name], dtype=np.int64)
    if "value" not in found:
        raise ModelError(f"Constant of node {node.name or node.output[0]!r}: only numbers are supported")
    return np.asarray(found["value"])


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Attributes as Python values: text for bytes, arrays for tensors."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        elif isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        found[attribute.name] = value
    return found
