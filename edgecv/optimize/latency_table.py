"""How long each layer of a network takes at each width that pruning may leave it, measured on the real engine.

Time does not follow the count of multiplications: engines work on blocks of channels, and a width between two
blocks costs as much as the next block. So pruning looks at this table. Its points are kept on
disk, by machine, engine version and threads, and shared by all networks.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgecv.optimize.prune_layers import Key, LayerShape, NetLayer

__all__ = ["LatencyTable", "Meter", "Widths", "kept_points", "make_table"]

_MOST_WIDTHS = 8
"""Widths of a layer that are measured, where only its inputs or only its outputs are narrowed ..."""
_MOST_WIDTHS_BOTH = 4
"""... and of each of the two where both are."""

_YARDSTICKS = 5
"""So many known points tell how fast the machine is now."""

_Times = npt.NDArray[np.float64]

Widths = Mapping[Key, tuple[int, ...]]
"""By group of channels: the widths that it may come to, ascending; the last one is what it has now."""


class Meter(Protocol):
    """What takes the times; `edgecv.optimize.latency_probe.EngineProbe` does it on a real engine."""

    def environment(self) -> dict[str, Any]:
        """Plain values: all that a layer's time depends on besides its shape."""
        ...

    def layers_ms(self, shapes: Sequence[LayerShape]) -> Mapping[LayerShape, float]:
        """Milliseconds of each layer at batch 1."""
        ...

    def networks_ms(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        """Milliseconds of whole networks for the input ``example``, to be compared with one another."""
        ...


@dataclass(frozen=True)
class _Grid:
    """Milliseconds `(inputs, outputs)` over two ascending axes; nothing narrower is slower."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: _Times

    def at(self, inputs: int, outputs: int) -> float:
        """Linear between the points, the nearest edge outside of them."""
        row, row_share = _place(self.inputs, inputs)
        column, column_share = _place(self.outputs, outputs)
        low = (
            self.ms[row, column] * (1 - column_share)
            + self.ms[row, min(column + 1, len(self.outputs) - 1)] * column_share
        )
        below = min(row + 1, len(self.inputs) - 1)
        high = (
            self.ms[below, column] * (1 - column_share)
            + self.ms[below, min(column + 1, len(self.outputs) - 1)] * column_share
        )
        return float(low * (1 - row_share) + high * row_share)


@dataclass(frozen=True)
class LatencyTable:
    """The layers of one network that can be narrowed, and their times. ``points`` counts the distinct measurements."""

    layers: tuple[NetLayer, ...]
    grids: tuple[_Grid, ...]
    points: int
    _known: dict[tuple[int, int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def layer_cost(self, index: int, shares: Mapping[Key, float]) -> float:
        """Milliseconds of layer ``index`` where these shares (0..1) of the groups' channels are gone."""
        shape = self.layers[index].narrowed(shares)
        key = (index, shape.inputs, shape.outputs)
        if key not in self._known:
            self._known[key] = self.grids[index].at(shape.inputs, shape.outputs)
        return self._known[key]

    def total_cost(self, shares: Mapping[Key, float]) -> float:
        """Milliseconds of all these layers together; the rest of the network is not in it."""
        return sum(self.layer_cost(index, shares) for index in range(len(self.layers)))


def make_table(layers: Sequence[NetLayer], widths: Widths, *, meter: Meter, cache: Path | None = None) -> LatencyTable:
    """Measure what is not known yet of ``layers`` at the ``widths`` of their groups.

    ``cache`` is a folder where points are kept for later runs on this machine; None keeps nothing.
    """
    axes = [_axes(layer, widths) for layer in layers]
    wanted = {shape for layer, pair in zip(layers, axes, strict=True) for shape in _points(layer, *pair) if shape.fits}
    known = kept_points(sorted(wanted, key=lambda shape: shape.text), meter=meter, cache=cache)
    grids = tuple(_grid(layer, *pair, known) for layer, pair in zip(layers, axes, strict=True))
    return LatencyTable(tuple(layers), grids, len(wanted))


def kept_points(shapes: Sequence[LayerShape], *, meter: Meter, cache: Path | None) -> dict[LayerShape, float]:
    """Times of ``shapes``, from the folder ``cache`` where they are known, measured and kept there where not.

    The longest of the known ones are measured once more, and all are scaled by how much slower or faster the machine
    is now than it was then.
    """
    if cache is None:
        return dict(meter.layers_ms(shapes)) if shapes else {}
    from filelock import FileLock

    environment = meter.environment()
    text = json.dumps(environment, sort_keys=True)
    path = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        kept = _read(path)
        known = {shape: kept[shape.text] for shape in shapes if shape.text in kept}
        missing = [shape for shape in shapes if shape not in known]
        again = sorted(known, key=lambda shape: -known[shape])[:_YARDSTICKS]
        measured = meter.layers_ms([*missing, *again]) if missing or again else {}
        pace = median(measured[shape] / known[shape] for shape in again) if again else 1.0
        if missing:
            # Kept at the pace of the points that stand there already.
            kept.update({shape.text: measured[shape] / pace for shape in missing})
            content = json.dumps({"environment": environment, "points_ms": kept}, indent=1, sort_keys=True)
            partial = path.with_suffix(".partial")
            partial.write_text(content, encoding="utf-8")
            os.replace(partial, path)
    return {shape: kept[shape.text] * pace for shape in shapes}


def _read(path: Path) -> dict[str, float]:
    try:
        points = json.loads(path.read_text(encoding="utf-8"))["points_ms"]
        return {str(name): float(ms) for name, ms in points.items() if float(ms) > 0}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # nothing kept yet, or a damaged file, which is measured anew


def _axes(layer: NetLayer, widths: Widths) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs = _axis(layer.shape.inputs, layer.inputs_by, widths)
    outputs = _axis(layer.shape.outputs, layer.outputs_by, widths)
    if layer.shape.groups == 0:
        return _thinned(inputs, _MOST_WIDTHS), (layer.shape.outputs,)
    most = _MOST_WIDTHS_BOTH if len(inputs) > 1 and len(outputs) > 1 else _MOST_WIDTHS
    return _thinned(inputs, most), _thinned(outputs, most)


def _axis(full: int, by: Sequence[tuple[Key, int]], widths: Widths) -> tuple[int, ...]:
    """Widths of one side where all its groups are narrowed by the same share, ascending."""
    known = [(key, count) for key, count in by if key in widths]
    if not known:
        return (full,)
    finest = widths[max(known, key=lambda item: len(widths[item[0]]))[0]]
    tied = sum(count for _, count in known)
    return tuple(sorted({max(1, full - round(tied * (1 - left / finest[-1]))) for left in finest} | {full}))


def _thinned(axis: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most so many values, evenly taken, both ends among them."""
    if len(axis) <= most:
        return axis
    return tuple(axis[round(index * (len(axis) - 1) / (most - 1))] for index in range(most))


def _points(layer: NetLayer, inputs: Sequence[int], outputs: Sequence[int]) -> list[LayerShape]:
    """The shapes in the grid's order, row by row."""
    if layer.shape.groups == 0:
        return [replace(layer.shape, inputs=width, outputs=width) for width in inputs]
    return [replace(layer.shape, inputs=one, outputs=other) for one, other in product(inputs, outputs)]


def _grid(
    layer: NetLayer, inputs: tuple[int, ...], outputs: tuple[int, ...], known: Mapping[LayerShape, float]
) -> _Grid:
    # A grouped convolution does not exist at every pair of widths: such a point gets the full layer's time.
    full = known[layer.shape]
    ms = np.array([known.get(shape, full) for shape in _points(layer, inputs, outputs)], dtype=np.float64)
    return _Grid(inputs, outputs, _monotonic(ms.reshape(len(inputs), len(outputs))))


def _monotonic(ms: _Times) -> _Times:
    """The nearest values (least squares, axis by axis) that never fall with growing width.

    Where a wider layer was measured to be faster, both get a time between, so that no cut is made for such a gain.
    """
    from sklearn.isotonic import isotonic_regression

    for axis in (0, 1, 0, 1):
        if ms.shape[axis] > 1:
            ms = np.apply_along_axis(isotonic_regression, axis, ms)
    return ms


def _place(axis: tuple[int, ...], value: int) -> tuple[int, float]:
    """Index of the point at or below ``value``, and how far it lies towards the next one (0..1)."""
    if value <= axis[0]:
        return 0, 0.0
    if value >= axis[-1]:
        return len(axis) - 1, 0.0
    above = bisect_left(axis, value)
    return above - 1, (value - axis[above - 1]) / (axis[above] - axis[above - 1])
