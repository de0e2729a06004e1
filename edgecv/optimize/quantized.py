"""The result of quantisation: one program for all targets, and what was decided about every tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from edgecv.backends.program import seal
from edgecv.core.protocols import Batches
from edgecv.optimize.behind import activations
from edgecv.optimize.examples import Example, all_inputs, picture_shape, pictures
from edgecv.optimize.flat import remove_guards
from edgecv.optimize.graph import QUANTIZE, get_constant
from edgecv.optimize.pixel_grid import avoid_pixel_ties
from edgecv.optimize.requantize import avoid_ties
from edgecv.optimize.rules import Plan
from edgecv.optimize.snap import snap_biases, snap_slopes, snap_weights

__all__ = ["QuantizedGraph", "Saturation", "TensorRecord", "wrap_up"]

SATURATION_SAMPLES = 32
SATURATION_MARGIN = 0.1
"""A value counts as saturated so far beyond the end, as a share of half the range: just past it, nothing is lost."""
SATURATION_SHARE = 1e-3


@dataclass(frozen=True)
class TensorRecord:
    """How one tensor is stored, and by which rule.

    ``node`` is the node that makes the tensor (a parameter's name for weights). Per-channel weights
    have ``scale_min`` < ``scale_max``; a tensor that stays float has scale 0.
    """

    node: str
    kind: Literal["activation", "weight", "float"]
    scale_min: float
    scale_max: float
    zero_point: int
    why: str


@dataclass(frozen=True)
class Saturation:
    """A tensor of which more than 0.1 % of the values lie outside its int8 range on calibration pictures."""

    node: str
    share: float


@dataclass(frozen=True)
class QuantizedGraph:
    """``program`` has batch 1 and quantise / dequantise nodes, the weights float in front of them (unfolded).

    ``ranges`` tells how the rule that set the ranges was chosen, where it was chosen by measuring.
    """

    program: ExportedProgram
    plan: tuple[TensorRecord, ...]
    saturated: tuple[Saturation, ...]
    ranges: str = ""


def wrap_up(
    graph: GraphModule, *, plan: Plan, example: Example, calibration: Batches, ranges: str = ""
) -> QuantizedGraph:
    """Make the graph compute what integer engines compute, export it at batch 1, and describe it.

    ``graph`` holds unfolded Q/DQ nodes and is changed; ``example`` are its inputs; ``ranges``
    tells how the rule of the ranges was chosen.
    """
    saturated = _saturated(graph, calibration, shape=picture_shape(example))
    for guard, layer in remove_guards(graph).items():
        plan.why[layer] = plan.why.pop(guard, "")
    snap_weights(graph)
    snap_slopes(graph)
    shown = pictures(calibration, limit=SATURATION_SAMPLES, shape=picture_shape(example))
    avoid_pixel_ties(graph, (all_inputs(picture)[0].numpy() for picture in shown))
    avoid_ties(graph)
    snap_biases(graph)
    program: ExportedProgram = seal(graph, all_inputs(example))
    return QuantizedGraph(program, _records(graph, plan), saturated, ranges)


def _quantizing(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.target in QUANTIZE]


def _records(graph: GraphModule, plan: Plan) -> tuple[TensorRecord, ...]:
    records = []
    for node in _quantizing(graph):
        source: Any = node.args[0]
        is_weight = source.op == "get_attr"
        scale, zero = node.args[1], node.args[2]
        scales = get_constant(graph, scale) if isinstance(scale, Node) else torch.tensor([float(scale)])  # type: ignore[arg-type]
        zero_point = 0 if isinstance(zero, Node) else int(zero)  # type: ignore[arg-type]
        name = str(source.target) if is_weight else source.name
        records.append(
            TensorRecord(
                node=name,
                kind="weight" if is_weight else "activation",
                scale_min=float(scales.min()),
                scale_max=float(scales.max()),
                zero_point=zero_point,
                why=_weight_rule(node) if is_weight else plan.why.get(name, ""),
            )
        )
    records += [TensorRecord(name, "float", 0.0, 0.0, 0, why) for name, why in plan.floats.items()]
    return tuple(records)


def _weight_rule(node: Node) -> str:
    return "one scale per tensor" if node.target is QUANTIZE[0] else "one scale per output channel"


def _saturated(graph: GraphModule, calibration: Batches, *, shape: tuple[int, ...]) -> tuple[Saturation, ...]:
    """Run pictures through a copy of the graph that gives what each activation quantiser reads.

    Where an activation function reads the tensor, what it makes of the cut counts and not the cut itself: most of what
    lies before SiLU or a leaky ReLU is cut on purpose.
    """
    behind = activations(graph)
    nodes = [node for node in _quantizing(graph) if node.args[0].op != "get_attr"]  # type: ignore[union-attr]
    if not nodes:
        return ()
    copied = torch.fx.Graph()
    mapping: dict[Node, Node] = {}
    copied.graph_copy(graph.graph, mapping)
    copied.set_codegen(CodeGen())
    copied.output(tuple(mapping[node.args[0]] for node in nodes))  # type: ignore[index]
    probe = GraphModule(graph, copied)
    probe.graph.eliminate_dead_code()
    probe.recompile()
    outside, total = torch.zeros(len(nodes), dtype=torch.float64), torch.zeros(len(nodes), dtype=torch.float64)
    with torch.no_grad():
        for picture in pictures(calibration, limit=SATURATION_SAMPLES, shape=shape):
            for index, (node, values) in enumerate(zip(nodes, probe(*all_inputs(picture)), strict=True)):
                scale, zero, low, high = (float(item) for item in node.args[1:5])  # type: ignore[arg-type]
                kept = values.clamp((low - zero) * scale, (high - zero) * scale)
                function = behind.get(str(node.args[0]))
                lost = (values - kept).abs()
                if function is not None:
                    changed = function(values.double().numpy()) - function(kept.double().numpy())
                    lost = torch.from_numpy(changed).abs()
                outside[index] += int((lost > SATURATION_MARGIN * (high - low) / 2 * scale).sum())
                total[index] += values.numel()
    shares = (outside / total).tolist()
    names = [str(node.args[0]) for node in nodes]  # a node's text is its name
    return tuple(Saturation(name, share) for name, share in zip(names, shares, strict=True) if share > SATURATION_SHARE)
