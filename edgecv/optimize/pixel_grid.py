"""The scale of the network's input where a picture's 256 values fit the 256 numbers of int8.

A range from calibration cuts the brightest pixels or puts steps between two pixel values. Where all channels are
prepared alike, one step a pixel value represents the picture without any error. Scales without zero point cannot:
they have 127 steps on one side.
"""

from __future__ import annotations

from torch.fx import GraphModule

from edgecv.core.contract import InputContract
from edgecv.optimize.graph import QUANTIZE
from edgecv.optimize.histogram import Range
from edgecv.optimize.rules import Plan

__all__ = ["WHY", "input_ranges", "pixel_range"]

OFF_GRID = 0.05
"""How far, in steps, the network's 0 may lie from a pixel value: all values are wrong by so much."""
WHY = "; one step a pixel value"


def pixel_range(contract: InputContract) -> Range | None:
    """What pixels 0 and 255 become, in the network's units; None where int8 has no exact step for them.

    That is where channels have a mean or std of their own, or where 0 lies outside or between two pixel values.
    """
    if len(set(contract.mean)) > 1 or len(set(contract.std)) > 1:
        return None
    ends = [(value - contract.mean[0]) / contract.std[0] for value in contract.range]
    low, high = min(ends), max(ends)
    zero = -low / (high - low) * 255
    if not -OFF_GRID <= zero <= 255 + OFF_GRID or abs(zero - round(zero)) > OFF_GRID:
        return None
    return Range(low, high)


def input_ranges(graph: GraphModule, plan: Plan, pixels: Range | None) -> dict[str, Range]:
    """``pixels`` by the name of the picture's node, where it is int8 and shares its scale with no other tensor.

    The picture is the first input of the Q/DQ ``graph``; those behind it are a state.
    """
    picture = next(node for node in graph.graph.nodes if node.op == "placeholder")
    if pixels is None or not any(user.target is QUANTIZE[0] for user in picture.users):
        return {}
    owners = {node.name: owner.name for node, owner in plan.outputs.items()}
    alone = list(owners.values()).count(owners.get(picture.name, picture.name)) < 2
    return {picture.name: pixels} if alone else {}
