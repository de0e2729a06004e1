"""The networks of the compression benchmark: where each comes from, its pictures, and how an answer is scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from people import crowds, frames, person_masks, persons
from restoration_pairs import JUDGED_OF, SIDE, TRAINED, halves, middles

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.vision.boxes import iou
from edgecv.vision.image import Image


@dataclass(frozen=True)
class Case:
    """One network: where it comes from, its data, and how an answer is scored against a truth.

    The repair ladder is judged on ``held``, pictures that are neither calibrated on nor evaluated, with the family's
    metric ``budget`` and limit ``max_drop``, by ``held_truths`` where there are any. Its last rung trains on ``train``,
    as does a case whose ``settings`` have the method qat, which needs no ladder.
    """

    name: str
    make: Callable[[], Any]
    family: FamilySpec
    contract: InputContract
    calibration: Sequence[Path]
    images: Sequence[Path]
    truths: Sequence[Any]
    metric: str
    held: Sequence[Path]
    budget: Any = "ap"
    max_drop: float = 0.01
    held_truths: Sequence[Any] = ()
    train: Sequence[Path] = ()
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


SAME_IOU = 0.5
"""A face found again covers so much of the other one."""


def same_faces(found: Any, truth: Any) -> float:
    """1 where as many faces are found and each overlaps one of the float network's by half."""
    if len(found) != len(truth):
        return 0.0
    return float(not len(truth) or (iou(found.boxes, truth.boxes).max(axis=1) >= SAME_IOU).all())


LIKE: dict[str, Callable[[Any, Any], float]] = {
    "cosine": lambda one, other: float(one.vector @ other.vector),
    "same faces": same_faces,
}


def cases(data: Path, made: Path) -> list[Case]:
    """All models with data here; pictures that have to be made first stand in the folder ``made``."""
    films = frames(data, made / "frames")
    return [
        _resnet(data),
        _imdn(data, made),
        _plates(data),
        *_detectors(data),
        *_faces(data, made, films),
        *_people(data, made, films),
    ]


def _imported(path: Path, contract: InputContract) -> Callable[[], Any]:
    def make() -> Any:
        from edgecv.models.onnx_import import import_onnx

        return import_onnx(path, contract)

    return make


RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes"


def shipped(recipe: str) -> dict[str, Any]:
    """The quantize step of a recipe that comes with edgecv."""
    steps = yaml.safe_load((RECIPES / recipe).read_text(encoding="utf-8"))["steps"]
    (found,) = [step["quantize"] for step in steps if "quantize" in step]
    return dict(found)


def _detectors(data: Path) -> list[Case]:
    samples = sorted((data / "imagenet-samples").rglob("*.[jJ]*[gG]"))
    calibration, held = samples[::5][:96], samples[2::10]
    images, truths, labels = _coco(data)

    def case(name: str, file: str, family: FamilySpec, contract: InputContract, **settings: Any) -> Case:
        make = _imported(data / "models" / file, contract)
        found = {"scheme": "affine", **settings}
        return Case(name, make, family, contract, calibration, images, truths, "ap", held, settings=found)

    yolox = FamilySpec(
        "detection",
        labels,
        head="yolox",
        score_threshold=0.01,
        iou_threshold=0.65,
        max_detections=100,
        options={"multi_label": True},
    )
    letterbox = InputContract(size=(416, 416), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft")
    fastestdet = FamilySpec("detection", labels, head="fastestdet", score_threshold=0.01, max_detections=100)
    stretch = InputContract(size=(352, 352), color="bgr", interpolation="area")
    return [
        # As the recipe yolox-nano has it: the ladder stops at two of these layers, and 1.1 points are lost then.
        case(
            "YOLOX-nano",
            "yolox_nano/yolox_nano.onnx",
            yolox,
            letterbox,
            split=shipped("detection/yolox-nano.yaml")["split"],
        ),
        case("FastestDet", "fastestdet/FastestDet.onnx", fastestdet, stretch),
    ]


def _faces(data: Path, made: Path, films: Sequence[Path]) -> list[Case]:
    """Calibrated on people, on films of them and on crowds: of the pictures of COCO few show a face.

    Ranges go as far as values were seen: what other rules cut off, as rare and far from the mean, are the faces.
    """
    images = sorted((data / "faces/images").glob("*.*"))
    people = sorted((data / "coco-mini/images").glob("*.jpg"))
    calibration = (*people[::2], *films[::2], *crowds(data, made / "crowds"))

    def case(name: str, file: str, family: FamilySpec, contract: InputContract) -> Case:
        make, truths = _imported(data / "models" / file, contract), [None] * len(images)
        settings = {"scheme": "affine", "ranges": "minmax"}
        return Case(
            name, make, family, contract, calibration, images, truths, "same faces", people[1::2], settings=settings
        )

    ultraface = FamilySpec("detection", ("face",), head="ultraface", score_threshold=0.7, iou_threshold=0.4)
    stretch = InputContract(size=(240, 320), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    yunet = FamilySpec("detection", ("face",), head="yunet", score_threshold=0.6, iou_threshold=0.4)
    letterbox = InputContract(size=(320, 320), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft", pad_value=0)
    return [
        case("UltraFace", "ultraface_rfb_320/version-RFB-320.onnx", ultraface, stretch),
        case("YuNet", "yunet_n_320/yunet_n_320_320.onnx", yunet, letterbox),
    ]


def _people(data: Path, made: Path, films: Sequence[Path]) -> list[Case]:
    crops = _written(persons(data), made / "persons")
    half, third = len(crops) // 2, len(crops) // 3
    contract = InputContract(size=(256, 128), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    osnet = Case(
        "OSNet",
        _imported(data / "models/osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx", contract),
        FamilySpec("embedding", ("person",)),
        contract,
        crops[:third],
        crops[half:],
        [None] * (len(crops) - half),
        "cosine",
        crops[third:half],
        budget="recall1",
    )
    mean, std = (102.890434, 111.25247, 126.91212), (62.93292, 62.82138, 66.355705)
    spread = tuple(255 * value for value in std)
    contract = InputContract(size=(320, 320), color="bgr", range=(0.0, 255.0), mean=mean, std=spread)
    images, truths = person_masks(data / "coco-mini")
    sinet = Case(
        "SINet",
        _imported(data / "models/sinet_portrait/SINet.onnx", contract),
        FamilySpec("segmentation", ("background", "person")),
        contract,
        films[::2],
        images,
        truths,
        "miou",
        films[1::2],
        budget="miou",
    )
    return [osnet, sinet]


def _imdn(data: Path, made: Path) -> Case:
    """Super-resolution of Set5; calibrated on parts of photographs, which have the size of the network's input."""

    def make() -> Any:
        from edgecv.core.recipe import Weights
        from edgecv.models.reference_restoration import imdn_rtc
        from edgecv.models.weights import apply_state_dict, read_state_dict

        path = data / "models/imdn_rtc_x2/model_RTC.pth"
        module = imdn_rtc()
        apply_state_dict(module, read_state_dict(path, Weights(path=str(path))), strict=True)
        return module.eval()

    folder = made / "restoration"
    parts = middles(sorted((data / "coco-mini/images").glob("*.jpg")), folder / "coco", SIDE)
    large = middles(sorted((data / "imagenet-samples").rglob("*.[jJ]*[gG]")), folder / "large", 2 * SIDE)
    small = halves(large, folder / "small")
    set5 = data / "restoration-mini/set5"
    images = sorted((set5 / "LR_bicubic_x2").glob("*.bmp"))
    return Case(
        "IMDN-RTC x2",
        make,
        FamilySpec("restoration", ("picture",), options={"scale": 2, "overlap": 24}),
        InputContract(size=(SIDE, SIDE)),
        parts,
        images,
        [cv2.imread(str(set5 / "HR" / path.name.replace("x2", ""))) for path in images],
        "psnr",
        small[::JUDGED_OF],
        budget="psnr",
        max_drop=0.2,
        held_truths=[read(path) for path in large[::JUDGED_OF]],
        train=[path for index, path in enumerate(small) if index % JUDGED_OF][:TRAINED],
        settings={**shipped("restoration/imdn-rtc-x2.yaml"), "scheme": "affine"},
    )


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
    held = [path for label in labels for path in sorted((folder / "train" / label).glob("*"))[30:80]]
    contract = InputContract(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images, truths = [path for path, _ in test], [index for _, index in test]
    family = FamilySpec("classification", labels)
    return Case("ResNet-20", make, family, contract, train, images, truths, "top1", held, budget="top1")


def _plates(data: Path) -> Case:
    def make() -> Any:
        from edgecv.core.recipe import Weights
        from edgecv.models.reference_text import lprnet
        from edgecv.models.weights import apply_state_dict, read_state_dict

        path = data / "models/lprnet/Final_LPRNet_model.pth"
        module = lprnet()
        apply_state_dict(module, read_state_dict(path, Weights(path=str(path))), strict=True)
        return module.eval()

    folder = data / "ocr-mini/plates"
    labels = tuple((folder / "charset.txt").read_text(encoding="utf-8").split())
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()[1:]
    files, texts = zip(*(line.split(",") for line in lines), strict=True)
    paths = [folder / file for file in files]
    contract = InputContract(size=(24, 94), color="bgr", mean=(0.5,) * 3, std=(0.50196,) * 3)
    return Case(
        "LPRNet",
        make,
        FamilySpec("text", labels),
        contract,
        paths[:60],
        paths[108:],
        texts[108:],
        "exact",
        paths[60:108],
        budget="exact",
        # As the recipe lprnet-plates has it: 48 plates without labels cannot tell the ladder of one in 300.
        settings={"scheme": "affine", "keep_float": shipped("text/lprnet-plates.yaml")["keep_float"]},
    )


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


def _written(images: dict[str, Image], folder: Path) -> list[Path]:
    """The pictures as files in ``folder``."""
    folder.mkdir()
    for name, image in images.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    return [folder / f"{name}.png" for name in images]


def read(path: Path) -> Image:
    """A picture, BGR."""
    image: Any = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    picture: Image = image
    return picture
