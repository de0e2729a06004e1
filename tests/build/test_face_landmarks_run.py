"""Landmarks of faces: drawn faces and their points as COCO writes them in, an int8 network on four targets out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.runtime.load import load_artifact
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line, rungs_of

NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
PLACES = np.array([[0.32, 0.38], [0.68, 0.38], [0.5, 0.56], [0.36, 0.76], [0.64, 0.76]])
"""Of the landmarks in a face's box."""
EYES = [0, 1]
TRAINED, JUDGED = 240, 24


def draw_face(random: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[float]]:
    """A picture of 96 x 96 pixels with one face, its landmarks `(5, 2)` and a loose box x, y, width, height.

    The box is as a detector finds it, up to 14 pixels too large on each side: it does not tell where the landmarks are.
    """
    noise = random.integers(0, 120, (5, 5, 3), dtype=np.uint8)
    image = np.ascontiguousarray(cv2.resize(noise, (96, 96), interpolation=cv2.INTER_CUBIC))
    wide, high = random.uniform(46, 64), random.uniform(52, 68)
    left, top = random.uniform(4, 92 - wide), random.uniform(4, 92 - high)
    points = np.array([left, top]) + PLACES * [wide, high] + random.normal(0, 1.5, (5, 2))
    skin = tuple(int(value) for value in random.integers(150, 240, 3))
    dark = tuple(int(value) for value in random.integers(0, 70, 3))
    middle = (round(left + wide / 2), round(top + high / 2))
    cv2.ellipse(image, middle, (round(wide / 2), round(high / 2)), 0, 0, 360, skin, -1, cv2.LINE_AA)
    spots = [(round(float(x)), round(float(y))) for x, y in points]
    for eye in spots[:2]:
        cv2.circle(image, eye, 4, dark, -1, cv2.LINE_AA)
    cv2.line(image, (spots[2][0], spots[2][1] - 8), spots[2], dark, 2, cv2.LINE_AA)
    cv2.line(image, spots[3], spots[4], (40, 40, 200), 3, cv2.LINE_AA)
    low = np.maximum(np.array([left, top]) - random.uniform(0, 14, 2), 0)
    end = np.minimum(np.array([left + wide, top + high]) + random.uniform(0, 14, 2), 96)
    return image, points, [*low.tolist(), *(end - low).tolist()]


def write_faces(folder: Path) -> None:
    """Pictures and ``faces.json`` as a reader of kind coco-keypoints takes them."""
    random = np.random.default_rng(7)
    (folder / "pictures").mkdir()
    images, notes = [], []
    for number in range(TRAINED + JUDGED):
        name = f"{'train' if number < TRAINED else 'eval'}{number:03d}.png"
        image, points, box = draw_face(random)
        assert cv2.imwrite(str(folder / "pictures" / name), image)
        images.append({"id": number, "file_name": name, "width": 96, "height": 96})
        values = [value for x, y in points.tolist() for value in (x, y, 2)]
        note = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box, "area": box[2] * box[3]}
        notes.append({**note, "keypoints": values})
    categories = [{"id": 1, "name": "face", "keypoints": list(NAMES)}]
    tables = {"images": images, "annotations": notes, "categories": categories}
    (folder / "faces.json").write_text(json.dumps(tables))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A landmark network that learned drawn faces from nothing, was cut, tuned and quantised."""
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder)
    some = {"kind": "coco-keypoints", "path": "faces.json", "root": "pictures", "crop": 1.0}
    return run_line(
        folder,
        {
            "model": {
                "source": "python:edgecv.models.reference_pose:face_landmarks",
                "input": {"size": [64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize": "stretch"},
                "options": {"keypoints": 5, "height": 64, "width": 64, "features": 64},
            },
            "family": {
                "kind": "pose",
                "head": "regression",
                "labels": ["face"],
                "keypoints": list(NAMES),
                "options": {"pck_size": EYES, "nme_limit": 0.5},
            },
            "data": {
                "train": {**some, "only": "train*"},
                "eval": {**some, "only": "eval*"},
                "calibration": {"source": {**some, "only": "train*"}, "samples": 24, "select": "random"},
            },
            "steps": [
                {"finetune": {"epochs": 40, "lr": 6e-3, "batch_size": 16}},
                {"prune": {"ratio": 0.15, "round_to": 4, "importance": "magnitude", "repair": False}},
                {"finetune": {"epochs": 8, "lr": 2e-3, "batch_size": 16}},
                {"quantize": {"method": "ptq", "scheme": "portable"}},
            ],
            "budgets": {"accuracy": {"metric": "nme_auc", "max_drop": 0.1}},
        },
    )


@pytest.mark.build
@pytest.mark.xdist_group("faces")
def test_landmarks_are_learned_and_survive_int8_on_every_engine(faces: Line) -> None:
    check_line(faces)
    for target in ENGINES:
        accuracy = faces.made(target).accuracy
        before = rungs_of(faces.made(target))["float torch"].metric
        assert accuracy is not None
        assert before is not None
        assert (accuracy.metric, accuracy.samples) == ("nme_auc", JUDGED)
        assert accuracy.extras["nme"] < 0.2, "it did not learn: the mean of all faces has 0.27"
        assert accuracy.value > before - 0.03, f"{target} loses what was learned"


@pytest.mark.build
@pytest.mark.xdist_group("faces")
def test_each_engine_puts_the_landmarks_of_a_new_face_where_they_are(faces: Line) -> None:
    image, points, (left, top, wide, high) = draw_face(np.random.default_rng(99))
    for target in ENGINES:
        with load_artifact(faces.folder / "out" / target) as model:
            x, y = max(0, round(left)), max(0, round(top))
            found = model.predict(np.ascontiguousarray(image[y : round(top + high), x : round(left + wide)]))
        assert found.names == NAMES
        away = np.linalg.norm(found.keypoints[0, :, :2] + [x, y] - points, axis=1)
        assert away.mean() < 6, target


@pytest.mark.build
@pytest.mark.xdist_group("faces")
def test_the_camera_loop_gives_five_landmarks_a_frame(faces: Line) -> None:
    for said in loop_lines(faces, "host-litert"):
        assert [len(pose["keypoints"]) for pose in said["poses"]] == [5]
