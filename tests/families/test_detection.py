"""The detection family: what fits, suppression, mapping to the picture, metric."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import sys
from typing import Any

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections, DetectionTruth
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, ToolchainError, UsageError
from edgecv.families import detection
from edgecv.families.heads import HEADS

needs_metric = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not part of the device half"
)

CONTRACT = InputContract(size=(100, 200))


def spec_of(head: str = "yolo", labels: str = "ab", **values: Any) -> FamilySpec:
    return FamilySpec(kind="detection", labels=tuple(labels), head=head, **values)


def specs(*shapes: tuple[int, ...]) -> list[TensorSpec]:
    return [TensorSpec(f"o{place}", shape, "float32") for place, shape in enumerate(shapes)]


def rows(*given: tuple[float, ...]) -> list[np.ndarray]:
    """Decoded rows (cx, cy, w, h, share of a, share of b) as a 'yolo' output with more boxes than values."""
    output = np.zeros((1, 6, 16), dtype=np.float32)
    output[0, :, : len(given)] = np.array(given, dtype=np.float32).T
    return [output]


# --- problems


@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        ("yolo", [(1, 6, 8400)]),
        ("yolo", [(1, 8400, 6)]),
        ("yolo", [(1, 66, 80, 80), (1, 66, 40, 40), (1, 66, 20, 20)]),
        ("yolo", [(1, 40, 40, 66)]),
        ("yolo-anchor", [(1, 25200, 7)]),
        ("yolo-anchor", [(1, 21, 80, 80), (1, 21, 40, 40), (1, 21, 20, 20)]),
        ("yolo-anchor", [(1, 3, 80, 80, 7), (1, 40, 40, 21), (1, 21, 20, 20)]),
        ("yolox", [(1, 3549, 7)]),
        ("yolo-end2end", [(1, 300, 6)]),
        ("fastestdet", [(1, 7, 22, 22)]),
        ("ssd-tflite", [(1, 10, 4), (1, 10), (1, 10), (1,)]),
        ("ultraface", [(1, 4420, 3), (1, 4420, 4)]),
        ("detr", [(1, 100, 3), (1, 100, 4)]),
    ],
)
def test_fitting_outputs(head: str, shapes: list[tuple[int, ...]]) -> None:
    assert detection.problems(spec_of(head), specs(*shapes)) == []


@pytest.mark.parametrize(
    ("head", "shapes", "says"),
    [
        ("yolo", [(1, 84, 8400)], r"\(1, 84, 8400\); a box and 2 labels need 6 values"),
        ("yolo", [(1, 6, 10), (1, 6, 10)], "2 outputs; head 'yolo' needs one"),
        ("yolo", [(2, 6, 8400)], r"\(2, 6, 8400\)"),
        ("yolo", [(1, 66, 8, 8), (1, 65, 4, 4)], r"\(1, 65, 4, 4\); 4 sides x reg_max 16 and 2 labels need 66"),
        ("yolo-anchor", [(1, 100, 85)], "an objectness and 2 labels need 7"),
        ("yolo-anchor", [(1, 21, 8, 8)], "1 outputs; there are anchors for 3 maps"),
        ("yolo-anchor", [(1, 21, 8, 8), (1, 21, 4, 4), (1, 255, 2, 2)], r"3 anchors x \(2 labels \+ 5\) need \(1, 21"),
        ("yolox", [(1, 100, 85)], "need 7 values"),
        ("yolox", [(1, 100, 7), (1, 100, 7)], "2 outputs"),
        ("yolo-end2end", [(1, 300, 7)], "need 6 values"),
        ("yolo-end2end", [(1, 300, 6), (1, 1)], "2 outputs"),
        ("fastestdet", [(1, 85, 22, 22)], "2 labels need 7"),
        ("fastestdet", [(1, 7, 484)], "needs one map"),
        ("ssd", [(1, 100, 4), (1, 100, 3)], "3234 priors"),
        ("ssd-tflite", [(1, 10, 4), (1, 10), (1, 10)], "needs boxes"),
        ("ssd-tflite", [(1, 10, 4), (1, 10), (1, 9), (1,)], "needs boxes"),
        ("ultraface", [(1, 10, 2), (1, 10, 4)], r"scores \(1, N, 3\)"),
        ("ultraface", [(1, 9, 3), (1, 10, 4)], r"scores \(1, N, 3\)"),
        ("detr", [(1, 100, 92), (1, 100, 4)], r"logits \(1, Q, 3\)"),
        ("yunet", [(1, 100, 1)] * 12, "needs four for each of the strides"),
    ],
)
def test_outputs_that_do_not_fit(head: str, shapes: list[tuple[int, ...]], says: str) -> None:
    (found,) = detection.problems(spec_of(head), specs(*shapes))
    assert re.search(says, found), found


@pytest.mark.parametrize(
    ("head", "options", "says"),
    [
        ("yolo", {"reg_max": 0}, "'reg_max' of head 'yolo' is 0; allowed is a whole number"),
        ("yolo", {"regmax": 8}, "no option 'regmax'; allowed: .*Did you mean 'reg_max'"),
        ("yolo", {"agnostic": 1}, "'agnostic' of head 'yolo' is 1; allowed is true or false"),
        ("yolo", {"soft_sigma": 0}, "a number above 0"),
        ("yolo", {"soft_sigma": math.inf}, "a number above 0"),
        ("detr", {"agnostic": True}, "no option 'agnostic'"),
        ("yolo-anchor", {"anchors": [[[1, 2]], [[1, 2], [3, 4]]]}, "equally many"),
        ("yolo-anchor", {"anchors": [[[1, -2]]]}, "pairs in pixels"),
        ("yolox", {"strides": []}, r"such as \[8, 16, 32\]"),
        ("yolox", {"strides": "8"}, r"such as \[8, 16, 32\]"),
        ("ssd", {"variances": [0.1]}, "two numbers"),
        ("ssd", {"aspect_ratios": [[0]]}, "ratios of width to height"),
        ("ssd", {"scales": [0.1, 0.2]}, "6 maps need 7 scales"),
        ("ssd-tflite", {"order": ["boxes", "scores"]}, "boxes, classes, scores and count"),
        ("ssd-tflite", {"class_offset": 0.5}, "a whole number"),
    ],
)
def test_options_that_do_not_fit(head: str, options: dict[str, Any], says: str) -> None:
    (found,) = detection.problems(spec_of(head, options=options), specs((1, 6, 8400)))
    assert re.search(says, found), found


def test_unknown_heads() -> None:
    (found,) = detection.problems(spec_of("yolo-x"), specs((1, 6, 8400)))
    assert "'yolo-x'; allowed for detection: yolo-anchor" in found
    assert "Did you mean 'yolox'?" in found
    with pytest.raises(ModelError, match=r"family\.head is ''"):
        detection.decode(rows(), spec_of(""), CONTRACT)


def test_every_head_says_what_it_is_and_its_defaults_fit() -> None:
    assert set(HEADS) == {
        "yolo-anchor", "yolox", "yolo", "yolo-end2end", "ssd", "ssd-tflite", "fastestdet", "ultraface", "yunet", "detr",
        "retinanet", "fcos", "rcnn",
    }  # fmt: skip
    for name, head in HEADS.items():
        assert head.what, name
        for option in head.options.values():
            assert option.fits(option.default), (name, option)
    assert families.get("detection") is detection


# --- decode


def test_boxes_of_one_class_compete() -> None:
    outputs = rows(
        (50, 50, 20, 20, 0.9, 0), (51, 50, 20, 20, 0.8, 0), (50, 51, 20, 20, 0, 0.7), (150, 50, 9, 9, 0.26, 0)
    )
    found = detection.decode(outputs, spec_of(), CONTRACT)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.26])
    assert found.class_ids.tolist() == [0, 1, 0]
    assert found.labels == ("a", "b")
    assert found.boxes[0].tolist() == [40, 40, 60, 60]
    assert (found.boxes.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)
    every = detection.decode(outputs, spec_of(options={"agnostic": True}), CONTRACT)
    assert every.scores.tolist() == pytest.approx([0.9, 0.26])
    assert len(detection.decode(outputs, spec_of(max_detections=2), CONTRACT)) == 2
    assert len(detection.decode(outputs, spec_of(score_threshold=0.5), CONTRACT)) == 2
    assert len(detection.decode(outputs, spec_of(iou_threshold=0.95), CONTRACT)) == 4


def test_soft_suppression_lowers_scores() -> None:
    outputs = rows((50, 50, 20, 20, 0.9, 0), (50, 50, 20, 20, 0.8, 0), (50, 51, 20, 20, 0, 0.7))
    spec = spec_of(score_threshold=0.05, options={"soft": True, "soft_sigma": 0.5})
    found = detection.decode(outputs, spec, CONTRACT)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-2)], rel=1e-5)
    assert found.class_ids.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("resize", "box"),
    [
        # The picture is 300 x 400 (h x w), the input 100 x 200.
        ("stretch", (80, 120, 160, 240)),  # x 2, y 3
        ("letterbox", (21.05, 120, 141.35, 240)),  # 1/3: 133 wide, 33 pixels of padding on the left
        ("letterbox-topleft", (120.3, 120, 240.6, 240)),
    ],
)
def test_boxes_come_to_the_picture(resize: Any, box: tuple[float, ...]) -> None:
    contract = InputContract(size=(100, 200), resize=resize)
    outputs = rows((60, 60, 40, 40, 0.9, 0))
    found = detection.decode(outputs, spec_of(), contract, picture=(300, 400))
    np.testing.assert_allclose(found.boxes[0], box, atol=0.05)
    plain = detection.decode(outputs, spec_of(), contract)  # in the network's own pixels
    assert plain.boxes[0].tolist() == [40, 40, 80, 80]


def test_boxes_are_cut_and_empty_ones_dropped() -> None:
    outputs = rows(
        (0, 50, 20, 20, 0.9, 0), (300, 50, 20, 20, 0.8, 0), (90, 50, 0, 20, 0.7, 0), (100, 50, 600, 600, 0, 0.6)
    )
    found = detection.decode(outputs, spec_of(), CONTRACT)
    assert found.boxes.tolist() == [[0, 40, 10, 60], [0, 0, 200, 100]]


def test_wild_boxes_are_dropped_in_silence() -> None:
    outputs = rows(
        (math.nan, 50, 20, 20, 0.9, 0),
        (50, 50, math.inf, 20, 0.8, 0),
        (1e38, 50, 1e38, 20, 0.8, 0),
        (50, 50, 9, 9, 0.5, 0),
    )
    found = detection.decode(outputs, spec_of(), CONTRACT, picture=(480, 640))
    assert found.scores.tolist() == [0.5]


def test_nothing_found() -> None:
    found = detection.decode(rows(), spec_of(), CONTRACT)
    assert len(found) == 0
    assert found.labels == ("a", "b")
    assert found.to_dict() == {"objects": []}


def test_nan_scores_are_an_error() -> None:
    with pytest.raises(ModelError, match="1 of 16 scores are NaN: a layer overflows"):
        detection.decode(rows((50, 50, 20, 20, math.nan, 0)), spec_of(), CONTRACT)


def test_outputs_of_another_shape_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"\(1, 9, 8\); 6 values"):
        detection.decode([np.zeros((1, 9, 8), np.float32)], spec_of(), CONTRACT)
    with pytest.raises(ModelError, match="anchors for 3 maps"):
        detection.decode([np.zeros((1, 21, 8, 8), np.float32)], spec_of("yolo-anchor"), CONTRACT)


def test_more_candidates_than_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_CANDIDATES", 3)
    outputs = rows(*((10 * place, 50, 8, 8, 0.3 + place / 100, 0) for place in range(8)))
    found = detection.decode(outputs, spec_of(), CONTRACT)
    assert found.boxes[:, 0].tolist() == [66, 56, 46]


# --- agree


def objects(*given: tuple[float, ...]) -> Detections:
    """Objects as (x, y, score, class), 10 pixels wide and high."""
    table = np.array(given, dtype=np.float32).reshape(-1, 4)
    boxes = np.concatenate([table[:, :2], table[:, :2] + 10], axis=1)
    return Detections(boxes, table[:, 2], table[:, 3].astype(np.int64), ("a", "b"))


def truth_of(found: Detections, **values: Any) -> DetectionTruth:
    return DetectionTruth(found.boxes, found.class_ids, **values)


def test_agree() -> None:
    one = objects((0, 0, 0.9, 0), (50, 0, 0.8, 1))
    assert detection.agree(one, objects((51, 1, 0.4, 1), (1, 0, 0.5, 0)))
    assert not detection.agree(one, objects((50, 0, 0.8, 0), (0, 0, 0.9, 0)))  # another class
    assert not detection.agree(one, objects((6, 0, 0.9, 0), (50, 0, 0.8, 1)))  # too far away
    assert not detection.agree(one, objects((0, 0, 0.9, 0)))
    assert not detection.agree(one, objects((0, 0, 0.9, 0), (0, 0, 0.9, 0), (50, 0, 0.8, 1)))
    assert detection.agree(objects(), objects())
    assert not detection.agree(objects(), one)
    many = [(40.0 * place, 0, 0.5, 0) for place in range(20)]
    assert detection.agree(objects(*many), objects(*many[:17]))
    assert not detection.agree(objects(*many), objects(*many[:16]))


# --- metric


@needs_metric
def test_average_precision_by_hand() -> None:
    metric = detection.metric(spec_of(), "ap")
    truth = truth_of(objects((0, 0, 1, 0), (50, 0, 1, 0)))
    # IoU 1, and 9/11 = 0.818: good up to the threshold 0.80, 7 of 10.
    metric.update(objects((0, 0, 0.9, 0), (51, 0, 0.8, 0)), truth)
    figures = metric.compute()
    assert (figures.metric, figures.samples, figures.interval) == ("ap", 1, None)
    # Above 0.80 recall stops at 1/2: 51 of COCO's 101 recall points have precision 1.
    assert figures.value == pytest.approx(0.7 + 0.3 * 51 / 101)
    assert figures.extras["ap50"] == pytest.approx(1.0)
    assert figures.extras["ap75"] == pytest.approx(1.0)
    assert figures.extras["ar100"] == pytest.approx(0.7 + 0.3 * 0.5)
    assert figures.extras["ar1"] == pytest.approx(0.5)
    assert figures.extras["ar10"] == figures.extras["ar100"]
    assert figures.extras["ap_small"] == pytest.approx(figures.value)
    assert "ap_medium" not in figures.extras  # there is nothing of this size
    assert "ap_large" not in figures.extras
    assert figures.per_sample == (1.0,)
    fifty = detection.metric(spec_of(), "ap50")
    fifty.update(objects((0, 0, 0.5, 0), (90, 0, 0.6, 0)), truth)
    # The wrong one comes first: precision 1/2 up to recall 1/2.
    assert fifty.compute().value == pytest.approx(0.5 * 51 / 101)
    assert fifty.compute().per_sample == (0.5,)


@needs_metric
def test_average_precision_is_the_mean_of_the_classes_there() -> None:
    metric = detection.metric(spec_of(labels="abc"), "ap50")
    metric.update(objects((0, 0, 0.9, 0)), truth_of(objects((0, 0, 1, 0), (50, 0, 1, 1))))
    metric.update(objects(), truth_of(objects()))
    figures = metric.compute()
    assert figures.value == pytest.approx(0.5)  # class c occurs nowhere
    assert figures.per_sample == (pytest.approx(2 / 3), 1.0)
    assert figures.extras["f1"] == pytest.approx(5 / 6)


@needs_metric
def test_crowds_count_neither_way() -> None:
    metric = detection.metric(spec_of(), "ap50")
    crowd = objects((0, 0, 1, 0), (100, 0, 1, 0))
    boxes = crowd.boxes.copy()
    boxes[1, 2:] += 60
    truth = DetectionTruth(boxes, crowd.class_ids, crowd=np.array([False, True]))
    metric.update(objects((0, 0, 0.5, 0), (120, 20, 0.9, 0), (140, 5, 0.8, 0)), truth)
    assert metric.compute().value == pytest.approx(1.0)
    assert metric.compute().per_sample == (1.0,)
    other = detection.metric(spec_of(), "ap50")
    other.update(objects((0, 0, 0.5, 0), (120, 20, 0.9, 1), (300, 5, 0.8, 0)), truth)
    assert other.compute().value < 0.6
    assert other.compute().per_sample == (pytest.approx(2 / 4),)


@needs_metric
def test_low_scores_do_not_count_for_f1() -> None:
    metric = detection.metric(spec_of(), "ap50")
    metric.update(objects((0, 0, 0.9, 0), (50, 50, 0.1, 0)), truth_of(objects((0, 0, 1, 0))))
    assert metric.compute().per_sample == (1.0,)


@needs_metric
def test_metric_with_nothing_to_find() -> None:
    metric = detection.metric(spec_of(), "ap")
    metric.update(objects((0, 0, 0.9, 0)), truth_of(objects()))
    figures = metric.compute()
    assert (figures.value, figures.per_sample) == (0.0, (0.0,))
    nothing = detection.metric(spec_of(), "ap")
    nothing.update(objects(), truth_of(objects((0, 0, 1, 0))))
    assert (nothing.compute().value, nothing.compute().per_sample) == (0.0, (0.0,))


@needs_metric
def test_metric_is_quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        metric = detection.metric(spec_of(), "ap")
        metric.update(objects((0, 0, 0.9, 0)), truth_of(objects((0, 0, 1, 0))))
        metric.compute()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@needs_metric
def test_metric_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'top1'; allowed: ap, ap50"):
        detection.metric(spec_of(), "top1")
    metric = detection.metric(spec_of(), "ap")
    with pytest.raises(DataError, match="no picture"):
        metric.compute()
    with pytest.raises(DataError, match="is int; detection needs"):
        metric.update(objects(), 3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"class is 2; allowed are 0\.\.1"):
        metric.update(objects(), truth_of(objects((0, 0, 1, 2))))
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ToolchainError, match="pip install faster-coco-eval"):
        detection.metric(spec_of(), "ap")


def test_truths_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\) do not fit 2"):
        DetectionTruth(np.zeros((1, 4), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"crowd has shape \(2,\)"):
        DetectionTruth(np.zeros((1, 4), np.float32), np.zeros(1, np.int64), crowd=np.zeros(2, bool))


# --- host half


def test_loss_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"head 'yunet'.*set distill: 1.0"):
        detection.loss(None, [], spec_of("yunet"), label_smoothing=0.0)


def test_protected_are_all_heads() -> None:
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Conv2d(3, 4, 3)
            self.boxes = torch.nn.Conv2d(4, 4, 1)
            self.classes = torch.nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = torch.relu(self.body(x))
            return torch.cat([self.boxes(x), self.classes(x).sigmoid()], dim=1).flatten(2)

    assert detection.protected(Two()) == ["boxes", "classes"]
    with pytest.raises(ModelError, match="no boxes to protect"):
        detection.protected(torch.nn.ReLU())
