"""The small SSD, RetinaNet, FCOS and FastestDet: outputs fit the heads whose options stand beside them, and learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.core.results import DetectionTruth
from edgecv.families import detection
from edgecv.models import reference_detectors as nets
from edgecv.models.load import load_model

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

CONTRACT = InputContract(size=(160, 192))
LABELS = ("a", "b", "c")
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ssd": (nets.small_ssd, nets.SSD_OPTIONS),
    "retinanet": (nets.small_retinanet, nets.RETINANET_OPTIONS),
    "fcos": (nets.small_fcos, nets.FCOS_OPTIONS),
    "fastestdet": (nets.small_fastestdet, {}),
}


def spec_of(head: str) -> FamilySpec:
    background = head != "fastestdet"
    return FamilySpec(
        "detection", LABELS, head=head, background=background, score_threshold=0.01, options=CASES[head][1]
    )


@pytest.mark.parametrize("head", CASES)
def test_the_outputs_fit_the_head_and_its_loss(head: str, tmp_path: Path) -> None:
    """`load_model` holds the shapes against the head; the loss and the decoder hold them against its boxes."""
    source = f"python:edgecv.models.reference_detectors:small_{head}"
    spec = spec_of(head)
    network = load_model(ModelSpec(source, CONTRACT), family=spec, base=tmp_path, cache=tmp_path, seed=0)
    inputs = torch.rand(2, 3, *CONTRACT.size, generator=torch.Generator().manual_seed(0))
    boxes = np.array([[4, 4, 30, 26], [40, 30, 80, 66], [114, 55, 174, 105], [10, 90, 34, 150]], np.float32)
    truth = DetectionTruth(boxes, np.array([0, 1, 2, 1]), size=CONTRACT.size)
    lost = detection.loss(network.train()(inputs), [truth, truth], spec, label_smoothing=0.0)
    lost.backward()
    assert bool(lost.isfinite())
    silent = {name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()}
    assert silent == set()
    with torch.no_grad():
        outputs = network.eval()(inputs[:1])
    outputs = [item.numpy() for item in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
    assert len(detection.decode(outputs, spec, CONTRACT)) > 0


def test_the_first_heads_of_ssd_are_whole_convolutions() -> None:
    """They give what the depthwise ones give, and no convolution of the network has groups."""
    lite, whole = (nets.small_ssd(num_classes=4, lite=lite).eval() for lite in (True, False))
    inputs = torch.rand(1, 3, *CONTRACT.size)
    with torch.no_grad():
        assert [item.shape for item in lite(inputs)] == [item.shape for item in whole(inputs)]
    groups = [{part.groups for part in net.modules() if isinstance(part, torch.nn.Conv2d)} for net in (lite, whole)]
    assert groups[1] == {1}
    assert len(groups[0]) > 1


@pytest.mark.parametrize("head", ["ssd", "retinanet"])
def test_every_object_of_a_scene_has_an_anchor(head: str) -> None:
    """Nine of ten objects as large as those of the scenes, anywhere: an anchor overlaps them by half or more."""
    from edgecv.families.detection_anchored import anchors_of
    from edgecv.vision.boxes import iou, to_corners

    random = np.random.default_rng(0)
    sides = random.uniform((19, 24), (42, 64), (200, 2))
    centres = random.uniform(sides / 2, np.array([192, 160]) - sides / 2)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    overlap = iou(boxes, to_corners(anchors_of(spec_of(head), CONTRACT.size)))
    best = overlap.max(axis=1)
    assert float((best >= 0.5).mean()) > 0.9
