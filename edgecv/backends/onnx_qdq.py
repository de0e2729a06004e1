"""Exact rewrites of a Q/DQ ONNX graph into the form that an engine runs fast.

None of them changes a number that the graph computes:

* `fold_weights` does the quantisation of constant weights now. OpenVINO runs a convolution in int8
  only when its weights are stored as int8.
* `drop_zero_points` leaves out zero points that are 0.
* `to_uint8` moves activations from int8 with zero point z to uint8 with zero point z + 128. ONNX
  Runtime's x86 kernels for signed activations are about ten times slower, and the pass that it has for
  this leaves part of the graph in float and breaks some models.
* `join_silu` writes SiLU as one node, which ONNX Runtime would not find again between Q and DQ nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv.core.tensor import Array

Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass
class Links:
    """A graph's constants, and who makes and who reads each value."""

    constants: dict[str, Array]
    maker: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, list[Any]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


def links(model: Any) -> Links:
    """Links of ``model``'s main graph (an onnx ModelProto)."""
    from onnx import numpy_helper

    graph = model.graph
    found = Links({item.name: numpy_helper.to_array(item) for item in graph.initializer})
    found.outputs = {value.name for value in graph.output}
    for node in graph.node:
        for name in node.output:
            found.maker[name] = node
        for name in node.input:
            found.readers.setdefault(name, []).append(node)
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            found.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def axis_of(node: Any) -> int:
    """Channel axis of a QuantizeLinear or DequantizeLinear node (default 1, as the standard says)."""
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 1)


def zero_point(node: Any, constants: Mapping[str, Array]) -> Array | None:
    """Zero point of a Q or DQ node where it is a constant; absent means uint8 zero."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros((), np.uint8)
    return constants.get(node.input[2])


def fold_weights(model: Any) -> int:
    """Replace Quantize(constant) [-> Clip] by the quantised constant, in place.

    Returns:
        How many weights were folded.
    """
    from onnx import numpy_helper

    graph, found = model.graph, links(model)
    made: dict[str, Array] = {}
    gone, folded = [], 0
    for node in graph.node:
        if node.op_type == Q and node.input[0] in found.constants:
            value = _quantised(node, found.constants)
        elif node.op_type == "Clip" and node.input[0] in made:
            value = _clipped(node, {**found.constants, **made})
        else:
            continue
        if value is not None and node.output[0] not in found.outputs:
            made[node.output[0]] = value
            gone.append(node)
            folded += node.op_type == Q
    for node in gone:
        graph.node.remove(node)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made.items())
    drop_unused(graph)
    return folded


def _quantised(node: Any, constants: Mapping[str, Array]) -> Array | None:
    scale, zero = constants.get(node.input[1]), zero_point(node, constants)
    weights = constants[node.input[0]]
    if scale is None or zero is None or zero.dtype not in (np.int8, np.uint8) or scale.ndim > 1:
        return None
    if scale.ndim == 1:
        shape = [1] * weights.ndim
        shape[axis_of(node)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    limits = np.iinfo(zero.dtype)
    stored: Array = np.clip(np.rint(weights / scale) + zero, limits.min, limits.max).astype(zero.dtype)
    return stored


def _clipped(node: Any, constants: Mapping[str, Array]) -> Array | None:
    value = constants[node.input[0]]
    names = [name for name in node.input[1:] if name]
    if len(names) != 2 or any(name not in constants for name in names):
        return None
    clipped: Array = np.clip(value, constants[names[0]], constants[names[1]]).astype(value.dtype)
    return clipped


def drop_unused(graph: Any) -> None:
    """Take away constants and Constant nodes that nobody reads, in place."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for items in (graph.initializer, graph.value_info):
        kept = [item for item in items if item.name in used]
        del items[:]
        items.extend(kept)
    idle = [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]
    for node in idle:
        graph.node.remove(node)


def drop_zero_points(model: Any) -> int:
    """Leave out zero points that are 0, in place: OpenVINO makes five layers of each, and its file a third larger.

    Q nodes name their type instead, which needs opset 21; below it only DQ nodes are changed.

    Returns:
        How many were left out.
    """
    from onnx import TensorProto, helper

    found, dropped = links(model), 0
    newest = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
    types = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}
    for node in model.graph.node:
        zero = found.constants.get(node.input[2]) if node.op_type in (Q, DQ) and len(node.input) == 3 else None
        if zero is None or zero.any() or zero.dtype not in types or (node.op_type == Q and newest < 21):
            continue
        del node.input[2]
        if node.op_type == Q:
            node.attribute.append(helper.make_attribute("output_dtype", types[zero.dtype]))
        dropped += 1
    drop_unused(model.graph)
    return dropped


def to_uint8(model: Any) -> int:
    """Move int8 activations to uint8 with the same scales, in place.

    A quantised value is moved where a Q node makes it and only DQ nodes read it.

    Returns:
        How many int8 activations had to be left as they are.
    """
    from onnx import numpy_helper

    graph, found = model.graph, links(model)
    names: dict[str, str] = {}
    moved, left = set(), 0
    for node in graph.node:
        zero = zero_point(node, found.constants) if node.op_type == Q else None
        if zero is None or zero.dtype != np.int8:
            continue
        readers = found.readers.get(node.output[0], [])
        pair = [node, *readers]
        movable = all(item.op_type == DQ and _same_zero(item, zero, found.constants) for item in readers)
        if not movable or node.output[0] in found.outputs:
            left += 1
            continue
        name = names.get(node.input[2])
        if name is None:
            name = names[node.input[2]] = node.input[2] + "_uint8"
            graph.initializer.append(numpy_helper.from_array((zero.astype(np.int16) + 128).astype(np.uint8), name))
        for item in pair:
            item.input[2] = name
            kept = [attribute for attribute in item.attribute if attribute.name != "output_dtype"]
            del item.attribute[:]
            item.attribute.extend(kept)
        moved.add(node.output[0])
    types = [item for item in graph.value_info if item.name not in moved]
    del graph.value_info[:]
    graph.value_info.extend(types)
    drop_unused(graph)
    return left


def join_silu(model: Any) -> int:
    """Write x * Sigmoid(x) of a dequantised x as ONNX Runtime's operator for both (QuickGelu), in place.

    ONNX Runtime joins the two itself in a float graph. Behind a DQ node it first gives each reader a DQ node of
    its own, after which they no longer look joined: YOLOX-nano was 0.8 times as fast as float, and is as fast now.

    Returns:
        How many were joined.
    """
    from onnx import helper

    graph, found, joined = model.graph, links(model), 0
    for place, node in reversed(list(enumerate(graph.node))):
        sources = [found.maker.get(name) for name in node.input] if node.op_type == "Mul" else []
        gates = [item for item in sources if item is not None and item.op_type == "Sigmoid"]
        for gate in gates:
            value, made = gate.input[0], gate.output[0]
            before = found.maker.get(value)
            alone = len(found.readers.get(made, [])) == 1 and made not in found.outputs
            if before is None or before.op_type != DQ or not alone or sorted(node.input) != sorted((value, made)):
                continue
            both = helper.make_node(
                "QuickGelu", [value], [node.output[0]], name=node.name, domain="com.microsoft", alpha=1.0
            )
            graph.node.insert(place, both)
            graph.node.remove(node)
            graph.node.remove(gate)
            joined += 1
            break
    if joined and all(item.domain != "com.microsoft" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return joined


def _same_zero(node: Any, zero: Array, constants: Mapping[str, Array]) -> bool:
    other = zero_point(node, constants)
    return other is not None and other.dtype == zero.dtype and bool(np.array_equal(other, zero))


def clip_behind(model: Any) -> int:
    """Move ReLU and Clip behind the Q node that alone reads them, in place; drops those that have no effect there.

    Returns:
        How many were moved or dropped.
    """
    graph, found = model.graph, links(model)
    moved = 0
    for node in list(graph.node):
        limits = _float_limits(node, found)
        readers = found.readers.get(node.output[0], []) if limits is not None else []
        if limits is None or len(readers) != 1 or readers[0].op_type != Q or node.output[0] in found.outputs:
            continue
        quantize = readers[0]
        scale, zero = found.constants.get(quantize.input[1]), zero_point(quantize, found.constants)
        if scale is None or zero is None or scale.size != 1 or zero.dtype not in (np.int8, np.uint8):
            continue
        quantize.input[0] = node.input[0]
        _insert_clip(graph, quantize, [_stored(limit, scale, zero) for limit in limits], zero.dtype)
        graph.node.remove(node)
        moved += 1
    drop_unused(graph)
    return moved


def _float_limits(node: Any, graph: Links) -> tuple[float, float] | None:
    """Limits of a ReLU or Clip node with constant limits; None for any other node."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip" or node.input[0] in graph.constants:
        return None
    names = [*node.input[1:], "", ""][:2]
    if any(name and name not in graph.constants for name in names):
        return None
    bounds = [graph.constants[name] if name else None for name in names]
    if any(bound is not None and bound.dtype.kind != "f" for bound in bounds):
        return None
    low, high = (None if bound is None else float(bound) for bound in bounds)
    return (-np.inf if low is None else low, np.inf if high is None else high)


def _stored(limit: float, scale: Array, zero: Array) -> int:
    """``limit`` as the Q node would store it."""
    limits = np.iinfo(zero.dtype)
    steps = np.rint(np.float32(limit) / scale.reshape(())) + zero.reshape(())
    return int(np.clip(steps, limits.min, limits.max))


def _insert_clip(graph: Any, quantize: Any, limits: list[int], dtype: Any) -> None:
    """Clip the quantised values to ``limits``, unless these are all values of the type."""
    from onnx import helper, numpy_helper

    full = np.iinfo(dtype)
    if limits == [full.min, full.max]:
        return
    name, raw = quantize.output[0], f"{quantize.output[0]}_unclipped"
    bounds = [f"{name}_min", f"{name}_max"]
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(limit, dtype), bound) for limit, bound in zip(limits, bounds, strict=True)
    )
    quantize.output[0] = raw
    position = list(graph.node).index(quantize) + 1
    graph.node.insert(position, helper.make_node("Clip", [raw, *bounds], [name], name=f"{name}_clip"))
