"""The scale of the network's input, which holds 256 values a channel and no others.

A range from calibration cuts the brightest pixels or puts steps between two pixel values. Where all channels are
prepared alike, one step a pixel value represents the picture without any error. Scales without zero point cannot:
they have 127 steps on one side. Nor can those of a mean of 0.5, as 0 lies between two pixel values: with one step a
pixel value all 256 would lie just between two steps, and each engine would round some of them its own way
(`avoid_pixel_ties`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.fx import GraphModule

from edgecv.core.contract import InputContract
from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, finish
from edgecv.optimize.histogram import Range
from edgecv.optimize.rules import Plan

__all__ = ["WHY", "avoid_pixel_ties", "input_ranges", "pixel_range"]

Values = npt.NDArray[np.floating[Any]]

OFF_GRID = 0.05
"""How far, in steps, the network's 0 may lie from a pixel value: all values are wrong by so much."""
WHY = "; one step a pixel value"
MOST_VALUES = 1024
"""A picture has 256 values a channel, so 768 where each channel is prepared in its own way; more are no pixels."""
SAFE = 5e-4
"""So far from a tie, in steps, float32 cannot round the other way: at 127 steps it errs by about 2e-5."""
FARTHEST = 0.004
"""So far the scale is moved, up, as a share of itself: half a step at the ends of the range."""
TRIED = 401
"""Scales that are tried for it."""


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


def avoid_pixel_ties(graph: GraphModule, pictures: Iterable[Values]) -> int:
    """Move the input's scale where a value of ``pictures`` lies nearly between two steps; 1 if it was moved, or 0.

    ``pictures`` are network inputs of any shape. All that shares the scale of the input is moved with it. An input
    that is float, or that has more values than pixels have, is left alone. Call it in front of
    `edgecv.optimize.requantize.avoid_ties`.
    """
    picture = next(node for node in graph.graph.nodes if node.op == "placeholder")
    stored = next((user for user in picture.users if user.target is QUANTIZE[0]), None)
    values: Values = np.empty(0)
    for item in pictures if stored is not None else ():
        values = np.union1d(values, item.astype(np.float64))
        if len(values) > MOST_VALUES:
            return 0
    if stored is None or not len(values):
        return 0
    scale, zero, low, high = (float(value) for value in stored.args[1:5])
    tried = scale * np.linspace(1.0, 1.0 + FARTHEST, TRIED)
    margin = _from_ties(values, tried, (low - zero, high - zero))
    if margin[0] >= SAFE or margin.argmax() == 0:
        return 0
    for node in graph.graph.nodes:
        if node.target in (QUANTIZE[0], DEQUANTIZE[0]) and node.args[1] == stored.args[1] and node is not stored:
            node.args = (node.args[0], float(tried[margin.argmax()]), *node.args[2:])
    stored.args = (stored.args[0], float(tried[margin.argmax()]), *stored.args[2:])
    finish(graph)
    return 1


def _from_ties(values: Values, scales: Values, ends: tuple[float, float]) -> Values:
    """For each of the ``scales`` how far from a tie, in steps, the nearest of ``values`` lies; ``ends`` are in steps.

    What lies half a step or more outside the ends is cut, however it is rounded.
    """
    steps = values[None] / scales[:, None]
    inside = (steps > ends[0] - 0.5) & (steps < ends[1] + 0.5)
    away: Values = np.where(inside, np.abs(steps - np.floor(steps) - 0.5), 0.5).min(axis=1)
    return away
