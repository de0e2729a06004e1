"""Truths moved by hand, as training moves them with its library."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.core.results import Shapes


def moved(truth: Any, *, down: int, right: int, mirrored: bool) -> Any:
    """``truth`` in its picture moved by whole pixels and then, perhaps, mirrored."""
    high, wide = truth.size
    shapes = truth.shapes()
    boxes, points = shapes.boxes + np.float32([right, down] * 2), shapes.points + np.float32([right, down])
    planes = shapes.planes
    if planes is not None:
        around = np.zeros((len(planes), 3 * high, 3 * wide), planes.dtype)
        around[:, high : 2 * high, wide : 2 * wide] = planes
        planes = around[:, high - down : 2 * high - down, wide - right : 2 * wide - right]
    if mirrored:
        boxes = np.stack([wide - boxes[:, 2], boxes[:, 1], wide - boxes[:, 0], boxes[:, 3]], axis=1)
        points = np.stack([wide - points[:, 0], points[:, 1]], axis=1)
        planes = None if planes is None else planes[:, :, ::-1]
    return truth.with_shapes(Shapes(boxes, points, planes), size=truth.size, mirrored=mirrored)
