"""Writes small Q/DQ networks node by node, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SIZE = 16


@dataclass
class GraphWriter:
    """Collects nodes and constants of an ONNX graph."""

    nodes: list[Any]
    constants: dict[str, np.ndarray]
    dtype: Any = np.int8
    zero: int = 0

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def activation(self, name: str, scale: float) -> str:
        """A Q/DQ pair behind the tensor ``name``; gives the name of the dequantised tensor."""
        self.constants[f"{name}_s"] = np.float32(scale)
        self.constants[f"{name}_z"] = self.dtype(self.zero)
        ends = [f"{name}_s", f"{name}_z"]
        self.node("QuantizeLinear", [name, *ends], f"{name}_q")
        return self.node("DequantizeLinear", [f"{name}_q", *ends], f"{name}_dq")

    def weight(self, name: str, values: np.ndarray, *, clip: bool = True, axis: int = 0) -> str:
        """A weight as torch exports it unfolded: float, quantised per channel, clipped, dequantised."""
        rest = tuple(index for index in range(values.ndim) if index != axis)
        self.constants[name] = values
        self.constants[f"{name}_s"] = (np.abs(values).max(axis=rest) / 127).astype(np.float32)
        self.constants[f"{name}_z"] = np.zeros(values.shape[axis], np.int8)
        ends = [f"{name}_s", f"{name}_z"]
        stored = self.node("QuantizeLinear", [name, *ends], f"{name}_q", axis=axis)
        if clip:
            self.constants["low"], self.constants["high"] = np.int8(-127), np.int8(127)
            stored = self.node("Clip", [stored, "low", "high"], f"{name}_c")
        return self.node("DequantizeLinear", [stored, *ends], f"{name}_dq", axis=axis)

    def model(self) -> Any:
        from onnx import TensorProto, helper, numpy_helper

        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits_dq", TensorProto.FLOAT, [1, 10])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def write_network(writer: GraphWriter, *, clip: bool = True) -> GraphWriter:
    """conv-relu, conv with a residual, pooling, linear: every place that quantisation rules speak of."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)  # noqa: E731
    image = writer.activation("image", 1 / 127)
    writer.constants.update(b1=draw(8), b2=draw(8), b3=draw(10), axes=np.array([2, 3]), flat=np.array([1, 8]))
    writer.node("Conv", [image, writer.weight("w1", draw(8, 3, 3, 3), clip=clip), "b1"], "y1", pads=[1, 1, 1, 1])
    first = writer.activation(writer.node("Relu", ["y1"], "r1"), 0.03)
    writer.node("Conv", [first, writer.weight("w2", draw(8, 8, 3, 3), clip=clip), "b2"], "y2", pads=[1, 1, 1, 1])
    writer.node("Add", [writer.activation("y2", 0.06), first], "sum")
    last = writer.activation(writer.node("Relu", ["sum"], "r2"), 0.06)
    pooled = writer.node("ReduceMean", [last, "axes"], "mean", keepdims=0, noop_with_empty_axes=0)
    writer.node("Reshape", [writer.activation(pooled, 0.03), "flat"], "vector")
    weight = writer.weight("w3", draw(10, 8), clip=clip)
    writer.node("Gemm", [writer.activation("vector", 0.03), weight, "b3"], "logits", transB=1)
    writer.activation("logits", 0.05)
    return writer
