"""Exact rewrites of a Q/DQ ONNX graph that OpenVINO needs, as it computes the other form wrongly or refuses it.

* `join_quantised` joins int8 values and not their float forms.
* `pad_quantised` pads int8 values and not their float forms.
* `keep_reduced_axes` writes means that drop their axes as means that keep them, and a squeeze.
* `spell_rounding` writes a Q/DQ pair in front of an activation function as rounding of floats where a sum follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.backends.onnx_qdq import DQ, Links, Q, drop_unused, links, zero_point


def keep_reduced_axes(model: Any) -> int:
    """Let means keep their axes with length 1 and squeeze them afterwards, in place.

    OpenVINO 2026.4 fuses a quantisation per channel into the mean before it, and takes the wrong axis for
    the channels where the mean has dropped one (swin_tiny: 4 dB instead of 34). Means over all axes are
    left alone.

    Returns:
        How many were rewritten.
    """
    from onnx import helper, numpy_helper

    found, rewritten = links(model), 0
    for place, node in reversed(list(enumerate(model.graph.node))):
        keep = next((item for item in node.attribute if item.name == "keepdims"), None)
        if node.op_type != "ReduceMean" or keep is None or keep.i != 0:
            continue
        axes = next((list(item.ints) for item in node.attribute if item.name == "axes"), None)
        if axes is None and len(node.input) > 1 and node.input[1] in found.constants:
            axes = [int(axis) for axis in found.constants[node.input[1]].ravel()]
        if not axes:
            continue
        keep.i = 1
        name = node.output[0]
        node.output[0] = f"{name}_kept"
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), f"{name}_axes"))
        squeeze = helper.make_node("Squeeze", [f"{name}_kept", f"{name}_axes"], [name], name=f"{name}_squeeze")
        model.graph.node.insert(place + 1, squeeze)
        rewritten += 1
    return rewritten


def join_quantised(model: Any) -> int:
    """Write Concat -> Q as a Concat of int8 values, in place: of those in front of a DQ where they have that scale and
    zero point, else of values that are quantised one by one.

    OpenVINO 2026.4 computes convolutions behind the long form wrongly where a ReLU stands before it
    (ghostnet_100: 7 dB instead of 23), and behind float values that are joined and then quantised, too (an IMDN with
    one layer of a block float: 17 dB instead of 46).

    Returns:
        How many were rewritten.
    """
    from onnx import helper

    found, replaced = links(model), []
    for node in list(model.graph.node):
        readers = found.readers.get(node.output[0], []) if node.op_type == "Concat" else []
        if len(readers) != 1 or readers[0].op_type != Q or node.output[0] in found.outputs:
            continue
        quantize, sources = readers[0], [found.maker.get(name) for name in node.input]
        scale = found.constants.get(quantize.input[1])
        if quantize.output[0] in found.outputs or scale is None or scale.size != 1:
            continue
        for position, (name, item) in enumerate(zip(list(node.input), sources, strict=True)):
            if _same_step(item, quantize, found):
                node.input[position] = item.input[0]  # type: ignore[union-attr]  # _same_step refuses None
                continue
            node.input[position] = f"{node.output[0]}_int8_{position}"
            step = helper.make_node(Q, [name, *quantize.input[1:]], [node.input[position]], name=node.input[position])
            step.attribute.extend(quantize.attribute)
            model.graph.node.insert(list(model.graph.node).index(node), step)
        _bypass(quantize, node, found)
        replaced.append(quantize)
    for quantize in replaced:
        model.graph.node.remove(quantize)
    drop_unused(model.graph)
    return len(replaced)


def pad_quantised(model: Any) -> int:
    """Write DQ -> Pad with zeros -> Q as a Pad of the int8 values with the zero point, where both have one scale.

    OpenVINO 2026.4 cannot load the long form where channels are padded and the zero point is not 0 (the shortcuts of
    CIFAR's ResNet-20).

    Returns:
        How many were rewritten.
    """
    from onnx import numpy_helper

    found, replaced = links(model), []
    for node in model.graph.node:
        readers = found.readers.get(node.output[0], []) if node.op_type == "Pad" else []
        if (
            len(readers) != 1
            or readers[0].op_type != Q
            or node.output[0] in found.outputs
            or not _pads_zeros(node, found)
        ):
            continue
        quantize, source = readers[0], found.maker.get(node.input[0])
        if quantize.output[0] in found.outputs or not _same_step(source, quantize, found):
            continue
        zero = zero_point(quantize, found.constants)
        name = f"{node.output[0]}_padding"
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(zero).reshape(()), name))
        inputs = [source.input[0], node.input[1], name, *list(node.input)[3:]]  # type: ignore[union-attr]
        del node.input[:]
        node.input.extend(inputs)
        _bypass(quantize, node, found)
        replaced.append(quantize)
    for quantize in replaced:
        model.graph.node.remove(quantize)
    drop_unused(model.graph)
    return len(replaced)


ACTIVATIONS = frozenset(
    [
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Mul",
        "PRelu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    ]
)
"""Of them activation functions are made; what a SiLU multiplies by its sigmoid is its own input."""


def spell_rounding(model: Any) -> int:
    """Write Q -> DQ -> activation -> Q -> DQ -> Add with the first pair as division, rounding, limits and product, in
    place.

    OpenVINO 2026.4 joins a convolution, its activation and the sum behind it into one step, and leaves out the rounding
    between the first two (YOLOX's first bottleneck, symmetric scales: 37 dB instead of 57). Rounding as an operator of
    its own is joined as well, and is kept.

    Returns:
        How many pairs were rewritten.
    """
    from onnx import helper, numpy_helper

    graph, found, rewritten = model.graph, links(model), 0
    for node in list(graph.node):
        steps = found.readers.get(node.output[0], []) if node.op_type == Q else []
        if not steps or node.output[0] in found.outputs or not all(_same_step(item, node, found) for item in steps):
            continue
        scale, zero = found.constants[node.input[1]], zero_point(node, found.constants)
        made = [step.output[0] for step in steps]
        readers = [reader for name in made for reader in found.readers.get(name, [])]
        if scale.size != 1 or zero is None or any(name in found.outputs for name in made):
            continue
        if not all(item.op_type in ACTIVATIONS for item in readers) or not _summed(readers, found):
            continue
        limits = np.iinfo(zero.dtype)
        name = made[0]
        constants = {
            f"{name}_scale": scale.reshape(()).astype(np.float32),
            f"{name}_low": np.float32(int(limits.min) - int(zero.reshape(()))),
            f"{name}_high": np.float32(int(limits.max) - int(zero.reshape(()))),
        }
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items())
        chain = [
            helper.make_node("Div", [node.input[0], f"{name}_scale"], [f"{name}_steps"], name=f"{name}_div"),
            helper.make_node("Round", [f"{name}_steps"], [f"{name}_rounded"], name=f"{name}_round"),
            helper.make_node(
                "Clip", [f"{name}_rounded", f"{name}_low", f"{name}_high"], [f"{name}_cut"], name=f"{name}_clip"
            ),
            helper.make_node("Mul", [f"{name}_cut", f"{name}_scale"], [name], name=f"{name}_mul"),
        ]
        place = list(graph.node).index(node)
        for step in (node, *steps):
            graph.node.remove(step)
        for item in reversed(chain):
            graph.node.insert(place, item)
        for reader in readers:
            for position, read in enumerate(reader.input):
                if read in made:
                    reader.input[position] = name
        rewritten += 1
    drop_unused(graph)
    return rewritten


def _summed(readers: list[Any], found: Links) -> bool:
    """Whether what the activation nodes ``readers`` make is quantised and then added to something."""
    places = list(readers)
    for node in places:
        for reader in found.readers.get(node.output[0], []):
            if reader.op_type == Q:
                steps = found.readers.get(reader.output[0], [])
                if any(end.op_type == "Add" for step in steps for end in found.readers.get(step.output[0], [])):
                    return True
            elif reader.op_type in ACTIVATIONS and all(reader is not known for known in places):
                places.append(reader)
    return False


def _pads_zeros(node: Any, found: Links) -> bool:
    """Whether a Pad node writes constant zeros."""
    mode = next((item.s for item in node.attribute if item.name == "mode"), b"constant")
    if mode != b"constant":
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    value = found.constants.get(node.input[2])
    return value is not None and not value.any()


def _bypass(quantize: Any, node: Any, found: Links) -> None:
    """Let those who read the Q node ``quantize`` read ``node`` instead."""
    for reader in found.readers.get(quantize.output[0], []):
        for position, name in enumerate(reader.input):
            if name == quantize.output[0]:
                reader.input[position] = node.output[0]


def _same_step(node: Any, quantize: Any, found: Links) -> bool:
    """Whether ``node`` is a DQ node with the scale and zero point of ``quantize``."""
    if node is None or node.op_type != DQ:
        return False
    one, other = (found.constants.get(item.input[1]) for item in (node, quantize))
    zero, wanted = (zero_point(item, found.constants) for item in (node, quantize))
    if one is None or other is None or zero is None or wanted is None:
        return False
    return bool(np.array_equal(one, other) and np.array_equal(zero, wanted) and zero.dtype == wanted.dtype)
