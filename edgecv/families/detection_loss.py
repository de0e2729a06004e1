"""Losses of detectors on labels, by head: on the same outputs that are exported, so that every step trains one graph.

Truths are `DetectionTruth` in pixels of the network's input. Boxes around many objects (``crowd``) are no objects,
and cells whose centre lies in one need not say that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError, ModelError
from edgecv.families.detection_assign import aligned, paired, sim_ota
from edgecv.families.detection_cells import end2end_cells, fastest_cells, yolo_cells, yolox_cells
from edgecv.families.detection_focal_loss import fcos_loss, retinanet_loss
from edgecv.families.detection_rows import Cells, Size, like
from edgecv.families.detection_set_loss import set_loss
from edgecv.families.detection_ssd_loss import ssd_loss
from edgecv.families.detection_targets import SMALLEST, cross_entropy, objects, outside_crowds, size_of

__all__ = ["CELLS_OF_AN_OBJECT", "Owned", "complete_iou", "detection_loss", "trains", "yolo_loss"]

CELLS_OF_AN_OBJECT = 10
"""So many cells learn an object, at most."""
_BOX_WEIGHT = 5.0


@dataclass(frozen=True)
class Owned:
    """The cells of one picture that learn an object: ``cells`` `(P,)`, the objects ``owners`` `(P,)` (counted without
    crowds) and how well each fits its object, ``weights`` `(P,)` 0..1."""

    cells: Any
    owners: Any
    weights: Any


def trains(spec: FamilySpec) -> bool:
    """Whether there is a loss for networks with this head."""
    return spec.head in _LOSSES


def detection_loss(outputs: Any, truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """The loss of ``spec.head``, a scalar tensor, in shares of one object.

    ``outputs`` are torch tensors, batch first, as they are exported; ``truths`` one for each picture.

    Raises:
        ModelError: networks of this head are trained elsewhere; they can only learn from a teacher. Or the outputs
            do not fit the head.
        DataError: the truths are no `DetectionTruth` in pixels of the network's input, or have a class without label.
    """
    if spec.head not in _LOSSES:
        raise ModelError(
            f"edgecv has no loss on labels for head {spec.head!r}; set distill: 1.0, so that the original network "
            f"teaches, and importance: magnitude or output in prune. Heads that learn from labels: {', '.join(_LOSSES)}"
        )
    _check(truths, spec)
    tensors = [outputs] if hasattr(outputs, "ndim") else list(outputs)
    return _LOSSES[spec.head](tensors, truths, spec)


def _check(truths: Sequence[DetectionTruth], spec: FamilySpec) -> None:
    for truth in truths:
        if not isinstance(truth, DetectionTruth) or truth.size is None:
            raise DataError(
                f"the truth of a picture is {type(truth).__name__}; detection learns from boxes in the network's input"
            )
        if len(truth.class_ids) and not 0 <= truth.class_ids.min() <= truth.class_ids.max() < len(spec.labels):
            raise DataError(f"a truth has classes {truth.class_ids.tolist()}; there are {len(spec.labels)} labels")


def yolo_loss(
    outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec
) -> tuple[Any, tuple[Owned, ...]]:
    """The loss of head ``yolo``: complete IoU and cross entropy towards how well a cell fits its object (`aligned`).

    With the option ``assign: one`` an object has one cell (YOLOv10), so that no suppression is needed afterwards.
    Also gives which cells learned what, for each picture.

    Raises:
        ModelError: the outputs do not fit the labels, or no maps of this size have so many cells.
        DataError: the truths do not fit, as in `detection_loss`.
    """
    _check(truths, spec)
    found = _placed(yolo_cells(outputs, spec, size_of(truths)), size_of(truths))
    each = 1 if spec.options.get("assign", "many") == "one" else CELLS_OF_AN_OBJECT
    centres = like(found.boxes, found.centres)

    def owners(index: int, boxes: Any, classes: Any) -> tuple[Any, Any]:
        return aligned(found.scores[index].detach(), found.boxes[index].detach(), centres, boxes, classes, each=each)

    return _aligned_loss(found, truths, owners)


def _yolo(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    return yolo_loss(outputs, truths, spec)[0]


def _end2end(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Complete IoU and cross entropy, one row for each object (`paired`).

    A row tells its best class alone, which has no gradient: rows of a wrong class only learn not to be sure.
    """
    found, kinds = end2end_cells(outputs, spec, size_of(truths))

    def owners(index: int, boxes: Any, classes: Any) -> tuple[Any, Any]:
        return paired(found.scores[index, :, 0].detach(), found.boxes[index].detach(), kinds[index], boxes, classes)

    return _aligned_loss(found, truths, owners)[0]


def _aligned_loss(
    found: Cells, truths: Sequence[DetectionTruth], owners: Callable[[int, Any, Any], tuple[Any, Any]]
) -> tuple[Any, tuple[Owned, ...]]:
    """Cross entropy of all scores towards the weights of their cells, and boxes by those weights."""
    import torch

    boxes_lost, owned = [found.boxes.new_zeros(())], []
    wanted, counts = torch.zeros_like(found.scores), torch.ones_like(found.scores[..., 0])
    single = found.scores.shape[2] == 1
    for index, truth in enumerate(truths):
        real, classes = objects(truth, found.boxes)
        counts[index] = _counted(truth, found, index)
        with torch.no_grad():
            learned = _owned(*owners(index, real, classes)) if len(real) else _owned(counts[index, :0], counts[0, :0])
        cells, mine = learned.cells, learned.owners
        columns = torch.zeros_like(mine) if single else classes[mine]
        wanted[index, cells, columns] = learned.weights
        counts[index, cells] = 1.0
        lost = 1.0 - complete_iou(found.boxes[index, cells], real[mine])
        boxes_lost.append((lost * learned.weights).sum())
        owned.append(learned)
    total = wanted.sum().clamp_min(1.0)
    scores_lost = (cross_entropy(found.scores, wanted).sum(dim=2) * counts).sum()
    return (scores_lost + _BOX_WEIGHT * sum(boxes_lost[1:], boxes_lost[0])) / total, tuple(owned)


def _owned(owner: Any, weight: Any) -> Owned:
    """Of what `edgecv.families.detection_assign` gives for all cells, those that have an object."""
    import torch

    cells = torch.nonzero(owner >= 0)[:, 0]
    return Owned(cells, owner[cells].long(), weight[cells])


def _yolox(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Objectness, classes and 5 times ``1 - IoU ** 2`` (Ge et al., arXiv:2107.08430), cells by `sim_ota`."""
    return _objectness_loss(_placed(yolox_cells(outputs, spec, size_of(truths)), size_of(truths)), truths)


def _fastest(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """The same for FastestDet, whose classes exclude each other; its cells are chosen as YOLOX chooses them."""
    return _objectness_loss(fastest_cells(outputs, spec, size_of(truths)), truths)


def _objectness_loss(found: Cells, truths: Sequence[DetectionTruth]) -> Any:
    import torch

    assert found.objectness is not None
    centres, strides = like(found.boxes, found.centres), like(found.boxes, found.strides)
    wanted, counts = torch.zeros_like(found.objectness), torch.ones_like(found.objectness)
    lost, learned = [found.boxes.new_zeros(())], 0
    for index, truth in enumerate(truths):
        real, classes = objects(truth, found.boxes)
        counts[index] = _counted(truth, found, index)
        if not len(real):
            continue
        boxes, scores = found.boxes[index], found.scores[index]
        with torch.no_grad():
            sure = scores if found.exclusive else (scores * found.objectness[index][:, None]).clamp_min(0).sqrt()
            owner, overlap = sim_ota(_class_cost(sure, classes, found.exclusive), boxes, centres, strides, real)
            cells = torch.nonzero(owner >= 0)[:, 0]
            mine = owner[cells]
            wanted[index, cells], counts[index, cells] = 1.0, 1.0
        targets = torch.nn.functional.one_hot(classes[mine], scores.shape[1]).float()
        if not found.exclusive:
            targets = targets * overlap[cells][:, None]
        shared = _paired_iou(boxes[cells], real[mine])
        lost.append(_class_loss(scores[cells], targets, found.exclusive).sum())
        lost.append(_BOX_WEIGHT * (1.0 - shared.square()).sum())
        learned += len(cells)
    sure_lost = (cross_entropy(found.objectness, wanted) * counts).sum()
    return (sure_lost + sum(lost)) / max(learned, 1)


def _class_cost(sure: Any, classes: Any, exclusive: bool) -> Any:
    """What each object `(G,)` would cost in each cell by its class, `(G, M)`."""
    right = sure.clamp(SMALLEST, 1 - SMALLEST)
    if exclusive:
        return -right[:, classes].T.log()
    none = -(1 - right).log()
    return none.sum(dim=1)[None] - none[:, classes].T - right[:, classes].T.log()


def _class_loss(scores: Any, targets: Any, exclusive: bool) -> Any:
    if exclusive:
        return -(targets * scores.clamp_min(SMALLEST).log())
    return cross_entropy(scores, targets)


def complete_iou(one: Any, other: Any) -> Any:
    """IoU less the distance of the middles and the difference of the shapes, `(K,)` of boxes `(K, 4)`.

    Zheng et al., arXiv:1911.08287.
    """
    import math

    import torch

    shared = _paired_iou(one, other)
    hull = torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])
    away = (one[:, :2] + one[:, 2:] - other[:, :2] - other[:, 2:]).square().sum(dim=1) / 4
    sides = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(SMALLEST) for boxes in (one, other)]
    tilt = torch.atan(sides[0][:, 0] / sides[0][:, 1]) - torch.atan(sides[1][:, 0] / sides[1][:, 1])
    shape = 4 / math.pi**2 * tilt.square()
    with torch.no_grad():
        share = shape / (1.0 - shared + shape).clamp_min(SMALLEST)
    return shared - away / hull.square().sum(dim=1).clamp_min(SMALLEST) - share * shape


def _paired_iou(one: Any, other: Any) -> Any:
    """IoU `(K,)` of boxes `(K, 4)`, row by row."""
    import torch

    sides = torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])
    shared = sides.clamp_min(0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (one, other)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(SMALLEST)


def _counted(truth: DetectionTruth, found: Cells, index: int) -> Any:
    """`(M,)`: 0 for cells that lie in a crowd, by their centre or, without one, by the middle of their box."""
    boxes = found.boxes[index].detach()
    places = (boxes[:, :2] + boxes[:, 2:]) / 2 if found.centres is None else like(boxes, found.centres)
    return outside_crowds(truth, places)


def _placed(found: Cells, size: Size) -> Cells:
    """``found``, which has to know where its cells are."""
    if found.centres is None:
        raise ModelError(
            f"the output has {found.boxes.shape[1]} boxes; no maps of an input of {list(size)} have so many cells. "
            "To train on labels, export raw maps, or set the head's strides where it has such an option, or set "
            "distill: 1.0."
        )
    return found


_LOSSES: dict[str, Callable[[Sequence[Any], Sequence[DetectionTruth], FamilySpec], Any]] = {
    "yolox": _yolox,
    "yolo": _yolo,
    "yolo-end2end": _end2end,
    "fastestdet": _fastest,
    "ssd": ssd_loss,
    "retinanet": retinanet_loss,
    "fcos": fcos_loss,
    "detr": set_loss,
}
