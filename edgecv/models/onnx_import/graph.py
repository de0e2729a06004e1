"""From the nodes of a checked ONNX file to a torch.fx graph, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from onnx import GraphProto, NodeProto, numpy_helper
from torch import fx
from torch.fx import GraphModule, Node

from edgecv.errors import ModelError
from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.fold import attributes_of, constant_of, evaluate
from edgecv.models.onnx_import.ops import OPS
from edgecv.models.onnx_import.read import OnnxFile
from edgecv.models.onnx_import.values import Call, Constant, Value

__all__ = ["Imported", "build_graph"]

_OWN_DOMAINS = ("", "ai.onnx")
_POST_PROCESSING = ("NonMaxSuppression", "RoiAlign", "NonZero", "Unique", "Loop", "Scan", "If", "SequenceAt")


class Imported:
    """The graph so far: the value of every ONNX name."""

    def __init__(self, file: OnnxFile) -> None:
        batch, *rest = file.shape
        shape = (batch, rest[2], *rest[:2]) if file.channels_last else file.shape
        self.file = file
        self.builder = Builder(shape)
        self.values: dict[str, Value] = {}
        picture: Node = self.builder.input
        if file.channels_last:
            picture = self.builder.fn(torch.permute, picture, (0, 2, 3, 1))
        self.values[file.input_name] = picture

    def take(self, graph: GraphProto) -> None:
        """Add all of ``graph`` (the file's own, or a branch whose condition is known)."""
        for tensor in graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)
        for node in graph.node:
            made = self._convert(node)
            self.values.update({name: value for name, value in zip(node.output, made, strict=False) if name})

    def finish(self) -> GraphModule:
        """The module; one output is a tensor, several are a tuple."""
        builder = self.builder
        builder.call = None
        results = []
        for name in self.file.output_names:
            value = self.values.get(name)
            if value is None:
                raise ModelError(f"{self.file.path}: output {name!r} is made by no node")
            results.append(builder.buffer(value, name) if isinstance(value, np.ndarray) else value)
        builder.graph.output(results[0] if len(results) == 1 else tuple(results))
        module = GraphModule(builder.root, builder.graph, class_name="OnnxModel")
        module.meta["output_names"] = self.file.output_names
        return module

    def _convert(self, node: NodeProto) -> Sequence[Value]:
        name = node.name or f"{node.op_type}_{node.output[0]}"
        if node.domain not in _OWN_DOMAINS:
            raise ModelError(self._unsupported(node, name))
        inputs = tuple(self._input(item, node, name) for item in node.input)
        if node.op_type == "Constant":
            return [constant_of(node)]
        if node.op_type in ("Shape", "Size") and isinstance(inputs[0], Node):
            return [self._shape(node, inputs[0])]
        fixed = [item for item in inputs if item is None or isinstance(item, np.ndarray)]
        if node.op_type == "If" and isinstance(inputs[0], np.ndarray):
            return self._branch(node, bool(inputs[0].reshape(-1)[0]))
        if len(fixed) == len(inputs) and not node.op_type.startswith("Random"):
            opsets = self.file.model.opset_import
            return evaluate(node, fixed, opsets=opsets, ir_version=self.file.model.ir_version)
        if node.op_type not in OPS:
            raise ModelError(self._unsupported(node, name))
        outputs = tuple(node.output)
        while outputs and not outputs[-1]:
            outputs = outputs[:-1]
        call = Call(name, node.op_type, inputs, tuple(node.input), outputs, self.file.opset, attributes_of(node))
        self.builder.call = call
        try:
            made = OPS[node.op_type](self.builder, call)
        except ModelError as error:
            raise ModelError(f"{self.file.path}: {error}") from error
        except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.file.path}: {node.op_type} of node {name!r} is not as the ONNX standard has it ({error!r}); "
                "export the model again"
            ) from error
        return [made] if isinstance(made, (Node, np.ndarray)) else made

    def _input(self, item: str, node: NodeProto, name: str) -> Value | None:
        if not item:
            return None
        if item not in self.values:
            raise ModelError(f"{self.file.path}: {node.op_type} of node {name!r} reads {item!r}, which no node makes")
        return self.values[item]

    def _shape(self, node: NodeProto, value: Node) -> Constant:
        shape = np.asarray(self.builder.shape(value), dtype=np.int64)
        if node.op_type == "Size":
            return np.asarray(shape.prod())
        given = attributes_of(node)
        return shape[given.get("start", 0) : given.get("end", len(shape))]

    def _branch(self, node: NodeProto, condition: bool) -> Sequence[Value]:
        branch: GraphProto = attributes_of(node)["then_branch" if condition else "else_branch"]
        self.take(branch)
        return [self.values[item.name] for item in branch.output]

    def _unsupported(self, node: NodeProto, name: str) -> str:
        op = node.op_type if node.domain in _OWN_DOMAINS else f"{node.domain}.{node.op_type}"
        others = sorted(_unknown(self.file.model.graph.node) - {node.op_type})
        more = f"; also not supported where they read the picture: {', '.join(others)}" if others else ""
        advice = " Export the model again with standard operators."
        if node.op_type in _POST_PROCESSING:
            advice = " Export the network without its post-processing: edgecv's families decode raw outputs."
        near = get_close_matches(node.op_type, OPS, n=1, cutoff=0.8)
        hint = f" (did you mean {near[0]}?)" if near and node.domain in _OWN_DOMAINS else ""
        return f"{self.file.path}: operator {op}{hint} of node {name!r} is not supported{more}.{advice}"


def _unknown(nodes: Iterable[NodeProto]) -> set[str]:
    folded = {"Constant", "ConstantOfShape", "EyeLike", "If", "Range", "Shape", "Size"}
    return {node.op_type for node in nodes if node.op_type not in OPS and node.op_type not in folded}


def build_graph(file: OnnxFile) -> tuple[GraphModule, dict[str, fx.Node], str]:
    """The module of ``file``, the node of every ONNX name that is computed, and why larger batches fail ("" if not).

    Raises:
        ModelError: an operator is not supported or cannot be computed; its node is named.
    """
    imported = Imported(file)
    imported.take(file.model.graph)
    made = {name: value for name, value in imported.values.items() if isinstance(value, Node)}
    module = imported.finish()
    twins = dict(zip(imported.builder.graph.nodes, module.graph.nodes, strict=True))
    module.graph.eliminate_dead_code()
    module.recompile()
    alive = set(module.graph.nodes)
    kept = {name: twins[node] for name, node in made.items() if twins[node] in alive}
    return module, kept, imported.builder.batch_note
