"""Reading an ONNX file that is to become a torch module: whole, float, with one picture as its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edgecv.core.contract import InputContract
from edgecv.errors import ModelError
from edgecv.models.onnx_file import fix_input

__all__ = ["OnnxFile", "read_onnx"]

MIN_OPSET = 7
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class OnnxFile:
    """A checked model: ``model`` with weights inside, all float32, and the input's lengths set (batch 1).

    ``shape`` is the input's `(1, C, H, W)`, or `(1, H, W, C)` where ``channels_last``.
    """

    path: Path
    model: ModelProto
    opset: int
    input_name: str
    shape: tuple[int, ...]
    channels_last: bool
    output_names: tuple[str, ...]


def read_onnx(path: Path, contract: InputContract) -> OnnxFile:
    """Read ``path`` and bring its one input to batch 1 and the size of ``contract``.

    Weights in files of their own are read from the folder of ``path`` only. Weights in float16 are
    brought to float32, functions of the model are put in place of their calls.

    Raises:
        ModelError: no valid ONNX file, too old, quantised, without exactly one picture as its input, or
            with a fixed size that is not the contract's.
    """
    model = _load(path)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise ModelError(f"{path} has opset {opset}; {MIN_OPSET} or newer is needed. Export the model again.")
    _refuse_quantised(path, model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _to_float32(model)
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if len(inputs) != 1:
        found = ", ".join(item.name for item in inputs) or "none"
        raise ModelError(f"{path} has the inputs {found}; a picture model has exactly one")
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
        raise ModelError(
            f"{path}: input {inputs[0].name!r} is {kind}; a float input is needed. Export without the cast."
        )
    shape, last = fix_input(path, inputs[0], contract)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    names = tuple(item.name for item in model.graph.output)
    return OnnxFile(path, model, opset, inputs[0].name, shape, last, names)


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
        _check_external(path, model)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, TypeError) as error:
        lines = str(error).strip().splitlines()
        raise ModelError(f"{path} is not a valid ONNX file ({lines[0] if lines else error!r})") from error
    if not model.graph.node:
        raise ModelError(f"{path} has no nodes; it is empty or damaged")
    return model


def _check_external(path: Path, model: ModelProto) -> None:
    """A file must not make us read outside its own folder."""
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            place = (folder / entry.value).resolve()
            if not place.is_relative_to(folder):
                raise ModelError(f"{path} keeps weight {tensor.name!r} in {entry.value!r}, outside its folder; refused")
            if not place.is_file():
                raise ModelError(
                    f"{path} keeps weights in {entry.value!r}, which is not there; copy it beside the model"
                )


def _refuse_quantised(path: Path, model: ModelProto) -> None:
    for node in _nodes(model.graph):
        if node.op_type in _QUANTISED or node.op_type.startswith("QLinear"):
            raise ModelError(
                f"{path} is quantised ({node.op_type} of node {node.name or node.output[0]!r}); a quantised file can "
                "not be pruned, trained or quantised again. Use the float model that it was made from."
            )


def _to_float32(model: ModelProto) -> None:
    """Bring half-precision weights, casts and declared types to float32, in place."""
    for tensor in _tensors(model.graph):
        if tensor.data_type in _HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            if node.op_type in ("Cast", "CastLike") and attribute.name == "to" and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _HALF:
                value.type.tensor_type.elem_type = TensorProto.FLOAT


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those inside its nodes (branches)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for part in _graphs(graph):
        yield from part.node


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for part in _graphs(graph):
        yield from part.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
