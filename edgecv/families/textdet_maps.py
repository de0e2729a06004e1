"""What a network that finds text by differentiable binarisation is trained on, and its loss (arXiv:1911.08947)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError
from edgecv.families.textdet_result import TextTruth
from edgecv.vision.polygons import area, distances, perimeter

__all__ = ["db_loss", "target_maps"]

_STEEP = 50.0
_NEGATIVES = 3.0
_BORDER = (0.3, 0.7)
_WEIGHTS = (1.0, 1.0, 10.0)
"""Of the binary map, the probability map and the threshold map, as in the paper (there for the latter: 1 and 10)."""


def target_maps(truth: TextTruth, shape: tuple[int, int], *, shrink: float) -> FloatArray:
    """What the planes should be on a grid of ``shape`` (h, w) over the network's input: `(4, h, w)` float32.

    0: 1 inside the shrunk pieces of text, 1: 1 where plane 0 is judged (0 on ignored pieces), 2: the threshold, which
    rises to 0.7 at the border of a piece, 3: 1 where plane 2 is judged. A piece of area A and perimeter L moves in by
    ``(1 - shrink^2) A / L``: what is left is all that is at least so far from its border.

    Raises:
        DataError: the truth does not know the size of the network's input.
    """
    if truth.size is None:
        raise DataError("the truth is not placed in the network's input; train on batches of make_batches")
    height, width = shape
    maps = np.zeros((4, height, width), dtype=np.float32)
    maps[1] = 1.0
    scale = np.array([width / truth.size[1], height / truth.size[0]])
    for polygon, ignored in zip(truth.polygons, truth.ignored, strict=True):
        corners = np.array(polygon) * scale
        reach = (1.0 - shrink * shrink) * area(corners) / max(perimeter(corners), 1e-9)
        low = np.clip(np.floor(corners.min(axis=0) - reach), 0, [width, height]).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0) + reach), 0, [width, height]).astype(int)
        if (high <= low).any() or reach <= 0:
            continue
        window = slice(low[1], high[1]), slice(low[0], high[0])
        y, x = np.mgrid[window]
        away, inside = distances(corners, np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1))
        away, inside = away.reshape(x.shape), inside.reshape(x.shape)
        if ignored:
            maps[1][window][inside] = 0.0
            continue
        maps[0][window][inside & (away >= reach)] = 1.0
        near = np.clip(1.0 - away / reach, 0.0, 1.0)
        maps[2][window] = np.maximum(maps[2][window], near)
        maps[3][window][(near > 0) | inside] = 1.0
    maps[2] = _BORDER[0] + (_BORDER[1] - _BORDER[0]) * maps[2]
    maps[1][maps[0] > 0] = 1.0
    maps[3] *= maps[1]
    return maps


def db_loss(planes: Any, truths: Sequence[Any], *, shrink: float, shares: bool) -> Any:
    """The loss of torch ``planes`` `(N, P, h, w)`, a scalar tensor.

    Plane 0 is the probability that a place lies in the middle of text: cross entropy, of the places without text only
    the hardest, three for each with text. Plane 1, where there is one, is the threshold: mean absolute error near text,
    and the soft Dice loss of the binary map ``1 / (1 + exp(-50 (P - T)))``. Without it the Dice loss is of plane 0.
    ``shares``: the planes are probabilities; else their logits.

    Raises:
        DataError: a truth is no placed `TextTruth`.
    """
    import torch
    import torch.nn.functional as functional

    for truth in truths:
        if not isinstance(truth, TextTruth):
            raise DataError(f"a truth is {type(truth).__name__}; text-detection is trained on a TextTruth")
    shape = (int(planes.shape[2]), int(planes.shape[3]))
    made: npt.NDArray[Any] = np.stack([target_maps(truth, shape, shrink=shrink) for truth in truths])
    middle, judged, border, near = torch.from_numpy(made).to(planes.device).unbind(1)
    logits = (planes.clamp(1e-6, 1 - 1e-6).logit() if shares else planes).float()
    found = logits[:, 0].sigmoid()
    each = functional.binary_cross_entropy_with_logits(logits[:, 0], middle, reduction="none")
    positive, negative = middle * judged, (1 - middle) * judged
    count = int(positive.sum())
    hardest = min(int(negative.sum()), max(int(_NEGATIVES * count), 64))
    worst = (each * negative).flatten().topk(hardest).values.sum() if hardest else each.sum() * 0
    entropy = ((each * positive).sum() + worst) / max(count + hardest, 1)
    if planes.shape[1] == 1:
        return entropy + _dice(found, middle, judged)
    threshold = logits[:, 1].sigmoid()
    binary = (_STEEP * (found - threshold)).sigmoid()
    edge = ((threshold - border).abs() * near).sum() / near.sum().clamp(min=1)
    return _WEIGHTS[0] * _dice(binary, middle, judged) + _WEIGHTS[1] * entropy + _WEIGHTS[2] * edge


def _dice(found: Any, wanted: Any, judged: Any) -> Any:
    """1 - the soft Dice coefficient over all judged places of the batch."""
    common = (found * wanted * judged).sum()
    return 1 - 2 * common / ((found * judged).sum() + (wanted * judged).sum()).clamp(min=1e-6)
