"""Broken labels through the command line: the file and the fault are named, exit code 2, no artifact half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from edgecv import cli

pytestmark = pytest.mark.build
HEIGHT, WIDTH = 24, 32


def optimize(folder: Path, model: dict[str, Any], family: dict[str, Any], data: dict[str, Any]) -> int:
    """`edgecv optimize` of a recipe that would evaluate the network on ``data``."""
    recipe = {"recipe": 1, "name": "bad", "model": model, "family": family, "data": {"eval": data}, "steps": []}
    recipe |= {"targets": ["host-onnxruntime"], "measure": {"protocol": "smoke"}, "budgets": {}}
    (folder / "bad.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words = ["optimize", str(folder / "bad.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    return cli.main(words)


def left(folder: Path) -> list[Path]:
    """Artifacts, whole or half, of a refused run: only its log and the report of the error may be there."""
    return [path for path in (folder / "out").rglob("*") if path.is_dir()] + [*(folder / "out").rglob("manifest.json")]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, and masks of the classes 0, 1 and 2."""
    draws = np.random.default_rng(0)
    for place in ("pictures", "masks"):
        (tmp_path / place).mkdir()
    for number in range(3):
        image = draws.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / f"pictures/{number}.png"), image)
        mask = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
        assert cv2.imwrite(str(tmp_path / f"masks/{number}.png"), mask)
    return tmp_path


def segment(folder: Path, labels: list[str]) -> int:
    model = {
        "source": "python:edgecv.models.reference_segmentation:unet",
        "options": {"width": 4, "levels": 1},
        "input": {"size": [HEIGHT, WIDTH], "resize": "stretch"},
    }
    family = {"kind": "segmentation", "labels": labels}
    return optimize(folder, model, family, {"kind": "masks", "path": "pictures", "truth": "masks"})


def test_sound_masks_are_taken(pictures: Path) -> None:
    assert segment(pictures, ["ground", "disc", "box"]) == 0


def test_a_mask_of_another_size_than_its_picture(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cv2.imwrite(str(pictures / "masks/1.png"), np.zeros((HEIGHT + 2, WIDTH), np.uint8))
    assert segment(pictures, ["ground", "disc", "box"]) == 2
    told = capsys.readouterr().err
    assert f"1.png: the mask has {WIDTH} x {HEIGHT + 2} pixels and its picture 1.png {WIDTH} x {HEIGHT}" in told
    assert not left(pictures)


def test_fewer_labels_than_classes_in_the_masks(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(pictures, ["ground", "disc"]) == 2
    told = capsys.readouterr().err
    assert "0.png: the mask holds 2; allowed are the classes 0..1 and 255" in told
    assert "give a label for each class" in told
    assert not left(pictures)


def test_a_network_with_another_number_of_classes(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {
        "source": "python:edgecv.models.reference_segmentation:unet",
        "options": {"width": 4, "levels": 1, "num_classes": 5},
        "input": {"size": [HEIGHT, WIDTH], "resize": "stretch"},
    }
    family = {"kind": "segmentation", "labels": ["ground", "disc", "box"]}
    assert optimize(pictures, model, family, {"kind": "masks", "path": "pictures", "truth": "masks"}) == 2
    told = capsys.readouterr().err
    assert "does not fit the family segmentation" in told
    assert "(1, 5, 12, 16)" in told
    assert not left(pictures)


def pose(folder: Path, points: list[float], keypoints: int = 3) -> int:
    """A run on one person with ``points``, three numbers for each of its three keypoints."""
    person = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 2, 20, 20], "area": 200, "iscrowd": 0}
    table = {
        "images": [{"id": 0, "file_name": "0.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{**person, "keypoints": points, "num_keypoints": 3}],
        "categories": [{"id": 1, "name": "person", "keypoints": ["a", "b", "c"]}],
    }
    (folder / "persons.json").write_text(json.dumps(table), encoding="utf-8")
    model = {
        "source": "python:edgecv.models.reference_pose:simple_pose",
        "options": {"keypoints": keypoints, "widths": [4, 8], "neck": 4},
        "input": {"size": [64, 48], "resize": "stretch"},
    }
    family = {"kind": "pose", "head": "heatmap", "labels": ["person"], "options": {"sigmas": [0.05] * keypoints}}
    data = {"kind": "coco-keypoints", "path": "persons.json", "root": "pictures", "crop": 0.75}
    return optimize(folder, model, family, data)


SOUND = [4, 4, 2, 10, 10, 2, 20, 20, 2]


def test_sound_keypoints_are_taken(pictures: Path) -> None:
    assert pose(pictures, SOUND) == 0


def test_a_keypoint_outside_its_picture(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pose(pictures, [4, 4, 2, WIDTH + 1, 10, 2, 20, 20, 2]) == 2
    told = capsys.readouterr().err
    assert "persons.json" in told
    assert f"keypoint 1 is at {WIDTH + 1}, 10, outside its picture of {WIDTH} x {HEIGHT} pixels" in told
    assert not left(pictures)


def test_a_network_with_another_number_of_keypoints(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pose(pictures, SOUND, keypoints=5) == 2
    told = capsys.readouterr().err
    assert "3" in told
    assert "5" in told
    assert "keypoint" in told
    assert not left(pictures)
