"""The layers whose width a group of channels decides, with all that their time depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import nn

from edgecv.optimize.prune_graph import Prunable

__all__ = ["Costs", "Key", "LayerShape", "MacCosts", "NetLayer", "narrowable_layers"]

Key = tuple[str, str]
"""Region and layer that name a group of channels."""

_KINDS: dict[type[nn.Module], Literal["conv", "deconv", "linear"]] = {
    nn.Conv2d: "conv",
    nn.ConvTranspose2d: "deconv",
    nn.Linear: "linear",
}


@dataclass(frozen=True)
class LayerShape:
    """One layer at batch 1, as an engine sees it: layers of one shape take one time.

    ``size`` is the input's `(H, W)`; for a linear layer `(rows, 1)`. ``groups`` 0 stands for a depthwise
    convolution, whose groups follow its width.
    """

    kind: Literal["conv", "deconv", "linear"]
    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def text(self) -> str:
        """A short, unique name, used as a key in files."""
        parts = [self.kind, f"{self.inputs}-{self.outputs}", "x".join(map(str, self.size))]
        if self.kind != "linear":
            parts += [name + "x".join(map(str, asdict(self)[name])) for name in ("kernel", "stride", "padding")]
            parts += ["dilation" + "x".join(map(str, self.dilation)), f"groups{self.groups or 'all'}"]
        return " ".join(parts)

    @property
    def fits(self) -> bool:
        """Whether a convolution with these widths and groups exists."""
        groups = self.groups or self.inputs
        return self.inputs > 0 and self.outputs > 0 and self.inputs % groups == 0 and self.outputs % groups == 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        if self.kind == "linear":
            return self.inputs * self.outputs * self.size[0]
        if self.kind == "deconv":
            places = self.size[0] * self.size[1]
        else:
            places = math.prod(
                (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
                for side, pad, dilation, kernel, stride in zip(
                    self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True
                )
            )
        return places * self.outputs * (self.inputs // (self.groups or self.inputs)) * math.prod(self.kernel)


@dataclass(frozen=True)
class NetLayer:
    """A layer of a network, and which groups of channels narrow it.

    ``inputs_by`` and ``outputs_by`` are pairs of a group and how many of the layer's input or output channels
    belong to it.
    """

    name: str
    shape: LayerShape
    inputs_by: tuple[tuple[Key, int], ...]
    outputs_by: tuple[tuple[Key, int], ...]

    @property
    def keys(self) -> frozenset[Key]:
        """All groups that narrow this layer."""
        return frozenset(key for key, _ in (*self.inputs_by, *self.outputs_by))

    def narrowed(self, shares: Mapping[Key, float]) -> LayerShape:
        """The layer's shape where these shares (0..1) of the groups' channels are gone; a missing one is 0."""
        inputs = self.shape.inputs - round(sum(count * shares.get(key, 0.0) for key, count in self.inputs_by))
        outputs = self.shape.outputs - round(sum(count * shares.get(key, 0.0) for key, count in self.outputs_by))
        if self.shape.groups == 0:
            outputs = inputs = min(inputs, outputs)
        return replace(self.shape, inputs=max(inputs, 1), outputs=max(outputs, 1))


class Costs(Protocol):
    """What each layer of a network costs, in milliseconds or in multiply-accumulates."""

    @property
    def layers(self) -> tuple[NetLayer, ...]:
        """The layers that can be narrowed."""
        ...

    def layer_cost(self, index: int, shares: Mapping[Key, float]) -> float:
        """Cost of layer ``index`` where these shares (0..1) of the groups' channels are gone."""
        ...

    def total_cost(self, shares: Mapping[Key, float]) -> float:
        """Cost of all these layers together; the rest of the network is not in it."""
        ...


@dataclass(frozen=True)
class MacCosts:
    """`Costs` in multiply-accumulates."""

    layers: tuple[NetLayer, ...]

    def layer_cost(self, index: int, shares: Mapping[Key, float]) -> float:
        """Multiply-accumulates of layer ``index``."""
        return float(self.layers[index].narrowed(shares).macs)

    def total_cost(self, shares: Mapping[Key, float]) -> float:
        """Multiply-accumulates of all these layers."""
        return sum(self.layer_cost(index, shares) for index in range(len(self.layers)))


def narrowable_layers(
    module: nn.Module, groups: Sequence[tuple[Prunable, Any]], *, example: torch.Tensor
) -> list[NetLayer]:
    """Every call of a convolution or linear layer that one of ``groups`` narrows, in the order of the calls.

    ``groups`` are of `prune_graph.groups_of` for this very ``module``, with torch-pruning's own form of each;
    ``example`` is an input `(1, C, H, W)`. Layers of other kinds (1-D and 3-D convolutions) are left out.
    """
    names = {layer: name for name, layer in module.named_modules()}
    inputs: dict[str, dict[Key, int]] = {}
    outputs: dict[str, dict[Key, int]] = {}
    for group, raw in groups:
        key = (group.region, group.layer)
        for name, out, count in _members(raw, names):
            side = outputs if out else inputs
            side.setdefault(name, {})[key] = count
    found = []
    for name, shape in _calls(module, example):
        if name in inputs or name in outputs:
            by = inputs.get(name, {}), outputs.get(name, {})
            if shape.groups == 0:  # one channel in is one channel out, whichever side the graph names
                by = ({**by[0], **by[1]},) * 2
            found.append(NetLayer(name, shape, tuple(by[0].items()), tuple(by[1].items())))
    return found


def _members(raw: Any, names: Mapping[nn.Module, str]) -> list[tuple[str, bool, int]]:
    """``(layer, whether it is about outputs, channels)`` of everything that one whole group cuts."""
    import torch_pruning

    makers = (
        torch_pruning.prune_conv_out_channels,
        torch_pruning.prune_depthwise_conv_out_channels,
        torch_pruning.prune_linear_out_channels,
    )
    indices: dict[tuple[str, bool], set[int]] = {}
    for item in raw:
        layer = item.dep.target.module
        if type(layer) in _KINDS and layer in names:
            out = item.dep.handler in makers
            indices.setdefault((names[layer], out), set()).update(int(index) for index in item.idxs)
    return [(name, out, len(found)) for (name, out), found in indices.items()]


def _calls(module: nn.Module, example: torch.Tensor) -> list[tuple[str, LayerShape]]:
    calls: list[tuple[str, LayerShape]] = []

    def hook(name: str) -> Any:
        def record(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
            if args and isinstance(args[0], torch.Tensor):
                calls.append((name, _shape(layer, args[0])))

        return record

    handles = [
        layer.register_forward_hook(hook(name)) for name, layer in module.named_modules() if type(layer) in _KINDS
    ]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _shape(layer: Any, inputs: torch.Tensor) -> LayerShape:
    kind = _KINDS[type(layer)]
    if kind == "linear":
        rows = inputs.numel() // layer.in_features
        return LayerShape(kind, layer.in_features, layer.out_features, (rows, 1))
    depthwise = layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1
    size = int(inputs.shape[-2]), int(inputs.shape[-1])
    return LayerShape(
        kind,
        layer.in_channels,
        layer.out_channels,
        size,
        layer.kernel_size,
        layer.stride,
        _padding(layer),
        layer.dilation,
        0 if depthwise else layer.groups,
    )


def _padding(layer: Any) -> tuple[int, int]:
    if isinstance(layer.padding, str):
        same = [
            dilation * (kernel - 1) // 2 for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        return (same[0], same[1]) if layer.padding == "same" else (0, 0)
    return int(layer.padding[0]), int(layer.padding[1])
