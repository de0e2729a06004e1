"""Tiny networks around one layer, as files that an engine's compiler takes.

Engines keep their own memory layout between layers, and a layer on its own would be charged with the
change to and from it. So a convolution stands between a thin 1x1 convolution and a global mean; what these
two take is measured by the same network without the layer.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecv.core.protocols import CompileSource
from edgecv.optimize.export import OPSET, export_program, save_program
from edgecv.optimize.prune_layers import LayerShape

__all__ = ["TinyNet", "network_of", "surroundings_of"]

_THIN = 4
_IR_VERSION = 10
"""Of ONNX files with opset 21."""


@dataclass(frozen=True)
class TinyNet:
    """What stands around a layer (`width` channels of `size`, or rows for a linear one), and the layer or None."""

    linear: bool
    size: tuple[int, int]
    width: int
    layer: LayerShape | None = None

    def source(self, folder: Path, *, program: bool) -> CompileSource:
        """Write the network into ``folder``: an ONNX file, or with ``program`` a torch.export archive."""
        if program:
            torch.manual_seed(0)
            path = folder / "program.pt2"
            save_program(export_program(self._module().eval(), torch.zeros(self._input())), path)
            return CompileSource("fp32", None, path)
        import onnx

        path = folder / "model.onnx"
        path.write_bytes(_onnx(self, onnx).SerializeToString())
        return CompileSource("fp32", path, None)

    def _input(self) -> tuple[int, ...]:
        return (1, self.size[0], self.width) if self.linear else (1, _THIN, *self.size)

    def _module(self) -> nn.Module:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if self.linear:
            parts["before"] = nn.ReLU()
            if self.layer is not None:
                parts["layer"] = nn.Linear(self.layer.inputs, self.layer.outputs)
            return nn.Sequential(parts)
        parts["thin"], parts["before"] = nn.Conv2d(_THIN, self.width, 1), nn.ReLU()
        if self.layer is not None:
            shape = self.layer
            kind: Any = nn.Conv2d if shape.kind == "conv" else nn.ConvTranspose2d
            parts["layer"] = kind(
                shape.inputs,
                shape.outputs,
                shape.kernel,
                shape.stride,
                shape.padding,
                groups=shape.groups or shape.inputs,
                dilation=shape.dilation,
            )
            parts["after"] = nn.ReLU()
        parts["mean"] = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(parts)


def network_of(shape: LayerShape) -> TinyNet:
    """The network with the layer in it."""
    return TinyNet(shape.kind == "linear", shape.size, shape.inputs, shape)


def surroundings_of(shape: LayerShape) -> TinyNet:
    """The same network without the layer."""
    return TinyNet(shape.kind == "linear", shape.size, shape.inputs)


def _onnx(net: TinyNet, onnx: Any) -> Any:
    """The network as an ONNX model; the weights are random, because zeros could be computed faster."""
    random = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, *dims: int) -> str:
        values = random.normal(0.0, 0.1, dims).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(values, name))
        return name

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [f"value{len(nodes)}"], **attributes))
        return f"value{len(nodes) - 1}"

    value = "input"
    if not net.linear:
        value = node("Conv", [value, constant("thin", net.width, _THIN, 1, 1), constant("thin_bias", net.width)])
    value = node("Relu", [value])
    shape = net.layer
    if shape is not None and net.linear:
        value = node("MatMul", [value, constant("weight", shape.inputs, shape.outputs)])
        value = node("Add", [value, constant("bias", shape.outputs)])
    elif shape is not None:
        groups = shape.groups or shape.inputs
        dims = (
            (shape.outputs, shape.inputs // groups) if shape.kind == "conv" else (shape.inputs, shape.outputs // groups)
        )
        value = node(
            "Conv" if shape.kind == "conv" else "ConvTranspose",
            [value, constant("weight", *dims, *shape.kernel), constant("bias", shape.outputs)],
            group=groups,
            strides=shape.stride,
            pads=(*shape.padding, *shape.padding),
            dilations=shape.dilation,
            kernel_shape=shape.kernel,
        )
        value = node("Relu", [value])
    if not net.linear:
        value = node("GlobalAveragePool", [value])
    width = shape.outputs if shape is not None else net.width
    dims_out = (1, net.size[0], width) if net.linear else (1, width, 1, 1)
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "layer",
        [tensor("input", onnx.TensorProto.FLOAT, net._input())],
        [tensor(value, onnx.TensorProto.FLOAT, dims_out)],
        constants,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
