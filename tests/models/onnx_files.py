"""Tiny ONNX files for the tests of the importer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, helper, numpy_helper

HEIGHT, WIDTH = 8, 12
SHAPE = (1, 3, HEIGHT, WIDTH)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; names are separated by blanks, "-" stands for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    domain = attributes.pop("domain", "")
    return helper.make_node(
        op, names, outputs.split(), name=f"the_{op.lower()}_{outputs.split()[0]}", domain=domain, **attributes
    )


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    shape: Sequence[int | str] = SHAPE,
    outputs: Sequence[str] = ("y",),
    kind: int = onnx.TensorProto.FLOAT,
) -> Path:
    """Write a model from input "x" to ``outputs``."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    domains = {item.domain for item in nodes if item.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
        output.type.tensor_type.elem_type = output.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
        if not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.SetInParent()
            output.type.tensor_type.shape.dim.add()
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path, picture: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime gives on ``picture``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(item) for item in session.run(None, {"x": picture})]


def weights(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Random float32 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
