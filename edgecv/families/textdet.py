"""Text detection: where in a picture text stands, as turned rectangles or outlines, by a map of its middle lines.

M. Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2019, arXiv:1911.08947.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import Option, is_count, is_number, option_problems, setting
from edgecv.families.textdet_maps import db_loss
from edgecv.families.textdet_metric import METRICS, HarmonicMean
from edgecv.families.textdet_result import TextRegions
from edgecv.vision.image import Geometry, geometry
from edgecv.vision.polygons import tight_quad, unshrunk

__all__ = ["HEAD_NAMES", "KIND", "METRICS", "agree", "decode", "loss", "metric", "problems", "protected"]

KIND = "text-detection"
HEAD_NAMES: tuple[str, ...] = ("db",)

_SAME_SHARE = 0.75
_FEWEST_PLACES = 2
_OUTLINE_SHARE = 0.01
_OPTIONS: Mapping[str, Option] = {
    "threshold": Option(0.3, lambda value: is_number(value) and 0 < value < 1, "a probability between 0 and 1"),
    "shrink": Option(0.4, lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1"),
    "unclip": Option(0.0, lambda value: is_number(value) and value >= 0, "0 (undo the shrinking exactly) or a ratio"),
    "shape": Option("quad", lambda value: value in ("quad", "outline"), "quad or outline"),
    "most": Option(1000, is_count, "a whole number of pieces, 1 or more"),
}


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options: ``threshold`` (0.3), the probability from which on a place is text; ``shrink`` (0.4), how the pieces were
    shrunk in training; ``unclip`` (0), the ratio to area over perimeter by which they grow again, 0 for what undoes
    the shrinking of a rectangle exactly; ``shape``, ``quad`` for turned rectangles or ``outline`` for bent text;
    ``most`` (1000) pieces, the best ones.
    """
    if spec.head not in ("", *HEAD_NAMES):
        return [f"head is {spec.head!r}; text-detection has {', '.join(HEAD_NAMES)}"]
    wrong = option_problems(_OPTIONS, spec)
    if wrong:
        return wrong
    if len(spec.labels) != 1:
        return [f"there are {len(spec.labels)} labels; text-detection has one: what is found, such as text"]
    if len(outputs) != 1 or _plane_axis(outputs[0].shape) is None:
        return [f"the outputs have shapes {[output.shape for output in outputs]}; {_WANTED}"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> TextRegions:
    """The output of one picture -> its pieces of text, best first, in pixels of a picture of ``picture`` (h, w).

    Places of at least the probability ``threshold`` that touch are one piece. Its score is their mean probability;
    below ``spec.score_threshold`` it is left out. None for a picture of the size of the network input.

    Raises:
        ModelError: the output has another shape or holds NaN or infinity.
    """
    axis = _plane_axis(outputs[0].shape) if len(outputs) == 1 else None
    if axis is None:
        raise ModelError(f"the model gave outputs of shape {[output.shape for output in outputs]}; {_WANTED}")
    plane = np.take(np.asarray(outputs[0], dtype=np.float32), 0, axis=axis)[0]
    if not np.isfinite(plane).all():
        raise ModelError(
            f"{int((~np.isfinite(plane)).sum())} of {plane.size} scores are NaN or infinite: a layer overflows. "
            "Check the picture's normalisation and the weights; keep such layers in fp32."
        )
    shares = plane if spec.outputs == "probabilities" else 1 / (1 + np.exp(-plane.clip(-80, 80)))
    size = picture or contract.size
    place = Geometry(size, size, size, (0, 0)) if picture is None else geometry(picture, contract)
    if shares.shape[0] < place.size[0] and shares.shape[1] < place.size[1]:
        # A coarse map still tells by its slopes where between two places text ends.
        shares = cv2.resize(shares, place.size[::-1], interpolation=cv2.INTER_LINEAR)
    step = np.array([place.size[1] / shares.shape[1], place.size[0] / shares.shape[0]])
    found = [
        (score, _to_picture(corners * step, place, size)) for score, corners in _pieces(shares.astype(np.float32), spec)
    ]
    found.sort(key=lambda item: -item[0])
    kept = found[: int(setting(_OPTIONS, spec, "most"))]
    return TextRegions(tuple(corners for _, corners in kept), np.array([score for score, _ in kept], dtype=np.float32))


def agree(one: TextRegions, other: TextRegions) -> bool:
    """Whether three quarters of the pieces of both have a partner in the other (`TextRegions.likeness`)."""
    return one.likeness(other) >= _SAME_SHARE


def metric(spec: FamilySpec, name: str) -> HarmonicMean:
    """Counts pieces; ``name`` is ``hmean``, truths are `edgecv.families.textdet_result.TextTruth`.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(
            f"text-detection has no metric {name!r}; allowed: {', '.join(METRICS)} (precision and recall stand beside)"
        )
    return HarmonicMean()


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The loss of differentiable binarisation (`edgecv.families.textdet_maps.db_loss`), a scalar tensor.

    ``outputs`` are torch planes `(N, P, h, w)`: the probability and, where P is 2, the threshold; ``truths`` one placed
    `TextTruth` for each picture. ``label_smoothing`` means nothing here.

    Raises:
        ModelError: the output has another shape.
        DataError: a truth is of another kind.
    """
    planes = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    if planes.ndim != 4 or planes.shape[1] not in (1, 2):
        raise ModelError(f"the model gave {tuple(planes.shape)}; text-detection is trained on (N, 1 or 2, h, w)")
    shrink = float(setting(_OPTIONS, spec, "shrink"))
    return db_loss(planes, list(truths), shrink=shrink, shares=spec.outputs == "probabilities")


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the maps.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind=KIND)


_WANTED = (
    "text-detection is one output (1, P, h, w) or (1, h, w, P) with P = 1 (probability) or 2 (threshold beside it)"
)


def _plane_axis(shape: tuple[int, ...]) -> int | None:
    """Where the planes of an output of this shape stand; None where it does not fit."""
    if len(shape) == 4 and shape[0] == 1:
        return next((axis for axis in (1, 3) if shape[axis] in (1, 2)), None)
    return None


def _pieces(shares: FloatArray, spec: FamilySpec) -> list[tuple[float, npt.NDArray[np.float64]]]:
    """Score and corners `(K, 2)` (in places of the grid) of all that is text in the map ``shares`` `(h, w)`."""
    mask = (shares >= float(setting(_OPTIONS, spec, "threshold"))).astype(np.uint8)
    count, names, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for index in range(1, count):
        left, top, width, height, places = (int(value) for value in boxes[index])
        window = slice(top, top + height), slice(left, left + width)
        own = names[window] == index
        score = float(shares[window][own].mean())
        if places < _FEWEST_PLACES or score < spec.score_threshold:
            continue
        corners = _outline(own, spec) if setting(_OPTIONS, spec, "shape") == "outline" else _quad(own, spec)
        found.append((score, corners + np.array([left, top])))
    return found


def _quad(own: npt.NDArray[np.bool_], spec: FamilySpec) -> npt.NDArray[np.float64]:
    """The smallest turned rectangle around places, grown to what it was before the shrinking."""
    y, x = np.nonzero(own)
    centres = np.stack([x, y], axis=1) + 0.5
    inner = tight_quad(centres)
    # Half a place from the centres of the outermost to their edge.
    width, height = (float(np.linalg.norm(inner[index] - inner[index + 1])) + 1.0 for index in (0, 1))
    return tight_quad(centres, grow=0.5 + _growth(width, height, width * height, 2 * (width + height), spec))


def _outline(own: npt.NDArray[np.bool_], spec: FamilySpec) -> npt.NDArray[np.float64]:
    """The outline of places, grown as long text of their mean height must be; at least three corners."""
    size = int(own.sum())
    border, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    length = max(4.0, cv2.arcLength(max(border, key=len), True) + 4.0)
    # A band of this area and perimeter: w + h = L / 2, w h = A.
    half = length / 2
    root = math.sqrt(max(0.0, half * half - 4.0 * size))
    reach = _growth((half + root) / 2, (half - root) / 2, float(size), length, spec)
    pad = math.ceil(reach) + 2
    away = cv2.distanceTransform(1 - np.pad(own.astype(np.uint8), pad), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    grown, _ = cv2.findContours((away <= reach + 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    line = max(grown, key=len)
    corners = cv2.approxPolyDP(line, max(0.5, _OUTLINE_SHARE * cv2.arcLength(line, True)), True)
    if len(corners) < 3:
        corners = line
    moved: npt.NDArray[np.float64] = corners.reshape(-1, 2).astype(np.float64) + 0.5 - pad
    return moved


def _growth(width: float, height: float, size: float, length: float, spec: FamilySpec) -> float:
    ratio = float(setting(_OPTIONS, spec, "unclip"))
    if ratio > 0:
        return ratio * size / length
    return unshrunk(width, height, keep=float(setting(_OPTIONS, spec, "shrink")))


def _to_picture(corners: npt.NDArray[np.float64], place: Geometry, size: tuple[int, int]) -> FloatArray:
    moved = place.to_picture(corners)
    return np.clip(moved, 0.0, np.array([size[1], size[0]], dtype=np.float64)).astype(np.float32)
