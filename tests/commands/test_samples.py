"""``--data`` of the commands on artifacts: kinds, keys behind commas, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from edgecv import cli, demo
from edgecv.vision.scenes import LABELS, Scene, SceneSpec

ARTIFACT = str(demo.artifact("onnxruntime"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes as files with their boxes in COCO's form, and one that nobody should look at."""
    folder = tmp_path_factory.mktemp("coco")
    pictures = folder / "the, pictures"
    pictures.mkdir()
    scene, images, notes = Scene(SceneSpec(size=(240, 320), objects=5, seed=3)), [], []
    for number in range(9):
        frame = scene.frame(number * 30)
        name = f"{'val' if number < 8 else 'other'}{number}.png"
        assert cv2.imwrite(str(pictures / name), frame.image)
        images.append({"id": number, "file_name": name, "width": 320, "height": 240})
        for box, index in zip(frame.boxes, frame.class_ids, strict=True):
            left, top, right, bottom = (float(value) for value in box)
            box_ = [left, top, right - left, bottom - top]
            notes.append({"id": len(notes), "image_id": number, "category_id": int(index) + 1, "bbox": box_})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(LABELS)]
    tables = {"images": images, "annotations": notes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(tables))
    return folder


def test_eval_on_coco_boxes(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"coco:{scenes / 'boxes.json'},root={scenes / 'the, pictures'},only=val*"
    assert cli.main(["eval", ARTIFACT, "--data", data, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["metric"], figures["samples"]) == ("ap", 8)
    assert 0.3 < figures["value"] <= 1


def test_options_beside_data_count_too(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", f"coco:{scenes / 'boxes.json'}", "--root", str(scenes / "the, pictures"), "--limit", "3"]
    assert cli.main(["eval", ARTIFACT, *words, "--metric", "ap50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3
    assert cli.main(["eval", ARTIFACT, "--data", "scenes-boxes:test,limit=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 4


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("coco:", "imagefolder:FOLDER, csv:FILE, coco:FILE"),
        ("nothing:x", "coco:FILE"),
        ("imagefolder:x,only=a", "kind imagefolder takes no only: coco"),
        ("sklearn-digits:half", "the split is train, test or all"),
        ("scenes-boxes:test,limit=some", "limit is a whole number above 0"),
        ("scenes-boxes:limits=4", "'limits=4' is none of root, only"),
    ],
)
def test_what_is_no_data_is_refused(data: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", ARTIFACT, "--data", data]) == 2
    assert said in capsys.readouterr().err


def test_pictures_without_labels_judge_nothing(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", ARTIFACT, "--data", f"images:{scenes / 'the, pictures'}"]) == 2
    assert "pictures without labels; to judge by: " in capsys.readouterr().err
