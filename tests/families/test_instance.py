"""Instance segmentation: what the outputs of both heads become in a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.masks import ObjectMask
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families import instance
from edgecv.vision.draw import picture_of

LABELS = ("cup", "dog", "cat")
CONTRACT = InputContract(size=(64, 96), resize="stretch")
SPEC = FamilySpec("instance", LABELS, head="prototypes", score_threshold=0.2, iou_threshold=0.5)
ROIS = replace(SPEC, head="rois")


def rows(*objects: tuple[list[float], int, float, list[float]], count: int = 12) -> np.ndarray:
    """`(1, 4 + C + M, N)` with these objects (centre and size, class, score, coefficients) and nothing else."""
    made = np.zeros((1, 4 + len(LABELS) + len(objects[0][3]), count), dtype=np.float32)
    for place, (box, index, score, coefficients) in enumerate(objects):
        made[0, :4, 2 * place] = box
        made[0, 4 + index, 2 * place] = score
        made[0, 4 + len(LABELS) :, 2 * place] = coefficients
    return made


def halves() -> np.ndarray:
    """Two prototypes on a grid of 16 x 24: one is high on the left, one at the top."""
    planes = np.full((1, 2, 16, 24), -12.0, dtype=np.float32)
    planes[0, 0, :, :12] = 12.0
    planes[0, 1, :8] = 12.0
    return planes


def specs(*outputs: np.ndarray) -> list[TensorSpec]:
    return [TensorSpec(f"o{index}", output.shape, "float32") for index, output in enumerate(outputs)]


def test_a_mask_is_a_sum_of_prototypes_cut_to_its_box() -> None:
    given = rows(([48, 32, 40, 20], 1, 0.9, [1.0, 0.0]), ([20, 40, 30, 30], 2, 0.6, [0.0, 1.0]))
    assert instance.problems(SPEC, specs(given, halves())) == []
    found = instance.decode([given, halves()], SPEC, CONTRACT)
    assert found.class_ids.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.boxes.tolist() == [[28, 22, 68, 42], [5, 25, 35, 55]]
    left, top = (mask.full() for mask in found.masks)
    wanted = np.zeros((64, 96), dtype=bool)
    wanted[22:42, 28:48] = True
    assert (left == wanted).all()
    wanted[:] = False
    wanted[25:32, 5:35] = True
    assert (top == wanted).all()


@pytest.mark.parametrize("layout", ["swapped", "rows last", "prototypes last", "both last"])
def test_layouts_of_the_outputs(layout: str) -> None:
    given, planes = rows(([48, 32, 40, 20], 1, 0.9, [1.0, 0.5])), halves()
    wanted = instance.decode([given, planes], SPEC, CONTRACT)
    turned = given.transpose(0, 2, 1) if layout in ("rows last", "both last") else given
    moved = planes.transpose(0, 2, 3, 1) if layout in ("prototypes last", "both last") else planes
    outputs = [moved, turned] if layout == "swapped" else [turned, moved]
    outputs = [np.ascontiguousarray(output) for output in outputs]
    assert instance.problems(SPEC, specs(*outputs)) == []
    found = instance.decode(outputs, SPEC, CONTRACT)
    assert found.boxes.tolist() == wanted.boxes.tolist()
    assert (found.masks[0].full() == wanted.masks[0].full()).all()


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_those_of_whole_planes_made_larger(seed: int) -> None:
    """Against all of it at once: sigmoid, linear resize by OpenCV, threshold, cut."""
    draws = np.random.default_rng(seed)
    planes = draws.normal(0, 2, (1, 4, 16, 24)).astype(np.float32)
    objects = []
    for index in range(3):
        box = [float(value) for value in (*draws.uniform(15, 60, 2), *draws.uniform(8, 60, 2))]
        objects.append((box, index, 0.5 + 0.1 * index, draws.normal(0, 1, 4).tolist()))
    size = (150, 210)
    found = instance.decode([rows(*objects), planes], SPEC, CONTRACT, picture=size)
    assert len(found) == 3
    for row in range(3):
        box, _, _, coefficients = objects[2 - row]
        shares = 1 / (1 + np.exp(-np.tensordot(np.array(coefficients, np.float32), planes[0], axes=1)))
        large = cv2.resize(shares.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        scale = np.array([size[1] / 96, size[0] / 64])
        low = (np.array(box[:2]) - np.array(box[2:]) / 2) * scale
        high = (np.array(box[:2]) + np.array(box[2:]) / 2) * scale
        x, y = np.arange(size[1]) + 0.5, (np.arange(size[0]) + 0.5)[:, None]
        inside = (x >= low[0]) & (x < high[0]) & (y >= low[1]) & (y < high[1])
        sure = np.abs(large - 0.5) > 1e-4  # OpenCV's weights are rounded
        assert (found.masks[row].full() == ((large >= 0.5) & inside))[sure].all()


def test_letterbox_and_objects_over_the_edge() -> None:
    contract = InputContract(size=(96, 96), resize="letterbox")
    planes = np.full((1, 1, 24, 24), 12.0, dtype=np.float32)
    # The picture of 100 x 200 lies in the middle of the input, 48 rows high.
    found = instance.decode([rows(([0, 48, 48, 24], 0, 0.9, [1.0])), planes], SPEC, contract, picture=(100, 200))
    assert found.boxes[0].tolist() == pytest.approx([0, 25, 50, 75])
    wanted = np.zeros((100, 200), dtype=bool)
    wanted[25:75, :50] = True
    assert (found.masks[0].full() == wanted).all()


def test_options() -> None:
    given, planes = rows(([48, 32, 40, 20], 1, 0.9, [0.05, 0.0])), halves()
    sure = replace(SPEC, options={"mask_threshold": 0.9})
    assert instance.decode([given, planes], SPEC, CONTRACT).masks[0].area == 400
    assert instance.decode([given, planes], sure, CONTRACT).masks[0].area == 0, "shares of 0.65 are not enough"
    shares = given.copy()
    shares[0, :4, 0] = [0.5, 0.5, 40 / 96, 20 / 64]
    normal = replace(SPEC, options={"normalized": True})
    assert instance.decode([shares, planes], normal, CONTRACT).boxes[0].tolist() == pytest.approx([28, 22, 68, 42])
    doubled = rows(([48, 32, 40, 20], 1, 0.9, [1.0, 0.0]), ([49, 32, 40, 20], 1, 0.8, [1.0, 0.0]))
    assert len(instance.decode([doubled, planes], SPEC, CONTRACT)) == 1


@pytest.mark.parametrize(
    ("spec", "shapes", "words"),
    [
        (replace(SPEC, head="yolo"), [(1, 9, 12), (1, 2, 16, 24)], "allowed for instance: prototypes, rois"),
        (replace(SPEC, head="protoypes"), [], "Did you mean 'prototypes'"),
        (SPEC, [(1, 9, 12)], "needs rows"),
        (SPEC, [(1, 10, 12), (1, 2, 16, 24)], "Check the number of labels"),
        (replace(SPEC, options={"mask_threshold": 2}), [(1, 9, 12), (1, 2, 16, 24)], "a number between 0 and 1"),
        (replace(SPEC, options={"strides": [8]}), [(1, 9, 12), (1, 2, 16, 24)], "has no option 'strides'"),
        (ROIS, [(1, 5, 4), (1, 5), (1, 5)], "head 'rois' needs"),
        (ROIS, [(1, 5, 4), (1, 6), (1, 5), (1, 5, 28, 28)], "head 'rois' needs"),
    ],
)
def test_what_does_not_fit_is_said(spec: FamilySpec, shapes: list[tuple[int, ...]], words: str) -> None:
    outputs = [np.zeros(shape, dtype=np.float32) for shape in shapes]
    assert words in " ".join(instance.problems(spec, specs(*outputs)))
    if "option" not in words and "number between" not in words:
        with pytest.raises(ModelError):
            instance.decode(outputs, spec, CONTRACT)


def test_wild_outputs() -> None:
    given, planes = rows(([48, 32, 40, 20], 1, 0.9, [1.0, 0.0]), ([np.inf, 2, 3, 4], 0, 0.9, [1.0, 0.0])), halves()
    found = instance.decode([given, planes], SPEC, CONTRACT)
    assert found.class_ids.tolist() == [1]
    planes[0, 0] = np.nan
    assert instance.decode([given, planes], SPEC, CONTRACT).masks[0].area == 0
    given[0, 4, 3] = np.nan
    with pytest.raises(ModelError, match="scores are NaN"):
        instance.decode([given, planes], SPEC, CONTRACT)
    nothing = instance.decode([np.zeros((1, 9, 12), np.float32), halves()], SPEC, CONTRACT)
    assert (len(nothing), nothing.masks) == (0, ())


def rois(*, count: int = 4) -> list[np.ndarray]:
    boxes = np.zeros((1, count, 4), dtype=np.float32)
    boxes[0, 0], boxes[0, 1] = [10, 8, 66, 36], [70, 40, 120, 60]
    scores = np.array([[0.9, 0.7, 0.1, 0.0][:count]], dtype=np.float32)
    classes = np.array([[2.0, 0.0, 1.0, 0.0][:count]], dtype=np.float32)
    masks = np.zeros((1, count, 28, 28), dtype=np.float32)
    masks[0, 0, :, 14:], masks[0, 1] = 1.0, 1.0
    return [boxes, scores, classes, masks]


def test_rois_are_pasted_into_their_boxes() -> None:
    outputs = rois()
    assert instance.problems(ROIS, specs(*outputs)) == []
    found = instance.decode(outputs, ROIS, CONTRACT)
    assert found.class_ids.tolist() == [2, 0]
    assert found.boxes[1].tolist() == [70, 40, 96, 60], "cut at the edge"
    wanted = np.zeros((64, 96), dtype=bool)
    wanted[8:36, 38:66] = True
    assert (found.masks[0].full() == wanted).all()
    wanted[:] = False
    wanted[40:60, 70:96] = True
    assert (found.masks[1].full() == wanted).all(), "the mask is that of the whole box and not squeezed"
    mixed = instance.decode([outputs[3], outputs[1], outputs[0], outputs[2]], ROIS, CONTRACT)
    assert mixed.to_dict() == found.to_dict()
    twice = instance.decode(outputs, ROIS, CONTRACT, picture=(128, 192))
    assert twice.masks[0].area == pytest.approx(4 * found.masks[0].area, rel=0.01)


def test_rois_of_unknown_classes_and_doubles() -> None:
    outputs = rois()
    outputs[2][0, 1] = 3.0
    assert instance.decode(outputs, ROIS, CONTRACT).class_ids.tolist() == [2]
    outputs[0][0, 1], outputs[2][0, 1] = outputs[0][0, 0], 2.0
    assert len(instance.decode(outputs, ROIS, CONTRACT)) == 1
    kept = replace(ROIS, options={"suppress": False})
    assert len(instance.decode(outputs, kept, CONTRACT)) == 2


def with_mask(*bits: tuple[int, int, int, int], classes: list[int] | None = None) -> Detections:
    masks = []
    for left, top, right, bottom in bits:
        plane = np.zeros((40, 40), dtype=bool)
        plane[top:bottom, left:right] = True
        masks.append(ObjectMask.of(plane, (40, 40)))
    boxes = np.array(bits, dtype=np.float32).reshape(-1, 4)
    ids = np.array(classes or [0] * len(bits), dtype=np.int64)
    return Detections(boxes, np.full(len(bits), 0.9, np.float32), ids, LABELS, masks=tuple(masks))


def test_agreement_is_by_masks_and_classes() -> None:
    one = with_mask((0, 0, 20, 20), (20, 20, 40, 40))
    assert instance.agree(one, with_mask((20, 20, 40, 38), (0, 0, 20, 18)))
    assert not instance.agree(one, with_mask((0, 0, 20, 20)))
    assert not instance.agree(one, with_mask((0, 0, 20, 20), (20, 20, 40, 40), classes=[0, 1]))
    assert not instance.agree(one, with_mask((0, 0, 20, 9), (20, 20, 40, 40)))
    assert instance.agree(with_mask(), with_mask())
    empty = replace(with_mask((0, 0, 9, 9)), masks=with_mask((3, 3, 3, 3)).masks)
    assert instance.agree(empty, empty), "by their boxes"
    assert not instance.agree(empty, with_mask((0, 0, 9, 9)))


def test_there_are_two_metrics() -> None:
    assert instance.METRICS == ("mask_ap", "mask_ap50")
    with pytest.raises(UsageError, match="instance has no metric 'ap'"):
        instance.metric(SPEC, "ap")


def test_masks_are_drawn_as_tints_with_an_outline() -> None:
    gray = np.full((40, 40, 3), 128, dtype=np.uint8)
    found = with_mask((4, 16, 36, 36), classes=[1])
    drawn = picture_of(gray, found)
    inside, outside = drawn[26, 20], drawn[38, 38]
    assert (outside == 128).all()
    assert (inside != 128).any()
    edge = drawn[26, 4].astype(int)
    assert np.abs(edge - 128).sum() > np.abs(inside.astype(int) - 128).sum(), "the outline is not mixed"
    other: Any = picture_of(np.full((80, 80, 3), 128, dtype=np.uint8), found)
    assert (other[26, 20] == 128).all(), "a mask of another picture is left out; its box is drawn"


def test_output_layers_are_protected() -> None:
    torch = pytest.importorskip("torch")
    from edgecv.models.reference_instance import yolo_seg

    names = instance.protected(yolo_seg())
    assert names == ["classes", "coefficients", "prototypes", "sides"]
    assert torch is not None
