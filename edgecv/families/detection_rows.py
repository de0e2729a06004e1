"""What a detector predicts in training, and how rows of boxes are taken out of output tensors; torch, batch first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError

__all__ = ["LARGEST_LOG", "Cells", "Size", "corners", "growth", "joined", "like", "pair", "places", "rows_of"]

LARGEST_LOG = 20.0
"""Sides do not grow further than by ``exp`` of this, as `edgecv.families.heads.common.growth` has it."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Cells:
    """Of a batch of N pictures with M cells (or priors, or queries) each; nothing is cut or sorted.

    ``scores`` `(N, M, C)` probabilities of the classes; ``objectness`` `(N, M)` where the head has one; ``boxes``
    `(N, M, 4)` x1, y1, x2, y2 in pixels of the network's input. ``points`` `(N, M, 2K)` are x and y of keypoints in
    pixels, where the head has them. ``centres`` `(M, 2)` in pixels and ``strides`` `(M,)` say which part of the
    picture a cell answers for; None where that is not known, or rows have no place of their own. ``exclusive``: a
    cell's scores sum to 1 (softmax).
    """

    scores: Any
    objectness: Any | None
    boxes: Any
    points: Any | None = None
    centres: FloatArray | None = None
    strides: FloatArray | None = None
    exclusive: bool = False

    @property
    def confidence(self) -> Any:
        """Probability that there is an object, `(N, M)`."""
        best = self.scores.amax(dim=-1)
        return best if self.objectness is None else best * self.objectness


def rows_of(output: Any, width: int, *, first: bool = False) -> Any:
    """`(N, M, width)` float32 of `(N, M, width)`, `(N, width, M)`, `(N, width, h, w)` or `(N, h, w, width)`.

    ``first``: channels come first where both fit.

    Raises:
        ModelError: it has another shape.
    """
    shape = tuple(output.shape)
    if len(shape) not in (3, 4) or width not in (shape[1], shape[-1]):
        raise ModelError(f"an output has shape {shape}; {width} values for each box are needed. Check the labels.")
    if shape[1] == width and (first or shape[-1] != width):
        return output.float().flatten(2).transpose(1, 2)
    return output.float().reshape(shape[0], -1, width)


def pair(outputs: Sequence[Any], columns: int, *, boxes_first: bool) -> tuple[Any, Any]:
    """Boxes `(N, M, 4)` and scores `(N, M, columns)` of two outputs, told apart by their last axis, else by the order.

    Raises:
        ModelError: there are not two outputs, or they have other shapes, or not equally many rows.
    """
    if len(outputs) != 2:
        raise ModelError(f"the model gave {len(outputs)} outputs; boxes and scores are needed")
    one, other = outputs
    swap = not boxes_first if columns == 4 else one.shape[-1] != 4
    boxes, scores = (other, one) if swap else (one, other)
    rows, values = rows_of(boxes, 4), rows_of(scores, columns)
    if rows.shape[1] != values.shape[1]:
        raise ModelError(
            f"the model gave {rows.shape[1]} boxes and {values.shape[1]} rows of scores; they must be equally many"
        )
    return rows, values


def corners(boxes: Any) -> Any:
    """Boxes `(..., 4)` as centre and size -> x1, y1, x2, y2."""
    return joined([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2])


def growth(values: Any, *, largest: float = LARGEST_LOG) -> Any:
    """``exp`` of the logarithms of sides, bounded."""
    return values.clamp(max=largest).exp()


def places(cells: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centres in pixels `(M, 2)` and strides `(M,)` of cells given as column, row and stride."""
    return (cells[:, :2] + np.float32(0.5)) * cells[:, 2:], cells[:, 2]


def joined(parts: Sequence[Any], *, axis: int = -1) -> Any:
    """``parts`` one behind the other."""
    import torch

    return torch.cat(list(parts), dim=axis)


def like(tensor: Any, array: Any) -> Any:
    """``array`` as a float32 tensor on the device of ``tensor``."""
    import torch

    return torch.tensor(np.asarray(array, dtype=np.float32), device=tensor.device)
