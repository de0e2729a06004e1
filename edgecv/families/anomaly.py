"""Anomaly detection (visual inspection): how unusual each part of a picture is for a network that saw good ones only.

A network gives one map, larger where it is more unusual; the picture's score is the map's highest value, or the mean
of the highest few, unless the network gives a score of its own. The recipe's step ``fit`` brings a network's map
to scale: a good picture hardly ever scores above ``score_threshold``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.anomaly_map import AnomalyMap, AnomalyTruth
from edgecv.families.anomaly_metric import METRICS, DefectMetric
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import Option, is_count, is_number, option_problems, setting
from edgecv.vision.image import Geometry, geometry
from edgecv.vision.maps import plane_to_picture

__all__ = ["HEAD_NAMES", "KIND", "METRICS", "agree", "decode", "is_good", "loss", "metric", "problems", "protected"]

KIND = "anomaly"
HEAD_NAMES: tuple[str, ...] = ()
_SAME = 0.95

OPTIONS: Mapping[str, Option] = {
    "top": Option(1, is_count, "a whole number of at least 1"),
    "unit": Option(1.0, lambda value: is_number(value) and value > 0, "a number above 0"),
}
"""``top``: the picture's score is the mean of so many of the map's highest values. ``unit``: the value of the output
that counts as 1, so that ``score_threshold``, a number from 0 to 1, can be set for networks of any scale."""


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the options or outputs of these shapes do not fit, in words; empty when they do.

    Allowed is a map `(1, 1, h, w)`, `(1, h, w, 1)` or `(1, h, w)`, and beside it a score of one value.
    """
    if spec.head:
        return ["family anomaly has one layout of outputs only; take head away"]
    found = option_problems(OPTIONS, spec)
    if found:
        return found
    if _places([output.shape for output in outputs]) is None:
        shapes = [output.shape for output in outputs]
        return [f"the outputs have shapes {shapes}; an anomaly map is (1, 1, h, w), with at most a score (1, 1) beside"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> AnomalyMap:
    """The outputs of one picture -> how unusual each pixel of a picture of (height, width) ``picture`` is.

    The map is linearly interpolated to the picture's pixels; what lies in a letterbox's padding counts for nothing,
    neither in the map nor in the score. None for a picture of the size of the network input.

    Raises:
        ModelError: the outputs have other shapes or hold NaN or infinity.
    """
    places = _places([output.shape for output in outputs])
    if places is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; a map (1, 1, h, w) is needed, and at most a score")
    shape = _plane_shape(outputs[places[0]].shape)
    unit = np.float32(setting(OPTIONS, spec, "unit"))
    plane = np.asarray(outputs[places[0]], dtype=np.float32).reshape(shape or ()) / unit
    given = None if places[1] is None else float(np.asarray(outputs[places[1]]).reshape(-1)[0]) / float(unit)
    broken = int((~np.isfinite(plane)).sum()) + int(given is not None and not np.isfinite(given))
    if broken:
        raise ModelError(
            f"{broken} values of the anomaly map are NaN or infinite: a layer overflows. Check the picture's "
            "normalisation and the weights; keep such layers in fp32."
        )
    size = picture or contract.size
    place = Geometry(size, size, size, (0, 0)) if picture is None else geometry(picture, contract)
    score = _score(plane, place, setting(OPTIONS, spec, "top")) if given is None else given
    return AnomalyMap(plane_to_picture(plane, place), score, spec.score_threshold)


def agree(one: AnomalyMap, other: AnomalyMap) -> bool:
    """Whether the verdicts are the same, or the scores nearly are (within 5 %) on both sides of the threshold."""
    return one.defect == other.defect or one.likeness(other) >= _SAME


def metric(spec: FamilySpec, name: str) -> DefectMetric:
    """How well defective pictures are told from good ones; ``name`` is ``auroc``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"anomaly has no metric {name!r}; allowed: {', '.join(METRICS)} (pixel_auroc and pro beside)")
    return DefectMetric(spec)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The mean of the map over good pictures; a scalar tensor. ``outputs`` are torch values, batch first.

    Students learn to match their teacher, and auto-encoders their input, on good pictures alone: the map itself is
    what is wrong there (Wang et al., arXiv:2103.04257). Pictures with a defect among ``truths`` count for
    nothing. ``label_smoothing`` means nothing here.
    """
    import torch

    tensors = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    plane = max(tensors, key=lambda tensor: tensor.numel())
    good = torch.tensor([is_good(truth) for truth in truths], device=plane.device, dtype=plane.dtype)
    means = plane.float().flatten(1).mean(dim=1)
    return (means * good).sum() / good.sum().clamp(min=1)


def is_good(truth: Any) -> bool:
    """Whether this truth is that of a picture without a defect; pictures without any truth count as good."""
    return truth is None or (isinstance(truth, AnomalyTruth) and not truth.defect)


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` whose outputs are compared with what is usual.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="anomaly map")


def _places(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int | None] | None:
    """Which output is the map and which the score (None: there is none); None where they do not fit."""
    scores = [index for index, shape in enumerate(shapes) if all(length == 1 for length in shape)]
    maps = [index for index, shape in enumerate(shapes) if index not in scores and _plane_shape(shape) is not None]
    if len(maps) != 1 or len(scores) > 1 or len(shapes) != len(maps) + len(scores):
        return None
    return maps[0], scores[0] if scores else None


def _plane_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(h, w) of `(1, 1, h, w)`, `(1, h, w, 1)` or `(1, h, w)`; None for anything else."""
    if len(shape) == 3 and shape[0] == 1:
        return shape[1], shape[2]
    if len(shape) == 4 and shape[0] == 1 and 1 in (shape[1], shape[3]):
        return (shape[2], shape[3]) if shape[1] == 1 else (shape[1], shape[2])
    return None


def _score(plane: FloatArray, place: Geometry, top: int) -> float:
    """The mean of the ``top`` highest values of the cells whose centres the picture covers."""
    rows, columns = (_covered(plane.shape[axis], place, axis) for axis in (0, 1))
    seen = plane[rows, columns].ravel()
    highest = np.partition(seen, len(seen) - min(top, len(seen)))[-min(top, len(seen)) :]
    return float(highest.mean(dtype=np.float64))


def _covered(cells: int, place: Geometry, axis: int) -> slice:
    """The cells along an axis whose centres lie on the picture; at least one."""
    step = place.size[axis] / cells
    first = max(0, int(np.ceil(place.offset[axis] / step - 0.5)))
    last = min(cells, int(np.floor((place.offset[axis] + place.resized[axis]) / step - 0.5)) + 1)
    return slice(min(first, cells - 1), max(last, min(first, cells - 1) + 1))
