"""The heads with priors, pairs of outputs and landmarks against a plain loop over boxes."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from edgecv.core.tensor import TensorSpec
from edgecv.families import detection
from edgecv.families.heads.ssd import priors

from .detection_cases import LABELS, around, check, run, s, spec_of

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has the same numbers, whichever run before it."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(0))


# --- ssd

SSD = {"feature_maps": [[4, 6], [2, 3]], "scales": [0.2, 0.5, 0.9], "aspect_ratios": [[2], [2, 3]]}
PRIORS = 4 * 6 * 4 + 2 * 3 * 6


def ssd_wanted(offsets: np.ndarray, shares: np.ndarray, *, several: bool) -> list[tuple[Any, ...]]:
    anchors = priors(((4, 6), (2, 3)), (0.2, 0.5, 0.9), ((2,), (2, 3)), True)
    wanted = []
    for (cx, cy, w, h), (dx, dy, dw, dh), row in zip(anchors, offsets, shares, strict=True):
        centre = cx + dx * 0.1 * w, cy + dy * 0.1 * h
        box = around(centre[0] * 96, centre[1] * 64, w * math.exp(dw * 0.2) * 96, h * math.exp(dh * 0.2) * 64)
        for index, share in enumerate(row):
            if share >= 0.3 and (several or index == int(row.argmax())):
                wanted.append((*box, share, index))
    return wanted


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "shares"])
def test_ssd(several: bool, swapped: bool, kind: str) -> None:
    offsets = RNG.normal(0, 1, (PRIORS, 4))
    logits = RNG.normal(-0.5, 1.5, (PRIORS, 5 if kind == "sigmoid" else 6))
    shares = 1 / (1 + np.exp(-logits)) if kind == "sigmoid" else np.exp(logits)
    if kind != "sigmoid":
        shares = (shares / shares.sum(axis=1, keepdims=True))[:, 1:]
    wanted = ssd_wanted(offsets, shares, several=several)
    given = np.concatenate([1 - shares.sum(axis=1, keepdims=True), shares], axis=1) if kind == "shares" else logits
    spec = spec_of(
        "ssd",
        options={**SSD, "multi_label": several},
        background=kind != "sigmoid",
        outputs="probabilities" if kind == "shares" else "logits",
    )
    outputs = [offsets[np.newaxis], given[np.newaxis]]
    check(run(spec, *(outputs[::-1] if swapped else outputs)), wanted)


def test_priors_are_torchvision_s() -> None:
    torch = pytest.importorskip("torch")
    tools = pytest.importorskip("torchvision.models.detection.anchor_utils")
    image_list = pytest.importorskip("torchvision.models.detection.image_list")
    ratios = [[2, 3]] * 6
    maker = tools.DefaultBoxGenerator(ratios, min_ratio=0.2, max_ratio=0.95)
    grids = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    pictures = image_list.ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    (corners,) = maker(pictures, [torch.zeros(1, 1, *grid) for grid in grids])
    wide = (corners[:, 2:] - corners[:, :2]) / 320
    wanted = torch.cat([(corners[:, 2:] + corners[:, :2]) / 640, wide], dim=1).numpy()
    ours = priors(tuple(grids), tuple(maker.scales), tuple(map(tuple, ratios)), True)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    spec = spec_of("ssd", background=True)  # ssdlite320 is what the defaults are made for
    shapes = [TensorSpec("b", (1, 3234, 4), "float32"), TensorSpec("s", (1, 3234, 6), "float32")]
    assert detection.problems(spec, shapes) == []


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (0, 2, 1, 3), (3, 1, 2, 0)])
def test_ssd_tflite(order: tuple[int, ...]) -> None:
    """Whatever the order: boxes and count are told by shape, scores by not being whole numbers."""
    scores = np.sort(RNG.uniform(0, 1, 10).astype(np.float32))[::-1]
    classes = RNG.integers(0, 5, 10)
    low, size = RNG.uniform(0, 0.5, (10, 2)), RNG.uniform(0.1, 0.4, (10, 2))
    boxes = np.concatenate([low, low + size], axis=1)
    outputs = [boxes[np.newaxis], classes[np.newaxis], scores[np.newaxis], np.array([8.0])]
    wanted = [
        (x1 * 96, y1 * 64, x2 * 96, y2 * 64, score, index)
        for (y1, x1, y2, x2), score, index in zip(boxes[:8], scores, classes, strict=False)
        if score >= 0.3
    ]
    check(run(spec_of("ssd-tflite"), *(outputs[place] for place in order)), wanted)


def test_ssd_tflite_order_by_name_and_offset() -> None:
    """Only whole numbers, so only the order tells: two objects of class 0 with score 1, or of class 1 with 0."""
    boxes, ones, zeros = np.tile(np.float32([0.1, 0.1, 0.6, 0.6]), (1, 2, 1)), np.ones((1, 2)), np.zeros((1, 2))
    usual = run(spec_of("ssd-tflite"), boxes, zeros, ones, np.array([2.0]))
    assert (len(usual), usual.class_ids.tolist()) == (2, [0, 0])
    named = spec_of("ssd-tflite", options={"order": ["boxes", "scores", "classes", "count"], "class_offset": 2})
    other = run(named, boxes, ones, zeros, np.array([2.0]))
    assert (len(other), other.class_ids.tolist()) == (2, [2, 2])
    assert len(run(spec_of("ssd-tflite"), boxes, zeros, ones, np.array([0.0]))) == 0


# --- ultraface, detr, yunet


@pytest.mark.parametrize("swapped", [False, True])
def test_ultraface(swapped: bool) -> None:
    shares = RNG.uniform(0, 1, 40)
    low, size = RNG.uniform(0, 0.5, (40, 2)), RNG.uniform(0.1, 0.4, (40, 2))
    boxes = np.concatenate([low, low + size], axis=1)
    outputs = [np.stack([1 - shares, shares], axis=1)[np.newaxis], boxes[np.newaxis]]
    wanted = [
        (x1 * 96, y1 * 64, x2 * 96, y2 * 64, share, 0)
        for (x1, y1, x2, y2), share in zip(boxes, shares, strict=True)
        if share >= 0.3
    ]
    check(run(spec_of("ultraface", labels=("face",)), *(outputs[::-1] if swapped else outputs)), wanted)


@pytest.mark.parametrize("labels", [3, 4, 5])
@pytest.mark.parametrize("nothing", [False, True])
def test_detr(labels: int, nothing: bool) -> None:
    logits = RNG.normal(0, 2, (25, labels + nothing))
    boxes = np.concatenate([RNG.uniform(0.2, 0.8, (25, 2)), RNG.uniform(0.1, 0.3, (25, 2))], axis=1)
    wanted = []
    for row, (cx, cy, w, h) in zip(logits, boxes, strict=True):
        box = around(cx * 96, cy * 64, w * 96, h * 64)
        if nothing:
            shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            index = int(shares[:-1].argmax())
            wanted += [(*box, shares[index], index)] if shares[index] >= 0.3 else []
        else:
            wanted += [(*box, s(value), index) for index, value in enumerate(row) if s(value) >= 0.3]
    spec = spec_of("detr", labels=LABELS[:labels], iou_threshold=0.0)
    check(run(spec, logits[np.newaxis], boxes[np.newaxis]), wanted)
    if labels + nothing != 4:
        check(run(spec, boxes[np.newaxis], logits[np.newaxis]), wanted)


@pytest.mark.parametrize("labels", [1, 2])
def test_yunet(labels: int) -> None:
    outputs, wanted, marks = [], [], {}
    for stride in (8, 16, 32):
        high, wide = 64 // stride, 96 // stride
        count = high * wide
        classes, objectness = RNG.uniform(0, 1, (count, labels)), RNG.uniform(0, 1, (count, 1))
        boxes, spots = RNG.normal(0, 0.4, (count, 4)), RNG.normal(0, 1, (count, 10))
        outputs += [part[np.newaxis] for part in (classes, objectness, boxes, spots)]
        for cell in range(count):
            score = math.sqrt(classes[cell].max() * objectness[cell, 0])
            y, x = divmod(cell, wide)
            dx, dy, dw, dh = boxes[cell]
            if score >= 0.3:
                box = around((dx + x) * stride, (dy + y) * stride, math.exp(dw) * stride, math.exp(dh) * stride)
                wanted.append((*box, score, int(classes[cell].argmax())))
                marks[score] = (spots[cell].reshape(5, 2) + np.array([x, y])) * stride
    spec = spec_of("yunet", labels=LABELS[:labels])
    found = run(spec, *outputs)
    check(found, wanted)
    assert found.keypoints is not None
    assert found.keypoints.shape == (len(found), 5, 3)
    for row in range(len(found)):
        near = marks[min(marks, key=lambda score: abs(score - float(found.scores[row])))]
        np.testing.assert_allclose(found.keypoints[row, :, :2], near.clip(0, (96, 64)), atol=1e-3)
        np.testing.assert_allclose(found.keypoints[row, :, 2], found.scores[row])
    check(run(spec, *(outputs[place] for place in RNG.permutation(12))), wanted)  # told apart by their shapes
    none = run(spec_of("yunet", labels=LABELS[:labels], score_threshold=1.0), *outputs)
    assert none.keypoints is not None
    assert none.keypoints.shape == (0, 5, 3)
