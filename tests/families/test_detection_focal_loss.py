"""Losses of RetinaNet and FCOS: by hand, against torchvision's own, and what counts for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import ModelError
from edgecv.families.detection_focal_loss import fcos_loss, retinanet_loss

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models.detection")

SIZE = (64, 96)
LABELS = ("a", "b")
RETINANET = {"strides": [16, 32], "sizes": [[24], [48]]}
FCOS = {"strides": [8, 16]}


def truth_of(*rows: tuple[float, float, float, float, int], crowd: tuple[bool, ...] | None = None) -> DetectionTruth:
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    marks = None if crowd is None else np.array(crowd)
    return DetectionTruth(boxes, np.array([row[4] for row in rows], np.int64), marks, size=SIZE)


ONE = truth_of((10, 12, 40, 44, 1), (50, 20, 90, 60, 0))


def spec_of(head: str, *, background: bool = False, outputs: str = "logits") -> FamilySpec:
    options = RETINANET if head == "retinanet" else FCOS
    return FamilySpec("detection", LABELS, head=head, background=background, outputs=outputs, options=options)  # type: ignore[arg-type]


def noise(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def targets_of(truth: DetectionTruth) -> list[dict[str, Any]]:
    return [{"boxes": torch.from_numpy(truth.boxes), "labels": torch.from_numpy(truth.class_ids) + 1}]


def test_retinanet_as_torchvision_computes_it() -> None:
    head = models.retinanet.RetinaNetHead(8, 3, 3)
    outputs = {"cls_logits": noise(1, 90, 3), "bbox_regression": noise(1, 90, 4, seed=1)}
    outputs["cls_logits"][..., 0] = -100.0  # the background's column, which says nothing to any score
    generator = models.anchor_utils.AnchorGenerator(((24,), (48,)), ((0.5, 1.0, 2.0),) * 2)
    images = models.image_list.ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    anchors = generator(images, [torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 2, 3)])
    matcher = models._utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    overlap = models.retinanet.box_ops.box_iou(torch.from_numpy(ONE.boxes), anchors[0])
    wanted = head.compute_loss(targets_of(ONE), outputs, anchors, [matcher(overlap)])
    found = retinanet_loss(
        [outputs["bbox_regression"], outputs["cls_logits"]], [ONE], spec_of("retinanet", background=True)
    )
    assert found.item() == pytest.approx(sum(part.item() for part in wanted.values()), rel=1e-4)


def fcos_outputs(columns: int) -> list[Any]:
    return [noise(1, 120, 4).exp() * 2, noise(1, 120, columns, seed=1), noise(1, 120, 1, seed=2)]


def test_fcos_as_torchvision_computes_it() -> None:
    backbone = torch.nn.Sequential()
    backbone.out_channels = 32
    generator = models.anchor_utils.AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    model = models.FCOS(backbone, 3, anchor_generator=generator)
    sides, logits, middles = fcos_outputs(3)
    logits[..., 0] = -100.0
    images = models.image_list.ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    anchors = generator(images, [torch.zeros(1, 8, 8, 12), torch.zeros(1, 8, 4, 6)])
    outputs = {"cls_logits": logits, "bbox_regression": sides, "bbox_ctrness": middles}
    wanted = model.compute_loss(targets_of(ONE), outputs, anchors, [96, 24])
    found = fcos_loss([sides, logits, middles], [ONE], spec_of("fcos", background=True))
    assert found.item() == pytest.approx(sum(part.item() for part in wanted.values()), rel=1e-4)


def test_probabilities_give_the_same_loss() -> None:
    offsets, logits = noise(1, 90, 4), noise(1, 90, 2, seed=1)
    wanted = retinanet_loss([offsets, logits], [ONE], spec_of("retinanet"))
    shares = retinanet_loss([logits.sigmoid(), offsets], [ONE], spec_of("retinanet", outputs="probabilities"))
    assert shares.item() == pytest.approx(wanted.item(), rel=1e-4)
    sides, logits, middles = fcos_outputs(2)
    wanted = fcos_loss([sides, logits, middles], [ONE], spec_of("fcos"))
    ready = [sides, logits.sigmoid(), middles.sigmoid()]
    assert fcos_loss(ready, [ONE], spec_of("fcos", outputs="probabilities")).item() == pytest.approx(
        wanted.item(), rel=1e-4
    )


def test_crowds_and_unclear_anchors_count_for_nothing() -> None:
    everywhere = truth_of((0, 0, 96, 64, 0), crowd=(True,))
    outputs = [noise(1, 90, 4), noise(1, 90, 2, seed=1)]
    assert retinanet_loss(outputs, [everywhere], spec_of("retinanet")).item() == 0.0
    assert fcos_loss(fcos_outputs(2), [everywhere], spec_of("fcos")).item() == 0.0
    logits = torch.zeros(1, 90, 2, requires_grad=True)
    retinanet_loss([noise(1, 90, 4), logits], [truth_of((5, 5, 35, 35, 0))], spec_of("retinanet")).backward()
    pulled = (logits.grad[0].abs().sum(dim=1) > 0).float()
    assert 0 < int((1 - pulled).sum()) < 10, "anchors that overlap the object by 0.4 to 0.5 learn nothing"


def test_a_picture_without_objects_teaches_that_there_are_none() -> None:
    sides, logits, middles = fcos_outputs(2)
    logits.requires_grad_()
    middles.requires_grad_()
    fcos_loss([sides, logits, middles], [truth_of()], spec_of("fcos")).backward()
    assert (logits.grad > 0).all()
    assert middles.grad is None or not middles.grad.any()


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="80 boxes; the head's options make 90 anchors"):
        retinanet_loss([torch.zeros(1, 80, 4), torch.zeros(1, 80, 2)], [ONE], spec_of("retinanet"))
    with pytest.raises(ModelError, match="80 boxes; option strides makes 120 cells"):
        fcos_loss([torch.zeros(1, 80, width) for width in (4, 2, 1)], [ONE], spec_of("fcos"))
    with pytest.raises(ModelError, match="gave 2 outputs; distances, logits and centre-ness"):
        fcos_loss([torch.zeros(1, 120, 4), torch.zeros(1, 120, 2)], [ONE], spec_of("fcos"))
