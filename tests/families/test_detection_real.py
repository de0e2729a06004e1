"""Detectors of others, with their published weights, on real pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections, DetectionTruth
from edgecv.families import detection
from edgecv.families.heads import HEADS
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import Model, load_artifact
from edgecv.vision.boxes import iou, nms
from edgecv.vision.image import geometry

pytest.importorskip("onnxruntime")

FACE = FamilySpec(kind="detection", labels=("face",), score_threshold=0.7, iou_threshold=0.4, head="ultraface")


@dataclass(frozen=True)
class Pictures:
    """The val2017 pictures of the pack, which the detectors were not trained on."""

    labels: tuple[str, ...]
    images: tuple[tuple[Path, DetectionTruth], ...]


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> Pictures:
    folder = shared_data / "coco-mini"
    table = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    categories = sorted(table["categories"], key=lambda item: item["id"])
    index = {item["id"]: place for place, item in enumerate(categories)}
    images = []
    for image in table["images"]:
        if "val2017" in image["coco_url"]:
            notes = [note for note in table["annotations"] if note["image_id"] == image["id"]]
            boxes = np.array([note["bbox"] for note in notes], dtype=np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            truth = DetectionTruth(
                boxes,
                np.array([index[note["category_id"]] for note in notes], dtype=np.int64),
                np.array([bool(note["iscrowd"]) for note in notes], dtype=bool),
                np.array([note["area"] for note in notes], dtype=np.float32),
            )
            images.append((folder / "images" / image["file_name"], truth))
    return Pictures(tuple(item["name"] for item in categories), tuple(images))


def load(file: Path, out: Path, spec: FamilySpec, contract: InputContract) -> Model:
    return load_artifact(import_model(file, out=out, name="real", family=spec, contract=contract), threads=1)


def precisions(model: Model, pictures: Pictures) -> tuple[dict[str, float], dict[str, float]]:
    """The figures as we decode, and with boxes that are not cut at the picture's edges."""
    spec, contract = model.subject.spec, model.subject.contract
    ours, uncut = detection.metric(spec, "ap"), detection.metric(spec, "ap")
    buffer = model.subject.input_buffer()
    for path, truth in pictures.images:
        image = cv2.imread(str(path))
        outputs = model.subject.run(image, buffer)
        size = image.shape[0], image.shape[1]
        ours.update(detection.decode(outputs, spec, contract, picture=size), truth)
        found = HEADS[spec.head].decode(outputs, spec, contract)
        rows = nms(found.boxes, found.scores, iou_threshold=spec.iou_threshold, class_ids=found.class_ids)[:100]
        boxes = geometry(size, contract).boxes_to_picture(found.boxes[rows], clip=False).astype(np.float32)
        uncut.update(Detections(boxes, found.scores[rows], found.class_ids[rows], spec.labels), truth)
    return ours.compute().extras, uncut.compute().extras


@pytest.mark.build
def test_fastestdet(shared_data: Path, tmp_path: Path, pictures: Pictures) -> None:
    """AP 0.160 and AP50 0.326 by the pack's manifest: what boxes give that are not cut at the picture's edges."""
    assert len(pictures.images) == 44
    spec = FamilySpec(
        kind="detection", labels=pictures.labels, head="fastestdet", score_threshold=0.01, max_detections=100
    )
    contract = InputContract(size=(352, 352), color="bgr", resize="stretch", interpolation="area")
    with load(shared_data / "models/fastestdet/FastestDet.onnx", tmp_path / "a", spec, contract) as model:
        ours, uncut = precisions(model, pictures)
        people = model.predict(cv2.imread(str(shared_data / "models/fastestdet/3.jpg")))
    assert uncut["ap"] == pytest.approx(0.160, abs=0.005)
    assert uncut["ap50"] == pytest.approx(0.326, abs=0.005)
    assert uncut["ap"] - 0.001 <= ours["ap"] < 0.175  # cutting at the edges can hardly hurt
    sure = people.select(people.scores > 0.78)
    assert [sure.labels[index] for index in sure.class_ids] == ["person"] * 4
    assert sure.scores.max() == pytest.approx(0.90, abs=0.01)


@pytest.mark.build
def test_yolox_nano(shared_data: Path, tmp_path: Path, pictures: Pictures) -> None:
    """AP 0.319 and AP50 0.504 by the pack's manifest: what counting every class of a box gives."""
    spec = FamilySpec(
        kind="detection",
        labels=pictures.labels,
        head="yolox",
        score_threshold=0.01,
        iou_threshold=0.65,
        max_detections=100,
        options={"multi_label": True},
    )
    contract = InputContract(size=(416, 416), color="bgr", range=(0, 255), resize="letterbox-topleft")
    with load(shared_data / "models/yolox_nano/yolox_nano.onnx", tmp_path / "a", spec, contract) as model:
        ours, _ = precisions(model, pictures)
    assert ours["ap"] == pytest.approx(0.319, abs=0.005)
    assert ours["ap50"] == pytest.approx(0.504, abs=0.01)


@pytest.fixture(scope="module")
def faces(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Model]]:
    """The two face detectors."""
    out = tmp_path_factory.mktemp("faces")
    rgb = InputContract(size=(240, 320), range=(0, 255), mean=(127.0,) * 3, std=(128.0,) * 3)
    bgr = InputContract(size=(320, 320), color="bgr", range=(0, 255), resize="letterbox-topleft", pad_value=0)
    landmarks = ("right eye", "left eye", "nose", "right mouth corner", "left mouth corner")
    yunet: dict[str, Any] = {"head": "yunet", "score_threshold": 0.6, "iou_threshold": 0.4, "keypoints": landmarks}
    files = shared_data / "models"
    with (
        load(files / "ultraface_rfb_320/version-RFB-320.onnx", out / "ultraface", FACE, rgb) as one,
        load(
            files / "yunet_n_320/yunet_n_320_320.onnx",
            out / "yunet",
            FamilySpec(kind="detection", labels=("face",), **yunet),
            bgr,
        ) as other,
    ):
        yield one, other


@pytest.mark.parametrize(("name", "count"), [("1face", 1), ("3faces", 3), ("4faces", 4)])
def test_faces(faces: tuple[Model, Model], shared_data: Path, name: str, count: int) -> None:
    """Two networks with nothing in common find the same faces, and the landmarks lie where they belong."""
    image = cv2.imread(str(shared_data / "faces" / "images" / f"{name}.png"))
    ultraface, yunet = (model.predict(image) for model in faces)
    assert len(ultraface) == len(yunet) == count
    overlaps = iou(ultraface.boxes, yunet.boxes)
    assert (overlaps.max(axis=1) > 0.5).all()
    assert detection.agree(ultraface, yunet)
    assert yunet.keypoints is not None
    for box, marks in zip(yunet.boxes, yunet.keypoints, strict=True):
        right_eye, left_eye, nose, right_mouth, left_mouth = marks[:, :2]
        assert (marks[:, :2] >= box[:2]).all()
        assert (marks[:, :2] <= box[2:]).all()
        assert right_eye[0] < left_eye[0]
        assert right_mouth[0] < left_mouth[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
