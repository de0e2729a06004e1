"""Keypoint heads: against plain loops, in either layout, mapped to the picture; and MoveNet on a real picture."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Poses
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import pose

CONTRACT = InputContract(size=(64, 48))


def spec(head: str, **more: object) -> FamilySpec:
    return FamilySpec("pose", ("person",), head=head, **more)  # type: ignore[arg-type]


def test_movenet_is_scaled_to_the_picture() -> None:
    output = np.array([[[[0.5, 0.25, 0.9], [0.0, 1.0, 0.4]]]], np.float32)
    found = pose.decode([output], spec("movenet"), CONTRACT, picture=(128, 96))
    np.testing.assert_allclose(found.keypoints[0], [[24, 64, 0.9], [96, 0, 0.4]], rtol=1e-6)
    assert len(found) == 1


@pytest.mark.parametrize("last", [False, True])
def test_heatmap_finds_the_peak_in_either_layout(last: bool) -> None:
    maps = np.zeros((1, 3, 16, 12), np.float32)
    maps[0, 0, 4, 5], maps[0, 0, 4, 6] = 0.9, 0.5  # the higher neighbour is on the right
    maps[0, 1, 15, 0] = 0.7  # a corner: no neighbours to look at
    maps[0, 2, 8, 8], maps[0, 2, 7, 8] = 0.6, 0.3
    given = maps.transpose(0, 2, 3, 1) if last else maps
    found = pose.decode([np.ascontiguousarray(given)], spec("heatmap"), CONTRACT)
    expected = [[(5.75) * 4, 4.5 * 4, 0.9], [0.5 * 4, 15.5 * 4, 0.7], [8.5 * 4, (8.25) * 4, 0.6]]
    np.testing.assert_allclose(found.keypoints[0], expected, rtol=1e-6)


def test_simcc_takes_the_best_bin_of_each_axis() -> None:
    across, down = np.zeros((1, 2, 96), np.float32), np.zeros((1, 2, 128), np.float32)
    across[0, 0, 40], across[0, 1, 95] = 0.8, 0.6
    down[0, 0, 10], down[0, 1, 127] = 0.9, 0.5
    found = pose.decode([across, down], spec("simcc"), CONTRACT)
    np.testing.assert_allclose(found.keypoints[0], [[20, 5, 0.8], [47.5, 63.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_yolo_pose_keeps_one_of_two_that_overlap(turned: bool) -> None:
    rows = np.zeros((8, 5 + 3 * 2), np.float32)
    rows[0] = [20, 30, 10, 20, 0.9, 18, 25, 0.8, 22, 35, 0.7]
    rows[1] = [20.5, 30, 10, 20, 0.8, 1, 1, 1, 1, 1, 1]
    rows[2] = [40, 10, 8, 8, 0.6, 41, 11, 0.5, 39, 9, 0.5]
    given = rows[np.newaxis] if turned else rows.T[np.newaxis]
    found = pose.decode(
        [np.ascontiguousarray(np.pad(given, ((0, 0), (0, 12), (0, 0)) if turned else ((0, 0), (0, 0), (0, 12))))],
        spec("yolo-pose"),
        CONTRACT,
    )
    assert found.boxes is not None
    np.testing.assert_allclose(found.scores, [0.9, 0.6])
    np.testing.assert_allclose(found.boxes[0], [15, 20, 25, 40])
    np.testing.assert_allclose(found.keypoints[1], [[41, 11, 0.5], [39, 9, 0.5]])


def test_letterboxed_points_come_back() -> None:
    contract = InputContract(size=(64, 64), resize="letterbox")
    output = np.array([[[[0.5, 0.5, 1.0]]]], np.float32)
    found = pose.decode([output], spec("movenet"), contract, picture=(100, 300))
    np.testing.assert_allclose(found.keypoints[0, 0, :2], [150, 50], atol=300 / 64)  # within a pixel of the network


def test_seventeen_points_are_those_of_coco() -> None:
    found = pose.decode([np.zeros((1, 1, 17, 3), np.float32)], spec("movenet"), CONTRACT)
    assert found.names[0] == "nose"
    assert len(found.skeleton) == 16
    other = pose.decode([np.zeros((1, 1, 2, 3), np.float32)], spec("movenet", keypoints=("a", "b")), CONTRACT)
    assert other.names == ("a", "b")
    assert other.to_dict()["poses"][0]["keypoints"][0] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("chosen", "shapes", "words"),
    [
        (spec("head"), [(1, 1, 17, 3)], "Allowed: movenet, heatmap, simcc, yolo-pose"),
        (spec("movenet"), [(1, 17, 3)], "head movenet needs one output (1, 1, K, 3)"),
        (spec("simcc"), [(1, 17, 96)], "head simcc needs two outputs"),
        (spec("movenet", keypoints=("a",)), [(1, 1, 17, 3)], "family.keypoints names 1"),
        (spec("movenet", options={"x": 1}), [(1, 1, 17, 3)], "no option 'x'"),
    ],
)
def test_outputs_that_do_not_fit(chosen: FamilySpec, shapes: list[tuple[int, ...]], words: str) -> None:
    outputs = [TensorSpec(f"o{index}", shape, "float32") for index, shape in enumerate(shapes)]
    assert words in pose.problems(chosen, outputs)[0]


def test_fitting_outputs_and_nan() -> None:
    for head, shapes in (("heatmap", [(1, 17, 64, 48)]), ("yolo-pose", [(1, 56, 8400)]), ("movenet", [(1, 1, 17, 3)])):
        outputs = [TensorSpec("o", shape, "float32") for shape in shapes]
        assert pose.problems(spec(head), outputs) == []
    with pytest.raises(ModelError, match="NaN"):
        pose.decode([np.full((1, 1, 17, 3), np.nan, np.float32)], spec("movenet"), CONTRACT)
    with pytest.raises(ModelError, match="does not fit"):
        pose.decode([np.zeros((1, 5), np.float32)], spec("movenet"), CONTRACT)


def poses(points: np.ndarray) -> Poses:
    return Poses(points.astype(np.float32), np.ones(len(points), np.float32))


def test_pck_and_agreement() -> None:
    draws = np.random.default_rng(0)
    truth = np.concatenate([draws.uniform(0, 100, (2, 17, 2)), np.ones((2, 17, 1))], axis=2)
    near, far = truth.copy(), truth.copy()
    near[..., :2] += 2
    far[..., :2] += 60
    assert pose.agree(poses(truth), poses(near))
    assert not pose.agree(poses(truth), poses(far))
    assert not pose.agree(poses(truth), poses(near[:1]))
    counted = pose.metric(spec("movenet"), "pck")
    counted.update(poses(near), poses(truth))
    assert counted.compute().value == 1.0
    half = truth.copy()
    half[0, :8, :2] += 60
    counted.update(poses(half), poses(truth))
    figures = counted.compute()
    assert figures.samples == 4
    assert figures.value == pytest.approx((3 + 9 / 17) / 4)
    counted.update(poses(truth[:0]), poses(truth))
    assert counted.compute().per_sample[-1] == 0.0
    with pytest.raises(UsageError, match="allowed: pck"):
        pose.metric(spec("movenet"), "ap")
    with pytest.raises(DataError, match="no labelled person"):
        pose.metric(spec("movenet"), "pck").compute()
    with pytest.raises(ModelError, match="cannot train pose"):
        pose.loss(None, None, spec("movenet"), label_smoothing=0.0)


def test_movenet_on_a_real_picture(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from edgecv.runtime.importer import import_model
    from edgecv.runtime.load import load_artifact

    file = shared_data / "models/movenet_lightning_ptq/movenet_single_pose_lightning_ptq.tflite"
    contract = InputContract(size=(192, 192), range=(0.0, 255.0))
    folder = import_model(file, out=tmp_path / "m", name="movenet", family=spec("movenet"), contract=contract)
    image = cv2.imread(str(shared_data / "pose-ref/squat.bmp"))
    with load_artifact(folder) as model:
        found = model.predict(image)
    reference = next((shared_data / "pose-ref").glob("*.csv"))
    rows = list(csv.DictReader(reference.read_text().splitlines()))
    real = np.array([[float(row["keypoint_x"]), float(row["keypoint_y"])] for row in rows])
    assert real.shape == (17, 2)
    height, width = image.shape[:2]
    error = np.abs(found.keypoints[0, :, :2] / [width, height] - real)
    assert error.mean() <= 0.012
    assert error.max() <= 0.04
