"""The kinds of model family and of data set, as facts that a recipe is checked against.

They stand apart from the modules that do the work, so that a recipe is read without loading those.
A new family has its row in `FAMILY_KINDS`, a new reader its row in `DATA_KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FamilyKind = Literal[
    "classification",
    "detection",
    "pose",
    "embedding",
    "segmentation",
    "text",
    "restoration",
    "depth",
    "instance",
    "anomaly",
    "video",
    "text-detection",
]
MetricName = Literal[
    "top1",
    "top5",
    "ap",
    "ap50",
    "mask_ap",
    "mask_ap50",
    "oks_ap",
    "oks_ap50",
    "pck",
    "nme_auc",
    "recall1",
    "recall5",
    "map",
    "miou",
    "pixel_accuracy",
    "dice",
    "exact",
    "similarity",
    "psnr",
    "ssim",
    "delta1",
    "abs_rel",
    "rmse_m",
    "auroc",
    "hmean",
]
DataKind = Literal[
    "sklearn-digits",
    "scenes-boxes",
    "scenes-masks",
    "scenes-instances",
    "scenes-depth",
    "scenes-keypoints",
    "imagefolder",
    "csv",
    "coco",
    "coco-masks",
    "images",
    "video-frames",
    "coco-captions",
    "masks",
    "text",
    "pairs",
    "depth",
    "yolo",
    "voc",
    "kitti",
    "mot",
    "anomaly",
    "textures",
    "defects",
    "coco-keypoints",
    "videofolder",
    "video-csv",
    "scenes-motions",
    "textdet",
    "icdar",
    "scenes-text",
    "scenes-words",
    "identities",
    "identities-csv",
    "scenes-identities",
    "vectors",
    "noisy",
    "scenes-noisy",
]


@dataclass(frozen=True)
class FamilyFacts:
    """What a recipe may ask of a family: its ``metrics`` (the usual one first), and kinds of ``data`` with its truths.

    ``loss`` says whether the family trains on labels; the others learn from a teacher alone (distillation). Where only
    networks with some heads do, ``loss_heads`` names those; ``part_heads`` those that do so in ``finetune`` alone, by
    the parts of their networks and not by their outputs.
    ``labels`` are the names that a model without a list of its own is taken to have; empty where names are needed.
    ``tight`` families are trained on objects cut out by their boxes: a second stage neither widens nor reshapes those.
    ``augment`` are the changes of pictures in training (`edgecv.core.steps.Augment`) that keep the truths right.
    ``fits``: the step ``fit`` shows its networks what is usual.
    ``compares``: its loss compares the samples of a batch, and one alone says nothing.
    ``objects``: its results are boxes of objects, which can be tracked and looked at by a second stage.
    ``pieces``: they are other parts of a picture, which a second stage can look at and no tracker follows.
    ``clips``: its networks see some frames of a video at once, which ``model.input.clip`` tells.
    """

    metrics: tuple[MetricName, ...]
    data: tuple[DataKind, ...] = ()
    labels: tuple[str, ...] = ()
    loss: bool = False
    loss_heads: tuple[str, ...] = ()
    part_heads: tuple[str, ...] = ()
    tight: bool = False
    augment: tuple[str, ...] = ("shift", "flip", "scale", "color")
    objects: bool = False
    pieces: bool = False
    fits: bool = False
    compares: bool = False
    clips: bool = False

    def trains(self, head: Any) -> bool:
        """Whether networks with this head train on labels."""
        return self.loss and (not self.loss_heads or head in self.loss_heads)


@dataclass(frozen=True)
class DataFacts:
    """What ``path`` of a data set of this kind is (``what``, in words), and which other keys go with it.

    ``root`` is the folder of the pictures where ``path`` is a list of them; ``only`` picks pictures by name;
    ``truth`` is the folder or pattern of the files that hold each picture's truth (``truth_needed``: there must be
    one); ``ignore_index`` a value in them that is not judged, ``depth_unit`` what they count in; ``crop`` makes
    each person a sample; ``caption`` picks by what is said of a picture; ``noise`` and ``shot`` are how much noise is
    put on clean pictures; ``pieces`` cuts squares out of pictures. ``classes`` says whether what a picture shows is
    known without reading those files, so that pictures can be picked evenly over the classes; ``split`` that
    ``split: train`` shows files otherwise.
    """

    path: Literal["none", "folder", "file", "pictures", "videos"]
    what: str = ""
    root: bool = False
    only: bool = False
    truth: bool = False
    truth_needed: bool = True
    ignore_index: bool = False
    depth_unit: bool = False
    crop: bool = False
    caption: bool = False
    noise: bool = False
    shot: bool = False
    pieces: bool = False
    classes: bool = True
    split: bool = False


_CLASSES: tuple[DataKind, ...] = ("imagefolder", "csv", "sklearn-digits")

_ALL_CHANGES = ("shift", "flip", "scale", "color", "mosaic")

FAMILY_KINDS: dict[FamilyKind, FamilyFacts] = {
    "classification": FamilyFacts(("top1", "top5"), _CLASSES, loss=True),
    "detection": FamilyFacts(
        ("ap", "ap50"),
        ("coco", "yolo", "voc", "kitti", "mot", "scenes-boxes"),
        loss=True,
        loss_heads=("yolox", "yolo", "yolo-end2end", "fastestdet", "ssd", "retinanet", "fcos", "detr"),
        part_heads=("rcnn",),
        objects=True,
        augment=_ALL_CHANGES,
    ),
    "pose": FamilyFacts(
        ("oks_ap", "oks_ap50", "pck", "nme_auc"),
        ("coco-keypoints", "scenes-keypoints"),
        labels=("person",),
        loss=True,
        loss_heads=("heatmap", "simcc", "regression", "yolo-pose"),
        part_heads=("rois",),
    ),
    "embedding": FamilyFacts(
        ("recall1", "recall5", "map"),
        ("identities", "identities-csv", "scenes-identities", *_CLASSES),
        labels=("person",),
        loss=True,
        compares=True,
        tight=True,
    ),
    "segmentation": FamilyFacts(
        ("miou", "pixel_accuracy", "dice"), ("masks", "scenes-masks"), loss=True, augment=_ALL_CHANGES
    ),
    "text": FamilyFacts(
        ("exact", "similarity"), ("text", "scenes-words"), loss=True, tight=True, augment=("shift", "color")
    ),
    "restoration": FamilyFacts(
        ("psnr", "ssim"), ("pairs", "noisy", "scenes-noisy"), labels=("picture",), loss=True, augment=()
    ),
    "depth": FamilyFacts(
        # What is drawn larger looks nearer, and its true depth would not say so.
        ("delta1", "abs_rel", "rmse_m"),
        ("depth", "scenes-depth"),
        labels=("depth",),
        loss=True,
        augment=("shift", "flip", "color"),
    ),
    "instance": FamilyFacts(
        ("mask_ap", "mask_ap50"),
        ("coco-masks", "scenes-instances"),
        loss=True,
        loss_heads=("prototypes",),
        part_heads=("rois",),
        objects=True,
        augment=_ALL_CHANGES,
    ),
    "anomaly": FamilyFacts(("auroc",), ("anomaly", "textures", "defects"), labels=("defect",), loss=True, fits=True),
    "video": FamilyFacts(
        ("top1", "top5"),
        ("videofolder", "video-csv", "scenes-motions"),
        loss=True,
        augment=("shift", "scale", "color"),
        clips=True,
    ),
    "text-detection": FamilyFacts(
        ("hmean",),
        ("textdet", "icdar", "scenes-text"),
        labels=("text",),
        loss=True,
        pieces=True,
        augment=("shift", "scale", "color"),
    ),
}

DATA_KINDS: dict[DataKind, DataFacts] = {
    "sklearn-digits": DataFacts("none"),
    "scenes-boxes": DataFacts("none", classes=False),
    "scenes-masks": DataFacts("none", classes=False),
    "scenes-instances": DataFacts("none", classes=False),
    "scenes-depth": DataFacts("none", classes=False),
    "scenes-keypoints": DataFacts("none", crop=True, classes=False),
    "imagefolder": DataFacts("folder", "the folder that holds one folder a class"),
    "csv": DataFacts("file", "the csv file", root=True),
    "coco": DataFacts("file", "the instances json", root=True, only=True),
    "coco-masks": DataFacts("file", "the instances json", root=True, only=True),
    "images": DataFacts("pictures", "a folder of pictures, or a glob", only=True, pieces=True, classes=False),
    "video-frames": DataFacts(
        "videos", "a video, a folder of videos, or a glob", only=True, pieces=True, classes=False
    ),
    "coco-captions": DataFacts("file", "the captions json", root=True, only=True, caption=True, classes=False),
    "masks": DataFacts(
        "pictures", "a folder of pictures, or a glob", only=True, truth=True, ignore_index=True, classes=False
    ),
    "text": DataFacts("file", "the csv file", root=True, only=True),
    "pairs": DataFacts("pictures", "a folder of pictures, or a glob", only=True, truth=True, classes=False),
    "depth": DataFacts(
        "pictures", "a folder of pictures, or a glob", only=True, truth=True, depth_unit=True, classes=False
    ),
    "yolo": DataFacts("pictures", "a folder of pictures, or a glob", only=True, truth=True, classes=False),
    "voc": DataFacts("pictures", "a folder of pictures, or a glob", only=True, truth=True, classes=False),
    "kitti": DataFacts("pictures", "a folder of pictures, or a glob", only=True, truth=True, classes=False),
    "mot": DataFacts("file", "the gt.txt of a sequence", root=True, classes=False),
    "anomaly": DataFacts(
        "folder",
        "the folder that holds good and one folder for each kind of defect",
        only=True,
        truth=True,
        truth_needed=False,
        classes=False,
    ),
    "textures": DataFacts("none", only=True, classes=False),
    "defects": DataFacts("pictures", "a folder of good pictures, or a glob", only=True, split=True, classes=False),
    "coco-keypoints": DataFacts("file", "the person keypoints json", root=True, only=True, crop=True, classes=False),
    "videofolder": DataFacts("folder", "the folder that holds one folder a class, with videos or folders of frames"),
    "video-csv": DataFacts("file", "the csv file", root=True),
    "scenes-motions": DataFacts("none"),
    "textdet": DataFacts("file", "the textdet json", root=True, only=True, classes=False),
    "icdar": DataFacts("pictures", "a folder of pictures, or a glob", only=True, truth=True, classes=False),
    "scenes-text": DataFacts("none", classes=False),
    "scenes-words": DataFacts("none", classes=False),
    "identities": DataFacts(
        "folder", "the folder with one folder an identity, or with query and gallery that have those", classes=False
    ),
    "identities-csv": DataFacts("file", "the csv file", root=True, classes=False),
    "scenes-identities": DataFacts("none", classes=False),
    "vectors": DataFacts("file", "the csv file with a class and numbers a line"),
    "noisy": DataFacts(
        "pictures", "a folder of clean pictures, or a glob", only=True, noise=True, shot=True, classes=False
    ),
    "scenes-noisy": DataFacts("none", noise=True, shot=True, classes=False),
}

METRIC_UNITS: dict[str, str] = {"psnr": "dB", "rmse_m": "m"}
"""The units of the metrics that are no shares."""
ERRORS = frozenset(("abs_rel", "rmse_m"))
"""The metrics of which less is better; they have no upper end."""


def lower_is_better(metric: str) -> bool:
    """Whether ``metric`` is an error."""
    return metric in ERRORS


def metric_loss(metric: str, before: float, after: float) -> float:
    """How much worse ``after`` is than ``before``, in the metric's own unit; below 0 where it is better."""
    return after - before if lower_is_better(metric) else before - after


def metric_unit(metric: str) -> str:
    """``share`` for a metric from 0 to 1 whose losses are told in points, else its unit, such as ``dB``."""
    return METRIC_UNITS.get(metric, "share")


def family_facts(kind: Any) -> FamilyFacts | None:
    """The facts of family ``kind``; None for anything that is no family's name."""
    return FAMILY_KINDS.get(kind) if isinstance(kind, str) else None  # type: ignore[call-overload]


def data_facts(kind: Any) -> DataFacts | None:
    """The facts of data of this ``kind``; None for anything that is no kind's name."""
    return DATA_KINDS.get(kind) if isinstance(kind, str) else None  # type: ignore[call-overload]


def kinds_with(key: str) -> tuple[DataKind, ...]:
    """The kinds of data that take ``key``, which is one of the keys of `DataFacts`, such as root or noise."""
    return tuple(kind for kind, facts in DATA_KINDS.items() if getattr(facts, key))
