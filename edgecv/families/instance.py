"""Instance segmentation: objects with classes, scores and the pixels that each one covers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.detection import kept
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import option_problems, setting
from edgecv.families.instance_heads import HEADS, MaskHead, painted
from edgecv.families.instance_loss import instance_loss, trains
from edgecv.families.instance_metric import METRICS, MaskPrecision, partners_of
from edgecv.vision.image import Geometry, geometry

__all__ = [
    "HEAD_NAMES",
    "KIND",
    "METRICS",
    "agree",
    "decode",
    "loss",
    "metric",
    "problems",
    "protected",
    "sorts_rows",
    "trains",
]

KIND = "instance"
HEAD_NAMES: tuple[str, ...] = tuple(HEADS)


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options of both heads: those of non-maximum suppression (``agnostic``, ``soft``, ``soft_sigma``), ``normalized``
    (boxes are shares of the input) and ``mask_threshold`` (0.5), from which on a pixel belongs to an object.
    """
    if spec.head not in HEADS:
        near = difflib.get_close_matches(spec.head, HEADS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return [f"family.head is {spec.head!r}; allowed for instance: {', '.join(HEADS)}.{hint}"]
    head = HEADS[spec.head]
    return option_problems(head.options, spec) or head.problems(spec, [output.shape for output in outputs])


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Detections:
    """Raw outputs of one picture -> its objects with their masks, best first, at most ``spec.max_detections``.

    Boxes and masks are pixels of a picture of (height, width) ``picture``, cut at its edges; None for the size of the
    network input. Objects of whose box nothing is left are dropped; a mask may be empty.

    Raises:
        ModelError: the outputs do not fit the head, or scores are NaN.
    """
    head = _head(spec)
    shape = picture or contract.size
    place = Geometry(shape, shape, shape, (0, 0)) if picture is None else geometry(picture, contract)
    # A wild network may give anything; what is not finite is dropped below.
    with np.errstate(over="ignore", invalid="ignore"):
        found = head.decode(outputs, spec, contract)
        rows, scores = kept(found.candidates, spec, suppress=head.suppress(spec))
        whole = place.boxes_to_picture(found.candidates.boxes[rows], clip=False).astype(np.float32)
        boxes = whole.clip(0, np.array([shape[1], shape[0]] * 2, dtype=np.float32))
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & np.isfinite(whole).all(axis=1)
        rows = rows[seen]
        threshold = setting(head.options, spec, "mask_threshold")
        masks = painted(found, rows, whole[seen], place, threshold=threshold)
    ids = found.candidates.class_ids[rows]
    return Detections(boxes[seen], scores[seen].astype(np.float32), ids, spec.labels, masks=masks)


def agree(one: Detections, other: Detections) -> bool:
    """Whether at least 90 % of the objects of both have a partner: the same class, a mask IoU of at least 0.5.

    With fewer than ten objects in each that is all of them.
    """
    total = len(one) + len(other)
    if total == 0:
        return True
    return 2 * int((partners_of(one, other) >= 0).sum()) >= 0.9 * total


def metric(spec: FamilySpec, name: str) -> MaskPrecision:
    """Average precision of masks as COCO defines it; ``name`` is one of `METRICS`.

    Truths are `edgecv.families.instance_truth.InstanceTruth`.

    Raises:
        UsageError: there is no such metric.
        ToolchainError: faster-coco-eval is not installed.
    """
    if name not in METRICS:
        raise UsageError(f"instance has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return MaskPrecision(spec, name)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The loss of head ``prototypes``, a scalar tensor (`edgecv.families.instance_loss`).

    ``outputs`` are torch tensors, batch first; ``truths`` one `InstanceTruth` for each picture, in pixels of the
    network's input. ``label_smoothing`` does not matter: scores learn how well their box fits.

    Raises:
        ModelError: the head has no loss, or the outputs do not fit it.
        DataError: the truths do not fit.
    """
    return instance_loss(outputs, truths, spec)


def sorts_rows(spec: FamilySpec) -> bool:
    """Whether the network itself picks and orders what it found, best first."""
    return spec.head == "rois"


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that make boxes, scores, masks and prototypes.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="masks")


def _head(spec: FamilySpec) -> MaskHead:
    if spec.head not in HEADS:
        raise ModelError(f"family.head is {spec.head!r}; allowed for instance: {', '.join(HEADS)}")
    return HEADS[spec.head]
