"""The heads of two-stage networks: a box a class (detection), and maps over each box (pose)."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError
from edgecv.families import detection, pose

CONTRACT = InputContract(size=(200, 300))
LABELS = ("a", "b", "c")


def spec(**more: object) -> FamilySpec:
    return FamilySpec("detection", LABELS, head="rcnn", **more)  # type: ignore[arg-type]


def three_proposals() -> tuple[np.ndarray, np.ndarray]:
    """Boxes `(1, 3, 12)` and scores `(1, 3, 3)`; the second proposal shows what the first one does."""
    boxes = np.zeros((1, 3, 3, 4), np.float32)
    boxes[0, :, 0] = [[10, 10, 50, 50], [11, 11, 51, 51], [100, 100, 150, 160]]
    boxes[0, :, 1] = [[10, 10, 90, 50], [200, 20, 260, 80], [100, 100, 150, 160]]
    boxes[0, :, 2] = [[0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5]]
    scores = np.array([[[0.9, 0.6, 0.0], [0.8, 0.5, 0.0], [0.0, 0.0, 0.0]]], np.float32)
    return boxes.reshape(1, 3, 12), scores


@pytest.mark.parametrize("swapped", [False, True])
def test_each_class_has_its_own_box(swapped: bool) -> None:
    outputs = [*three_proposals()][:: -1 if swapped else 1]
    found = detection.decode(outputs, spec(score_threshold=0.3), CONTRACT)
    assert found.class_ids.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert found.boxes.tolist() == [[10, 10, 50, 50], [10, 10, 90, 50], [200, 20, 260, 80]]


def test_one_class_a_proposal() -> None:
    found = detection.decode([*three_proposals()], spec(score_threshold=0.3, options={"multi_label": False}), CONTRACT)
    assert found.class_ids.tolist() == [0]


def test_rows_that_suppression_emptied_are_no_objects() -> None:
    found = detection.decode([*three_proposals()], spec(score_threshold=0.0), CONTRACT)
    assert len(found) == 3


@pytest.mark.parametrize(
    "shapes", [[(1, 5, 12)], [(1, 5, 12), (1, 5, 4)], [(1, 5, 4), (1, 5, 3)], [(1, 5, 12), (1, 3)]]
)
def test_other_shapes_are_refused(shapes: list[tuple[int, ...]]) -> None:
    specs = tuple(TensorSpec(str(place), shape, "float32") for place, shape in enumerate(shapes))
    assert "needs boxes (1, K, 12) and probabilities (1, K, 3)" in detection.problems(spec(), specs)[0]
    with pytest.raises(ModelError, match="head 'rcnn' needs boxes"):
        detection.decode([np.zeros(shape, np.float32) for shape in shapes], spec(), CONTRACT)


def test_nan_is_refused() -> None:
    boxes, scores = three_proposals()
    scores[0, 1, 1] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        detection.decode([boxes, scores], spec(), CONTRACT)


# --- pose


def persons() -> list[np.ndarray]:
    """Three boxes (the last one below the threshold) with maps of four keypoints."""
    maps = np.random.default_rng(0).normal(0, 2, (3, 4, 14, 14)).astype(np.float32)
    boxes = np.array([[[20, 30, 99.5, 180], [150, 10, 180, 11], [0, 0, 20, 20]]], np.float32)
    return [boxes, np.array([[0.9, 0.7, 0.1]], np.float32), maps.reshape(1, 12, 14, 14)]


def pose_spec(**more: object) -> FamilySpec:
    return FamilySpec("pose", ("person",), head="rois", background=True, score_threshold=0.3, **more)  # type: ignore[arg-type]


def test_peaks_are_torchvisions() -> None:
    boxes, scores, maps = persons()
    torch, heads = pytest.importorskip("torch"), pytest.importorskip("torchvision.models.detection.roi_heads")
    tall = np.array([30, 40, 70, 96], np.float32)
    boxes[0, 0] = tall  # within four times the cells of the map, as torchvision enlarges it
    found = pose.decode([boxes, scores, maps], pose_spec(), CONTRACT)
    wanted, logits = heads.heatmaps_to_keypoints(
        torch.from_numpy(maps.reshape(3, 4, 14, 14)[:2]), torch.from_numpy(boxes[0, :2])
    )
    np.testing.assert_allclose(found.keypoints[..., :2], wanted[..., :2].numpy(), atol=0.02)
    np.testing.assert_allclose(found.keypoints[..., 2], torch.sigmoid(logits).numpy(), atol=1e-3)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.boxes is not None
    np.testing.assert_allclose(found.boxes, boxes[0, :2])


def test_large_boxes_are_read_to_a_quarter_of_a_cell() -> None:
    boxes, scores, maps = persons()
    torch, heads = pytest.importorskip("torch"), pytest.importorskip("torchvision.models.detection.roi_heads")
    boxes[0, 0] = [0, 0, 280, 200]
    found = pose.decode([boxes, scores, maps], pose_spec(), CONTRACT)
    wanted = heads.heatmaps_to_keypoints(
        torch.from_numpy(maps.reshape(3, 4, 14, 14)[:1]), torch.from_numpy(boxes[0, :1])
    )[0]
    np.testing.assert_allclose(found.keypoints[0, :, 0], wanted[0, :, 0].numpy(), atol=280 / 14 / 4)
    np.testing.assert_allclose(found.keypoints[0, :, 1], wanted[0, :, 1].numpy(), atol=200 / 14 / 4)


def test_points_go_to_the_picture() -> None:
    found = pose.decode(persons(), pose_spec(), CONTRACT)
    larger = pose.decode(persons(), pose_spec(), CONTRACT, picture=(400, 600))
    np.testing.assert_allclose(larger.keypoints[..., :2], found.keypoints[..., :2] * 2, rtol=1e-4)


def test_nobody_is_no_pose() -> None:
    boxes, scores, maps = persons()
    found = pose.decode([boxes, scores * 0, maps], pose_spec(), CONTRACT)
    assert (len(found), found.keypoints.shape) == (0, (0, 4, 3))


@pytest.mark.parametrize(
    "shapes", [[(1, 3, 4), (1, 3)], [(1, 3, 4), (1, 2), (1, 12, 8, 8)], [(1, 3, 4), (1, 3), (1, 11, 8, 8)]]
)
def test_other_outputs_are_no_poses(shapes: list[tuple[int, ...]]) -> None:
    specs = tuple(TensorSpec(str(place), shape, "float32") for place, shape in enumerate(shapes))
    assert "head rois needs three outputs" in pose.problems(pose_spec(), specs)[0]


def test_keypoints_are_counted() -> None:
    specs = tuple(TensorSpec(str(place), item.shape, "float32") for place, item in enumerate(persons()))
    assert pose.problems(pose_spec(), specs) == []
    assert "the outputs hold 4 keypoints" in pose.problems(pose_spec(keypoints=("a", "b")), specs)[0]
