"""Small detectors of torchvision and transformers learn a few pictures by heart: the losses leave nothing out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.families import detection
from tests.models.transformer_nets import SIDES, tiny

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("faster_coco_eval")

pytestmark = pytest.mark.build

SIZE = (64, 96)
CONTRACT = InputContract(size=SIZE)
LABELS = ("warm", "cold", "green")
PICTURES = 4


def blocks() -> tuple[Any, list[DetectionTruth]]:
    """Pictures with two blocks each, `(N, 3, H, W)`: the colour is the class."""
    random, pictures, truths = np.random.default_rng(3), [], []
    for _ in range(PICTURES):
        picture = random.normal(0, 0.1, (3, *SIZE)).astype(np.float32)
        boxes, classes = [], random.permutation(3)[:2]
        for side, kind in enumerate(classes):
            height, width = random.integers(20, 40, 2)
            left, top = 48 * side + random.integers(0, 47 - width), random.integers(0, 63 - height)
            picture[kind, top : top + height, left : left + width] += 2.0
            boxes.append((left, top, left + width, top + height))
        pictures.append(picture)
        truths.append(DetectionTruth(np.array(boxes, np.float32), classes.astype(np.int64), size=SIZE))
    return torch.from_numpy(np.stack(pictures)), truths


def pyramid() -> Any:
    """A backbone of four convolutions and a pyramid of strides 8, 16 and 32, 32 wide."""
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    body, before = torch.nn.Sequential(), 3
    for width in (12, 20, 28, 40):
        layers = torch.nn.Conv2d(before, width, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(width), torch.nn.ReLU()
        body.append(torch.nn.Sequential(*layers))
        before = width
    return BackboneWithFPN(body, {"2": "0", "3": "1"}, [28, 40], 32)


def one_stage(name: str) -> tuple[Any, FamilySpec]:
    from torchvision.models import detection as nets
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    from edgecv.models.detector_graphs import raw_detector

    options: dict[str, Any] = {"strides": [8, 16, 32]}
    if name == "retinanet":
        options["sizes"] = [[16], [32], [64]]
        anchors = AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3)
        norm = partial(torch.nn.GroupNorm, 8)  # as torchvision's second version; without one so narrow a head is mute
        head = nets.retinanet.RetinaNetHead(32, 3, 4, norm_layer=norm)
        network = nets.RetinaNet(pyramid(), 4, anchor_generator=anchors, head=head)
    else:
        network = nets.FCOS(pyramid(), 4, anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3))
    spec = FamilySpec("detection", LABELS, head=name, background=True, score_threshold=0.01, options=options)
    return raw_detector(network, options={}, source=""), spec


def transformer(name: str, **more: Any) -> tuple[Any, FamilySpec]:
    from edgecv.models.transformer_detectors import detector_graph

    network = tiny(name, num_queries=8, dropout=0.0, **more)
    return detector_graph(network, SIZE), FamilySpec("detection", LABELS, head="detr", score_threshold=0.01)


def found_share(network: Any, inputs: Any, truths: list[DetectionTruth], spec: FamilySpec) -> float:
    """AP50 on the pictures that were learned."""
    metric = detection.metric(spec, "ap50")
    with torch.no_grad():
        outputs = [item.numpy() for item in network.eval()(inputs)]
    for index, truth in enumerate(truths):
        metric.update(detection.decode([item[index : index + 1] for item in outputs], spec, CONTRACT), truth)
    return metric.compute().value


FINE = {"model_type": "resnet", **SIDES, "out_features": ["stage3"]}
NO_GRADIENT = {
    "retinanet": (),
    "fcos": (),
    # Coarser features than are used; and what the first layer attends to, which are queries of zeros.
    "detr": ("encoder.stages.3.", "decoder.layers.0.self_attn.v_proj.weight"),
    "rt-detr": ("denoising_class_embed",),  # objects made noisy are shown by transformers' own training alone
}


def build(name: str) -> tuple[Any, FamilySpec, int]:
    """A network, its family, and how many steps it needs."""
    if name in ("retinanet", "fcos"):
        return *one_stage(name), 60
    if name == "detr":
        return *transformer("DetrForObjectDetection", backbone_config=FINE), 200
    return *transformer("RTDetrForObjectDetection"), 240


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_few_pictures_are_learned_by_heart(name: str) -> None:
    from edgecv.models.transformer_detectors import Staged

    inputs, truths = blocks()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, spec, steps = build(name)
        before = found_share(network, inputs, truths, spec)
        optimizer = torch.optim.AdamW(network.train().parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
        losses: list[float] = []
        reached: set[str] = set()
        for _ in range(steps):
            stages = network(inputs, every=True) if isinstance(network, Staged) else (network(inputs),)
            loss = sum(detection.loss(stage, truths, spec, label_smoothing=0.0) for stage in stages)
            optimizer.zero_grad()
            loss.backward()
            reached |= {
                part for part, value in network.named_parameters() if value.grad is not None and value.grad.any()
            }
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    if name != "rt-detr":  # its loss weighs a query by how well its box fits, so it grows as boxes get better
        assert losses[-1] < 0.4 * losses[0]
    assert found_share(network, inputs, truths, spec) > 0.9 > before + 0.5
    missed = {part for part, _ in network.named_parameters()} - reached
    assert {part for part in missed if not any(word in part for word in NO_GRADIENT[name])} == set()
