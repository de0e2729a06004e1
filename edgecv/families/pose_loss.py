"""What pose networks are trained towards: peaks on maps, distributions over bins, coordinates, or boxes with points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError, ModelError
from edgecv.families.detection_loss import yolo_loss
from edgecv.families.detection_rows import rows_of
from edgecv.families.detection_targets import cross_entropy
from edgecv.families.heads.common import setting
from edgecv.families.pose_heads import HEATMAP_OPTIONS, REGRESSION_OPTIONS, SIMCC_OPTIONS
from edgecv.families.pose_metric import sigmas_of
from edgecv.families.pose_truth import PoseTruth

_POINTS_WEIGHT = 8.0


def trains(spec: FamilySpec) -> bool:
    """Whether there is a loss on labels for ``spec.head``."""
    return spec.head in _LOSSES


def pose_loss(outputs: Any, truths: Sequence[PoseTruth], spec: FamilySpec) -> Any:
    """The loss of ``spec.head``, a scalar tensor; keypoints without a label do not count.

    Raises:
        ModelError: networks of this head are trained elsewhere; they can only learn from a teacher.
        DataError: the truths are no `PoseTruth`, or of another number of keypoints.
    """
    if spec.head not in _LOSSES:
        raise ModelError(
            f"edgecv has no loss on labels for head {spec.head}; set distill: 1.0 to learn from the original network, "
            f"or use one of {', '.join(_LOSSES)}"
        )
    wrong = next((truth for truth in truths if not isinstance(truth, PoseTruth)), None)
    if wrong is not None:
        raise DataError(f"the truth of a picture is {type(wrong).__name__}; pose needs data of kind coco-keypoints")
    return _LOSSES[spec.head](outputs, truths, spec)


def _heatmap(outputs: Any, truths: Sequence[PoseTruth], spec: FamilySpec) -> Any:
    """Squared error against a Gaussian peak at each labelled keypoint (Xiao et al., arXiv:1804.06208).

    ``outputs`` is `(N, K, h, w)`. In units of the peaks' own mean square, so that the size of the maps does not matter.
    A map counts where its keypoint is labelled, or where there is no person at all.
    """
    maps = _first(outputs)
    sigma = float(setting(HEATMAP_OPTIONS, spec, "sigma"))
    inner = 0.5 if setting(HEATMAP_OPTIONS, spec, "cells") == "centre" else 0.0
    target, weight = peaks(truths, tuple(maps.shape), sigma=sigma, inner=inner)
    target, weight = (_like(maps, array) for array in (target, weight))
    error = ((maps.float() - target).square().mean(dim=(2, 3)) * weight).sum()
    scale = (target.square().mean(dim=(2, 3)) * weight).sum()
    return error / scale.clamp(min=1e-6)


def peaks(
    truths: Sequence[PoseTruth], shape: tuple[int, ...], *, sigma: float, inner: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Target maps `(N, K, h, w)` float32 with a peak of height 1 at each labelled keypoint, and weights `(N, K)`.

    ``sigma`` is in cells; ``inner`` says where in its cell a value stands: 0.5 at the centre, 0 at the corner.
    """
    batch, count, rows, columns = shape
    target, weight = np.zeros(shape, dtype=np.float32), np.zeros((batch, count), dtype=np.float32)
    for index, truth in enumerate(truths):
        _check(truth, count)
        people = ~truth.crowd
        if not people.any():
            weight[index] = 1.0
            continue
        labelled = truth.labelled[people]
        weight[index] = labelled.any(axis=0)
        scale = np.array([columns / truth.size[1], rows / truth.size[0]])
        places = truth.keypoints[people, :, :2] * scale - inner
        across = np.exp(-((np.arange(columns) - places[..., :1]) ** 2) / (2 * sigma**2))
        down = np.exp(-((np.arange(rows) - places[..., 1:]) ** 2) / (2 * sigma**2)) * labelled[..., None]
        target[index] = (down[..., :, None] * across[..., None, :]).max(axis=0)
    return target, weight


def _simcc(outputs: Any, truths: Sequence[PoseTruth], spec: FamilySpec) -> Any:
    """Divergence of the bins of each axis from a Gaussian around the keypoint (Li et al., arXiv:2107.03332)."""
    sigma = float(setting(SIMCC_OPTIONS, spec, "sigma"))
    across, down = outputs
    total = across.new_zeros((), dtype=_float32())
    for axis, given in enumerate((across, down)):
        bins = given.shape[2]
        target = np.zeros(tuple(given.shape), dtype=np.float32)
        weight = np.zeros(tuple(given.shape[:2]), dtype=np.float32)
        for index, truth in enumerate(truths):
            _check(truth, given.shape[1])
            row = _main(truth)
            if row is None:
                continue
            scale = bins / truth.size[1 - axis]
            away = np.arange(bins) - truth.keypoints[row, :, axis : axis + 1] * scale
            curve = np.exp(-((away / (sigma * scale)) ** 2) / 2)
            target[index] = curve / np.maximum(curve.sum(axis=1, keepdims=True), 1e-12)
            weight[index] = truth.labelled[row]
        total = total + _divergence(given, _like(given, target), _like(given, weight), spec)
    return total / 2


def _divergence(given: Any, target: Any, weight: Any, spec: FamilySpec) -> Any:
    values = given.float()
    logs = values.clamp_min(1e-12).log() if spec.outputs == "probabilities" else values.log_softmax(dim=2)
    each = (target * (target.clamp_min(1e-12).log() - logs)).sum(dim=2)
    return (each * weight).sum() / weight.sum().clamp(min=1.0)


def _regression(outputs: Any, truths: Sequence[PoseTruth], spec: FamilySpec) -> Any:
    """Mean absolute error of the labelled coordinates, as shares of the input's sides."""
    given = _first(outputs).float().reshape(len(truths), -1, 2)
    target, weight = (np.zeros((len(truths), given.shape[1], size), dtype=np.float32) for size in (2, 1))
    sides = np.ones((len(truths), 1, 2), dtype=np.float32)
    for index, truth in enumerate(truths):
        _check(truth, given.shape[1])
        row = _main(truth)
        sides[index] = truth.size[::-1]
        if row is not None:
            target[index] = truth.keypoints[row, :, :2] / sides[index]
            weight[index] = truth.labelled[row][:, None]
    target, weight, sides = (_like(given, array) for array in (target, weight, sides))
    shares = given if setting(REGRESSION_OPTIONS, spec, "normalized") else given / sides
    return ((shares - target).abs() * weight).sum() / (2 * weight.sum()).clamp(min=1.0)


def _yolo(outputs: Any, truths: Sequence[PoseTruth], spec: FamilySpec) -> Any:
    """The loss of head ``yolo`` on the persons' boxes, and of each cell's keypoints 1 - their similarity (OKS).

    Maji et al., YOLO-Pose, arXiv:2204.06806, equations 2 and 3. ``outputs`` is `(N, 5 + 3K, M)` or turned. A
    keypoint's score learns whether it is labelled.
    """
    output = _first(outputs)
    width = min(output.shape[1:])
    rows = rows_of(output, width, first=True)
    boxes = [DetectionTruth(truth.boxes, _persons(truth), truth.crowd, truth.area, truth.size) for truth in truths]
    plain = replace(spec, head="yolo", labels=("person",), options={})
    lost, owned = yolo_loss([rows[..., :5].transpose(1, 2)], boxes, plain)
    count = (width - 5) // 3
    sigmas = _like(rows, sigmas_of(spec, count).astype(np.float32))
    total, weights = rows.new_zeros(()), rows.new_zeros(())
    for index, (truth, learned) in enumerate(zip(truths, owned, strict=True)):
        _check(truth, count)
        if not len(learned.cells):
            continue
        real = _like(rows, truth.keypoints[~truth.crowd])[learned.owners]
        area = _like(rows, truth.area[~truth.crowd])[learned.owners].clamp_min(1.0)
        found = rows[index, learned.cells, 5:].unflatten(1, (count, 3))
        labelled = (real[..., 2] > 0).to(rows.dtype)
        away = (found[..., :2] - real[..., :2]).square().sum(dim=-1) / (8 * sigmas.square() * area[:, None])
        far = ((1 - (-away).exp()) * labelled).sum(dim=1) / labelled.sum(dim=1).clamp_min(1.0)
        unsure = cross_entropy(found[..., 2], labelled).mean(dim=1)
        total = total + ((_POINTS_WEIGHT * far + unsure) * learned.weights).sum()
        weights = weights + learned.weights.sum()
    return lost + total / weights.clamp_min(1.0)


def _persons(truth: PoseTruth) -> Any:
    return np.zeros(len(truth), dtype=np.int64)


_LOSSES: dict[str, Callable[[Any, Sequence[PoseTruth], FamilySpec], Any]] = {
    "heatmap": _heatmap,
    "simcc": _simcc,
    "regression": _regression,
    "yolo-pose": _yolo,
}


def _main(truth: PoseTruth) -> int | None:
    """The person of a picture that shows one: the largest that is labelled; None where there is none."""
    sizes = np.where(truth.ignored, -1.0, truth.area)
    return int(sizes.argmax()) if sizes.size and sizes.max() >= 0 else None


def _check(truth: PoseTruth, count: int) -> None:
    if len(truth) and truth.keypoints.shape[1] != count:
        raise DataError(f"the truth has {truth.keypoints.shape[1]} keypoints, the model {count}")


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def _like(tensor: Any, array: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor.device)


def _float32() -> Any:
    import torch

    return torch.float32
