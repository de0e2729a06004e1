"""Losses of detectors on labels: least at the truth, blind in crowds, and enough to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError, ModelError
from edgecv.families import detection
from edgecv.families.heads import HEADS
from edgecv.families.heads.common import points

pytest.importorskip("torch")
import torch

SIZE = (64, 96)
LABELS = ("a", "b", "c")
HEAD_NAMES = ("yolox", "yolo", "yolo-end2end", "fastestdet", "ssd", "retinanet", "fcos", "detr")
OPTIONS: dict[str, dict[str, Any]] = {
    "ssd": {"feature_maps": [[4, 6], [2, 3]], "scales": [0.3, 0.6, 0.9], "aspect_ratios": [[2], [2]]},
    "retinanet": {"strides": [16, 32], "sizes": [[24], [48]]},
    "fcos": {"strides": [8, 16]},
}
SHAPES = {
    "yolox": (1, 126, 8),
    "yolo": (1, 126, 7),
    "yolo-end2end": (1, 12, 6),
    "fastestdet": (1, 8, 4, 6),
    "ssd": (1, 120, 7),
    "retinanet": (1, 90, 7),
    "fcos": (1, 120, 8),
    "detr": (1, 10, 8),
}


def spec_of(head: str, **options: Any) -> FamilySpec:
    return FamilySpec("detection", LABELS, head=head, options={**OPTIONS.get(head, {}), **options})


def truth_of(*rows: tuple[float, float, float, float, int], crowd: tuple[int, ...] = ()) -> DetectionTruth:
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    marks = np.isin(np.arange(len(rows)), crowd)
    return DetectionTruth(boxes, np.array([row[4] for row in rows], np.int64), marks, size=SIZE)


ONE = truth_of((10, 12, 40, 44, 1), (50, 20, 90, 60, 2))


class Free(torch.nn.Module):
    """A network whose outputs are its parameters: what the loss pulls them to is what it teaches."""

    def __init__(self, head: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = head
        self.values = torch.nn.Parameter(torch.randn(SHAPES[head]) * 0.1)

    def forward(self) -> Any:
        cells = torch.from_numpy(points(SIZE, (8, 16, 32)).copy())
        boxes, rest = self.values[..., :4], self.values[..., 4:]
        if self.head == "yolox":
            return torch.cat([boxes, (rest - 2).sigmoid()], dim=2)
        if self.head == "yolo":
            centres, step = (cells[:, :2] + 0.5) * cells[:, 2:], cells[:, 2:]
            placed = [centres + boxes[..., :2] * step, (boxes[..., 2:] + 1).exp() * step]
            return torch.cat([*placed, (rest - 2).sigmoid()], dim=2).transpose(1, 2)
        if self.head == "yolo-end2end":
            start = torch.rand(1, 12, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([60.0, 30.0])
            kinds = (torch.arange(12) % 3).float()[None, :, None]
            corner = start + boxes[..., :2] * 20
            placed = [corner, corner + 30 * (boxes[..., 2:] + 0.1).exp()]
            return torch.cat([*placed, (rest[..., :1] - 1).sigmoid(), kinds], dim=2)
        if self.head == "fastestdet":
            first, sides, classes = self.values[:, :1], self.values[:, 1:5], self.values[:, 5:]
            return torch.cat([(first - 1).sigmoid(), sides, classes.softmax(dim=1)], dim=1)
        if self.head == "fcos":
            return boxes.exp(), rest[..., :3] - 3, rest[..., 3:]
        if self.head == "detr":  # with "no object" last
            return rest, (boxes - torch.tensor([0.0, 0.0, 1.0, 1.0])).sigmoid()
        return boxes, (rest - 3 if self.head == "retinanet" else rest)


def trained(head: str, truth: DetectionTruth, *, steps: int = 120, **options: Any) -> tuple[Any, list[float], Any]:
    model, spec = Free(head), spec_of(head, **options)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.1), []
    for _ in range(steps):
        loss = detection.loss(model(), [truth], spec, label_smoothing=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses, spec


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_what_it_pulls_the_outputs_to_is_the_truth(head: str) -> None:
    model, losses, spec = trained(head, ONE)
    assert losses[-1] < 0.5 * losses[0]
    outputs = model()
    arrays = [item.detach().numpy() for item in (outputs if isinstance(outputs, tuple) else (outputs,))]
    found = detection.decode(arrays, spec, InputContract(size=SIZE))
    sure = found.select(found.scores > 0.5)
    order = np.argsort(sure.class_ids)
    assert sure.class_ids[order].tolist() == [1, 2]
    np.testing.assert_allclose(sure.boxes[order], ONE.boxes, atol=3.0)


def test_one_cell_for_each_object_needs_no_suppression() -> None:
    model, _, _ = trained("yolo", ONE, assign="one")
    assert int((model()[0, 4:] > 0.3).sum()) == 2
    several, _, _ = trained("yolo", ONE)
    assert int((several()[0, 4:] > 0.3).sum()) > 4


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_pictures_without_objects_and_crowds(head: str) -> None:
    model, spec = Free(head), spec_of(head)
    none = detection.loss(model(), [truth_of()], spec, label_smoothing=0.0)
    (pull,) = torch.autograd.grad(none, [model.values])
    assert none.item() > 0
    assert torch.isfinite(pull).all()
    everywhere = truth_of((0, 0, 96, 64, 0), crowd=(0,))
    assert detection.loss(model(), [everywhere], spec, label_smoothing=0.0).item() == pytest.approx(0.0, abs=1e-5)


def test_a_crowd_hides_no_object() -> None:
    both = truth_of((10, 12, 40, 44, 1), (0, 0, 96, 64, 0), crowd=(1,))
    for head in ("yolox", "yolo"):
        model, spec = Free(head), spec_of(head)
        (pull,) = torch.autograd.grad(detection.loss(model(), [both], spec, label_smoothing=0.0), [model.values])
        assert pull.abs().sum() > 0
        alone = detection.loss(model(), [truth_of((10, 12, 40, 44, 1))], spec, label_smoothing=0.0)
        assert detection.loss(model(), [both], spec, label_smoothing=0.0) < alone


def test_a_batch_is_judged_picture_by_picture() -> None:
    spec, outputs = spec_of("yolo"), Free("yolo")().detach()
    batch = torch.cat([outputs, outputs])
    one, other = (detection.loss(outputs, [truth], spec, label_smoothing=0.0) for truth in (ONE, truth_of()))
    both = detection.loss(batch, [ONE, truth_of()], spec, label_smoothing=0.0)
    turned = detection.loss(batch, [truth_of(), ONE], spec, label_smoothing=0.0)
    assert both.item() == pytest.approx(turned.item(), rel=1e-5)
    assert one.item() < both.item() <= one.item() + other.item() + 1e-3


def test_half_precision_is_no_trouble() -> None:
    spec, model = spec_of("yolo"), Free("yolo")
    loss = detection.loss(model().bfloat16(), [ONE], spec, label_smoothing=0.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(detection.loss(model(), [ONE], spec, label_smoothing=0.0).item(), rel=0.05)


def test_the_table_of_kinds_names_the_heads_that_train() -> None:
    named = FAMILY_KINDS["detection"].loss_heads
    assert {head for head in HEADS if families.trains(spec_of(head))} == set(named) == set(HEAD_NAMES)


def test_what_cannot_be_learned() -> None:
    with pytest.raises(ModelError, match=r"no loss on labels for head 'rcnn'; set distill: 1.0"):
        detection.loss(None, [ONE], spec_of("rcnn"), label_smoothing=0.0)
    with pytest.raises(ModelError, match=r"100 boxes; no maps of an input of \[64, 96\].*set distill: 1.0"):
        detection.loss(torch.zeros(1, 7, 100), [ONE], spec_of("yolo"), label_smoothing=0.0)
    plain = DetectionTruth(ONE.boxes, ONE.class_ids)
    with pytest.raises(DataError, match="boxes in the network's input"):
        detection.loss(Free("yolo")(), [plain], spec_of("yolo"), label_smoothing=0.0)
    with pytest.raises(DataError, match="the truth of a picture is int"):
        detection.loss(Free("yolo")(), [3], spec_of("yolo"), label_smoothing=0.0)
    with pytest.raises(DataError, match=r"classes \[7\]; there are 3 labels"):
        detection.loss(Free("yolo")(), [truth_of((1, 1, 9, 9, 7))], spec_of("yolo"), label_smoothing=0.0)
