"""The networks of the compression benchmark: where each comes from, its pictures, and how an answer is scored."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.vision.boxes import iou
from edgecv.vision.image import Image


@dataclass(frozen=True)
class Case:
    """One network: where it comes from, its data, and how an answer is scored against a truth."""

    name: str
    make: Callable[[], Any]
    family: FamilySpec
    contract: InputContract
    calibration: Sequence[Path]
    images: Sequence[Path]
    truths: Sequence[Any]
    metric: str
    settings: dict[str, Any] = field(default_factory=lambda: {"scheme": "affine"})


class Likeness:
    """A metric without labels: how like the float network's answer each answer is, 0 to 1."""

    def __init__(self, like: Callable[[Any, Any], float]) -> None:
        self._like, self._scores = like, list[float]()

    def update(self, result: Any, truth: Any) -> None:
        """``truth`` is the float network's answer."""
        self._scores.append(self._like(result, truth))

    @property
    def scores(self) -> list[float]:
        """One a picture."""
        return self._scores


def same_faces(found: Any, truth: Any) -> float:
    """1 where as many faces are found and each overlaps one of the float network's by half."""
    if len(found) != len(truth):
        return 0.0
    return float(not len(truth) or (iou(found.boxes, truth.boxes).max(axis=1) >= 0.5).all())


LIKE: dict[str, Callable[[Any, Any], float]] = {
    "cosine": lambda one, other: float(one.vector @ other.vector),
    "same faces": same_faces,
}


def cases(data: Path) -> list[Case]:
    """All models with data here."""
    imagenet = sorted((data / "imagenet-samples").rglob("*.[jJ]*[gG]"))[::5][:96]
    found = [_resnet(data)]
    images, truths, labels = _coco(data)
    crops = _persons(data)
    half = len(crops) // 2
    onnx = data / "models"

    def source(path: Path, contract: InputContract) -> Callable[[], Any]:
        def make() -> Any:
            from edgecv.models.onnx_import import import_onnx

            return import_onnx(path, contract)

        return make

    def add(name: str, file: str, family: FamilySpec, contract: InputContract, *rest: Any, **more: Any) -> None:
        found.append(Case(name, source(onnx / file, contract), family, contract, *rest, **more))

    family = FamilySpec(
        "detection",
        labels,
        head="yolox",
        score_threshold=0.01,
        iou_threshold=0.65,
        max_detections=100,
        options={"multi_label": True},
    )
    contract = InputContract(size=(416, 416), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft")
    # `edgecv analyze` names these: channels that differ by a factor of 200, where no equalisation can help.
    worst = {"scheme": "affine", "keep_float": ("Conv_41", "Conv_44", "Conv_47", "Conv_70")}
    data_of = (imagenet, images, truths, "ap")
    add("YOLOX-nano", "yolox_nano/yolox_nano.onnx", family, contract, *data_of, settings=worst)
    family = FamilySpec("detection", labels, head="fastestdet", score_threshold=0.01, max_detections=100)
    contract = InputContract(size=(352, 352), color="bgr", interpolation="area")
    add("FastestDet", "fastestdet/FastestDet.onnx", family, contract, imagenet, images, truths, "ap")
    faces = sorted((data / "faces/images").glob("*.*"))
    none = [None] * len(faces)
    family = FamilySpec("detection", ("face",), head="ultraface", score_threshold=0.7, iou_threshold=0.4)
    contract = InputContract(size=(240, 320), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    people = sorted((data / "coco-mini/images").glob("*.jpg"))
    add("UltraFace", "ultraface_rfb_320/version-RFB-320.onnx", family, contract, people, faces, none, "same faces")
    family = FamilySpec("detection", ("face",), head="yunet", score_threshold=0.6, iou_threshold=0.4)
    contract = InputContract(size=(320, 320), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft", pad_value=0)
    add("YuNet", "yunet_n_320/yunet_n_320_320.onnx", family, contract, people, faces, none, "same faces")
    contract = InputContract(size=(256, 128), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    add(
        "OSNet",
        "osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx",
        FamilySpec("embedding", ("person",)),
        contract,
        crops[:half],
        crops[half:],
        [None] * (len(crops) - half),
        "cosine",
    )
    return found


def _resnet(data: Path) -> Case:
    def make() -> Any:
        from edgecv.core.recipe import Weights
        from edgecv.models.reference import cifar_resnet20
        from edgecv.models.weights import apply_state_dict, read_state_dict

        path = data / "models/resnet20_cifar10/resnet20-12fca82f.th"
        module = cifar_resnet20()
        state = read_state_dict(path, Weights(path=str(path), strip_prefix="module."))
        apply_state_dict(module, state, strict=True)
        return module.eval()

    folder = data / "cifar10-mini"
    labels = tuple((folder / "labels.txt").read_text(encoding="utf-8").split())
    test = [(path, index) for index, label in enumerate(labels) for path in sorted((folder / "test" / label).glob("*"))]
    train = [path for label in labels for path in sorted((folder / "train" / label).glob("*"))[:30]]
    contract = InputContract(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images, truths = [path for path, _ in test], [index for _, index in test]
    return Case("ResNet-20", make, FamilySpec("classification", labels), contract, train, images, truths, "top1")


def _coco(data: Path) -> tuple[list[Path], list[Any], tuple[str, ...]]:
    """The val2017 pictures of the pack with their boxes."""
    table = json.loads((data / "coco-mini/instances.json").read_text(encoding="utf-8"))
    categories = sorted(table["categories"], key=lambda item: item["id"])
    index = {item["id"]: place for place, item in enumerate(categories)}
    images, truths = [], []
    for image in table["images"]:
        if "val2017" not in image["coco_url"]:
            continue
        notes = [note for note in table["annotations"] if note["image_id"] == image["id"]]
        boxes = np.array([note["bbox"] for note in notes], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ids = np.array([index[note["category_id"]] for note in notes], dtype=np.int64)
        crowd = np.array([bool(note["iscrowd"]) for note in notes], dtype=bool)
        area = np.array([note["area"] for note in notes], dtype=np.float32)
        images.append(data / "coco-mini/images" / image["file_name"])
        truths.append(DetectionTruth(boxes, ids, crowd, area))
    return images, truths, tuple(item["name"] for item in categories)


def _persons(data: Path) -> list[Path]:
    """Persons cut out of the pictures of the pack, as files in a folder of this run."""
    folder = Path(tempfile.mkdtemp(prefix="edgecv-persons-"))
    table = json.loads((data / "coco-mini/person_keypoints.json").read_text(encoding="utf-8"))
    names = {item["id"]: item["file_name"] for item in table["images"]}
    made = []
    for note in table["annotations"]:
        left, top, width, height = (round(value) for value in note["bbox"])
        if height < 60 or width < 25:
            continue
        image = read(data / "coco-mini/images" / names[note["image_id"]])
        part = image[max(0, top) : top + height, max(0, left) : left + width]
        made.append(folder / f"{note['id']}.png")
        cv2.imwrite(str(made[-1]), part)
    return made


def read(path: Path) -> Image:
    """A picture, BGR."""
    image: Any = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    picture: Image = image
    return picture
