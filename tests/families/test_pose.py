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
from edgecv.errors import ModelError
from edgecv.families import pose
from edgecv.families.pose_heads import maps_axis

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


def test_yolo_pose_of_nobody() -> None:
    found = pose.decode([np.zeros((1, 11, 40), np.float32)], spec("yolo-pose"), CONTRACT)
    assert found.keypoints.shape == (0, 2, 3)


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
        (spec("head"), [(1, 1, 17, 3)], "Allowed: movenet, heatmap, simcc, yolo-pose, regression"),
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


def test_agreement() -> None:
    draws = np.random.default_rng(0)
    truth = np.concatenate([draws.uniform(0, 100, (2, 17, 2)), np.ones((2, 17, 1))], axis=2)
    near, far = truth.copy(), truth.copy()
    near[..., :2] += 2
    far[..., :2] += 60
    assert pose.agree(poses(truth), poses(near))
    assert not pose.agree(poses(truth), poses(far))
    assert not pose.agree(poses(truth), poses(near[:1]))
    assert pose.agree(poses(truth), poses(near[::-1])), "the order says nothing: scores may be nearly alike"
    assert not pose.agree(poses(truth), poses(np.stack([near[0], near[0]]))), "one partner for each"


def peak(at: tuple[float, float], size: tuple[int, int] = (32, 24), sigma: float = 1.5) -> np.ndarray:
    """A map (1, 1, h, w) with a peak at (x, y) in cells, 0.5 the middle of the first."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2)).astype(np.float32)[np.newaxis, np.newaxis]


@pytest.mark.parametrize("at", [(10.5, 12.5), (10.7, 12.1), (13.95, 20.3), (6.31, 25.77)])
def test_taylor_finds_a_peak_between_cells(at: tuple[float, float]) -> None:
    contract = InputContract(size=(128, 96))
    maps = peak(at)
    found = {
        refine: pose.decode(
            [maps], spec("heatmap", keypoints=("a",), options={"refine": refine, "sigma": 1.5}), contract
        )
        for refine in ("taylor", "quarter", "none")
    }
    off = {refine: float(np.abs(item.keypoints[0, 0, :2] / 4 - at).max()) for refine, item in found.items()}
    assert off["taylor"] < 0.02
    assert off["quarter"] <= 0.26
    assert off["none"] <= 0.5
    assert off["taylor"] <= off["quarter"]


def test_taylor_of_an_edge_or_a_flat_map_stays_in_its_cell() -> None:
    options = {"refine": "taylor"}
    for maps, cell in ((peak((0.2, 31.9)), (0.5, 31.5)), (np.zeros((1, 1, 32, 24), np.float32), (0.5, 0.5))):
        found = pose.decode([maps], spec("heatmap", keypoints=("a",), options=options), InputContract(size=(32, 24)))
        np.testing.assert_allclose(found.keypoints[0, 0, :2], cell)
    tiny = np.zeros((1, 1, 3, 3), np.float32)
    tiny[0, 0, 1, 1] = 1
    found = pose.decode([tiny], spec("heatmap", keypoints=("a",), options=options), InputContract(size=(3, 3)))
    np.testing.assert_allclose(found.keypoints[0, 0], [1.5, 1.5, 1.0])


def test_values_that_stand_at_the_corner_of_a_cell() -> None:
    maps = np.zeros((1, 2, 32, 24), np.float32)
    maps[0, :, 8, 4] = 1
    options = {"cells": "corner", "refine": "none"}
    found = pose.decode([maps], spec("heatmap", options=options), InputContract(size=(128, 96)))
    np.testing.assert_allclose(found.keypoints[0, 0, :2], [16, 32])


def test_names_tell_which_axis_has_the_maps() -> None:
    names = tuple("abcdefghijklmnopq")
    maps = np.zeros((1, 17, 16, 12), np.float32)  # fewer columns than keypoints
    assert pose.problems(spec("heatmap", keypoints=names), [TensorSpec("o", maps.shape, "float32")]) == []
    found = pose.decode([maps], spec("heatmap", keypoints=names), CONTRACT)
    assert found.keypoints.shape == (1, 17, 3)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 17, 16, 16), 1), ((1, 16, 16, 17), 3), ((1, 17, 64, 48), 1), ((1, 64, 48, 17), 3), ((1, 8, 8, 8), 1)],
)
def test_maps_without_names_lie_beside_the_sides_of_a_square(shape: tuple[int, ...], axis: int) -> None:
    assert maps_axis(shape, spec("heatmap")) == axis


def test_simcc_scores_may_be_probabilities() -> None:
    across, down = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 4), np.float32)
    across[0, 0, 1], down[0, 0, 2] = 3.0, 9.0
    found = pose.decode([across, down], spec("simcc", options={"softmax": True}), CONTRACT)
    assert found.keypoints[0, 0, 2] == pytest.approx(np.exp(3) / (np.exp(3) + 3), rel=1e-5)
    assert pose.decode([across, down], spec("simcc"), CONTRACT).keypoints[0, 0, 2] == 1.0


@pytest.mark.parametrize("shape", [(1, 6), (1, 3, 2), (1, 6, 1, 1)])
def test_coordinates_of_landmarks(shape: tuple[int, ...]) -> None:
    given = np.array([0.5, 0.25, 0.0, 1.0, 0.1, 0.2], np.float32).reshape(shape)
    found = pose.decode([given], spec("regression"), CONTRACT, picture=(128, 96))
    np.testing.assert_allclose(found.keypoints[0], [[48, 32, 1], [0, 128, 1], [9.6, 25.6, 1]], rtol=1e-5)
    pixels = pose.decode([given * 10], spec("regression", options={"normalized": False}), CONTRACT)
    np.testing.assert_allclose(pixels.keypoints[0, 0, :2], [5, 2.5], rtol=1e-5)
    assert pose.problems(spec("regression"), [TensorSpec("o", shape, "float32")]) == []


@pytest.mark.parametrize(
    ("head", "options", "words"),
    [
        ("heatmap", {"refine": "best"}, "allowed is quarter or taylor or none"),
        ("heatmap", {"sigma": 0}, "a number above 0"),
        ("simcc", {"refine": "taylor"}, "no option 'refine'"),
        ("regression", {"pck_size": "head"}, "box, keypoints, area or the numbers of two keypoints"),
        ("movenet", {"sigmas": [0.1, -1]}, "a number a keypoint"),
        ("movenet", {"pck_share": 2}, "at most 1"),
    ],
)
def test_options_are_checked(head: str, options: dict[str, object], words: str) -> None:
    assert words in pose.problems(spec(head, options=options), [])[0]


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
