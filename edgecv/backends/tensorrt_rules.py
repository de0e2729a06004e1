"""What TensorRT's explicit quantisation demands of a Q/DQ ONNX graph, checked before the board sees it.

Rules: TensorRT documentation, "Working with Quantized Types" (symmetric int8 only, per tensor for
activations, per output channel for weights) and its advice where Q/DQ pairs stand (none between a
convolution and its ReLU, or the two cannot be fused). Other activation functions may have a pair in
front: LiteRT's int8 kernels need it there, and all targets compute the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.onnx_qdq import DQ, Links, Q, axis_of, links, zero_point

_CLAMPS = ("Relu", "Clip")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def problems(model: Any) -> list[str]:
    """What TensorRT would refuse or not run in int8 in ``model`` (an onnx ModelProto), by node name.

    Empty when all rules hold; weights may be folded or not.
    """
    graph = links(model)
    found: list[str] = []
    for node in model.graph.node:
        if node.op_type in (Q, DQ):
            found += _scheme(node, graph)
        if node.op_type == Q:
            found += _between(node, graph)
        if node.op_type in _CLAMPS:
            found += _split_from_layer(node, graph)
    return found


def _name(node: Any) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"


def _weight(node: Any, graph: Links) -> bool:
    """Whether a Q or DQ node works on a constant, perhaps through a Q node and its Clip."""
    if node.input[0] in graph.constants:
        return True
    made_by = graph.maker.get(node.input[0])
    return made_by is not None and made_by.op_type in (Q, "Clip") and _weight(made_by, graph)


def _scheme(node: Any, graph: Links) -> list[str]:
    zero, scale = zero_point(node, graph.constants), graph.constants.get(node.input[1])
    if zero is None or scale is None:
        return [f"{_name(node)}: scale and zero point must be constants"]
    if node.op_type == DQ and zero.dtype == np.int32:
        return []  # a bias; TensorRT reads it as float
    found = []
    if zero.dtype != np.int8:
        found.append(f"{_name(node)}: stores {zero.dtype}; TensorRT takes int8 only (use scheme: portable)")
    if np.any(zero != 0):
        value = int(zero.flat[np.flatnonzero(zero)[0]])
        found.append(f"{_name(node)}: zero point {value}; TensorRT takes 0 only (use scheme: portable)")
    if scale.size > 1 and not _weight(node, graph):
        found.append(f"{_name(node)}: {scale.size} scales on an activation; TensorRT takes one per tensor")
    if node.op_type == DQ and scale.size > 1:
        found += _channel_axis(node, graph)
    return found


def _channel_axis(node: Any, graph: Links) -> list[str]:
    """A weight's scales must run along the output channels of the layer that reads it."""
    found = []
    for reader in graph.readers.get(node.output[0], []):
        if reader.op_type not in _WEIGHTED or len(reader.input) < 2 or reader.input[1] != node.output[0]:
            continue
        transposed = any(item.name == "transB" and item.i for item in reader.attribute)
        wanted = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if transposed else 1}.get(reader.op_type)
        if wanted is not None and axis_of(node) != wanted:
            found.append(f"{_name(node)}: scales along axis {axis_of(node)}; {_name(reader)} needs axis {wanted}")
    return found


def _between(node: Any, graph: Links) -> list[str]:
    """Nothing may change quantised values between Q and DQ."""
    readers = graph.readers.get(node.output[0], [])
    return [
        f"{_name(reader)} works on the quantised values of {_name(node)}; TensorRT has no int8 Clip: fold the weights"
        for reader in readers
        if reader.op_type == "Clip"
    ]


def _split_from_layer(node: Any, graph: Links) -> list[str]:
    """A Q/DQ pair between a layer and the clamp behind it keeps the two from being fused."""
    dequantize = graph.maker.get(node.input[0])
    if dequantize is None or dequantize.op_type != DQ:
        return []
    quantize = graph.maker.get(dequantize.input[0])
    if quantize is None or quantize.op_type != Q:
        return []
    layer = graph.maker.get(quantize.input[0])
    if layer is None or layer.op_type not in _WEIGHTED:
        return []
    if len(graph.readers.get(quantize.input[0], [])) + len(graph.readers.get(dequantize.output[0], [])) > 2:
        return []  # the quantised value is needed elsewhere too
    return [
        f"{_name(quantize)} stands between {_name(layer)} and {_name(node)}; they cannot be fused: quantise behind it"
    ]
