"""The recipe: what is to be done, as frozen dataclasses without any parsing.

`edgecv.recipe.load` validates YAML against these classes (bounds and descriptions stand in the
fields' metadata, which pydantic reads) and generates the JSON schema from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union

from edgecv.core.contract import FORBID_UNKNOWN, InputContract
from edgecv.core.kinds import DataKind, FamilyKind, MetricName
from edgecv.core.steps import STEP_KEYS, Distill, Finetune, Fit, Prune, Quantize, Step

__all__ = [
    "STEP_KEYS",
    "Budgets",
    "AccuracyBudget",
    "CalibrationSpec",
    "Data",
    "DataSpec",
    "Distill",
    "FamilySpec",
    "Finetune",
    "Fit",
    "LatencyBudget",
    "ModelSpec",
    "Prune",
    "Quantize",
    "Recipe",
    "Step",
    "Weights",
]


@dataclass(frozen=True)
class Weights:
    """Where trained weights come from; exactly one of ``path`` and ``url``.

    A file is a ``.safetensors`` file or a PyTorch state dict, which is only ever loaded with
    ``weights_only``. A URL needs ``sha256``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    path: str | None = field(default=None, metadata={"description": "file, relative to the recipe"})
    url: str | None = field(default=None, metadata={"description": "http(s) address; needs sha256"})
    sha256: str | None = field(default=None, metadata={"pattern": "^[0-9a-f]{64}$", "description": "hash of the file"})
    key: str | None = field(default=None, metadata={"description": "entry of the file that holds the state dict"})
    strip_prefix: str = field(default="", metadata={"description": "prefix cut from every key, such as 'module.'"})
    strict: bool = field(default=True, metadata={"description": "refuse missing and unexpected keys"})


@dataclass(frozen=True)
class ModelSpec:
    """Which network, with which weights, on which input."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    source: str = field(
        metadata={
            "pattern": r"^(torchvision|timm|transformers|python|onnx):.+$",
            "description": "torchvision:NAME, timm:NAME, transformers:NAME, python:module:function or onnx:FILE",
        }
    )
    input: InputContract = field(metadata={"description": "how a picture becomes the network's input"})
    weights: Weights | None = field(default=None, metadata={"description": "trained weights, or null for random"})
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"description": "keyword arguments for the model's constructor"}
    )


@dataclass(frozen=True)
class FamilySpec:
    """What the outputs mean. ``background`` says that output 0 is "none of the labels".

    ``head`` names the layout of the outputs where a family has several (detection: yolo, ssd, ...);
    ``options`` are that head's own settings, which the family checks.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    kind: FamilyKind = field(metadata={"description": "model family"})
    labels: tuple[str, ...] = field(metadata={"min_length": 1, "description": "class names, in output order"})
    background: bool = field(default=False, metadata={"description": "output 0 is a background class without a label"})
    top_k: int = field(default=5, metadata={"ge": 1, "description": "how many classes a result keeps"})
    outputs: Literal["logits", "probabilities"] = field(
        default="logits", metadata={"description": "whether softmax is still to be done"}
    )
    head: str = field(default="", metadata={"description": "layout of the outputs: `edgecv list families` names them"})
    score_threshold: float = field(
        default=0.25, metadata={"ge": 0, "le": 1, "description": "objects below this score are left out"}
    )
    iou_threshold: float = field(
        default=0.45, metadata={"ge": 0, "le": 1, "description": "of two boxes that overlap more, one is left out"}
    )
    max_detections: int = field(default=300, metadata={"ge": 1, "description": "how many objects a result keeps"})
    keypoints: tuple[str, ...] = field(default=(), metadata={"description": "names of the keypoints, in output order"})
    skeleton: tuple[tuple[int, int], ...] = field(
        default=(), metadata={"description": "pairs of keypoint numbers that an overlay joins"}
    )
    options: dict[str, Any] = field(default_factory=dict, metadata={"description": "settings of the head"})


@dataclass(frozen=True)
class DataSpec:
    """A data set: ``sklearn-digits`` (bundled), ``imagefolder`` (a folder a class), ``csv`` (file,label), ``coco``
    (instances json with boxes), ``images`` (a folder or glob of pictures without labels), ``video-frames`` (the same of
    videos, one picture a second), or another kind of `edgecv.core.kinds.DATA_KINDS`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    kind: DataKind = field(metadata={"description": "reader"})
    path: str | None = field(
        default=None, metadata={"description": "folder, csv file, instances json or glob, relative to the recipe"}
    )
    split: Literal["train", "test", "all"] = field(
        default="all", metadata={"description": "part of a bundled set; defects: train is all good"}
    )
    truth: str | None = field(
        default=None,
        metadata={
            "min_length": 1,
            "description": "folder of each picture's truth under the same name, or a path with {stem} for it",
        },
    )
    ignore_index: int | None = field(
        default=None,
        metadata={"ge": 0, "le": 255, "description": "masks: value of pixels that are not judged (default: 255)"},
    )
    depth_unit: Literal["mm", "kitti", "sun-rgbd"] | None = field(
        default=None, metadata={"description": "depth: what a step of the 16-bit values is (default: mm)"}
    )
    crop: float | None = field(
        default=None,
        metadata={
            "ge": 0.1,
            "le": 10,
            "description": "keypoints: one sample a person, its box a quarter larger, with so much width for its "
            "height (0.75 for inputs of 256 x 192); without it, whole pictures",
        },
    )
    caption: str | None = field(
        default=None,
        metadata={
            "min_length": 1,
            "description": "captions: pictures of which a caption has one of these words, such as street car",
        },
    )
    noise: float | None = field(
        default=None,
        metadata={
            "ge": 0,
            "le": 255,
            "description": "noisy: standard deviation of the Gaussian noise, in steps of 0..255 (default: 25; 0 beside "
            "shot)",
        },
    )
    shot: float | None = field(
        default=None,
        metadata={
            "ge": 0,
            "le": 64,
            "description": "noisy: steps of 0..255 that one electron makes; the noise of light has shot times the "
            "value as its variance (default: 0)",
        },
    )
    pieces: int | None = field(
        default=None,
        metadata={
            "ge": 1,
            "le": 1024,
            "description": "images, video-frames of data.unlabelled: so many squares of random size and place out of "
            "every picture, not the picture whole; good for inputs of few pixels",
        },
    )
    root: str | None = field(
        default=None, metadata={"description": "csv, coco, text: folder of the images (default: of the file)"}
    )
    file_column: str = field(default="file", metadata={"description": "csv, text: column with the image's path"})
    label_column: str = field(
        default="label", metadata={"description": "csv: column with class name or number; text: with the text (text)"}
    )
    only: str | None = field(
        default=None,
        metadata={"min_length": 1, "description": "coco, images, text: glob, or a part, of the file name or coco_url"},
    )
    limit: int | None = field(default=None, metadata={"ge": 1, "description": "use an even pick of so many samples"})
    strict: bool = field(default=False, metadata={"description": "refuse unreadable images instead of skipping them"})


@dataclass(frozen=True)
class CalibrationSpec:
    """A calibration set picked at build time, where no manifest is named."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    source: DataSpec = field(metadata={"description": "data set to pick from"})
    samples: int = field(default=128, metadata={"ge": 1, "description": "how many pictures"})
    select: Literal["random", "stratified", "k-center"] = field(
        default="stratified", metadata={"description": "selection rule"}
    )
    seed: int = field(default=0, metadata={"ge": 0, "description": "seed of the selection"})


@dataclass(frozen=True)
class Data:
    """The data sets of a recipe. Without ``eval`` nothing can be proven, so it is required."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    eval: DataSpec = field(metadata={"description": "evaluation set; every compiled file runs on all of it"})
    train: DataSpec | None = field(default=None, metadata={"description": "needed by finetune, qat and taylor pruning"})
    validation: DataSpec | None = field(
        default=None,
        metadata={
            "description": "pictures with labels, of neither train nor eval: the repair ladder is judged on them, and "
            "the best epoch of a training chosen by them (default: pictures of train)"
        },
    )
    unlabelled: DataSpec | None = field(
        default=None,
        metadata={
            "description": "more pictures to train on, for which the teacher answers: one beside each picture of "
            "train, in finetune and qat with distill above 0. Labels are not looked at"
        },
    )
    calibration: Union[str, CalibrationSpec, None] = field(
        default=None, metadata={"description": "name or path of a calibration manifest, or a selection"}
    )


@dataclass(frozen=True)
class AccuracyBudget:
    """How much of the metric may be lost against the original float model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    metric: MetricName = field(
        default="top1", metadata={"description": "metric of the family (default: the family's first)"}
    )
    max_drop: float | None = field(
        default=None,
        metadata={
            "ge": 0,
            "description": "how much worse it may be: 0.01 = one point of a share 0..1 or of abs_rel; psnr: in dB; "
            "rmse_m: in metres",
        },
    )
    min: float | None = field(
        default=None, metadata={"ge": 0, "description": "lowest allowed value: a share 0..1; psnr: in dB"}
    )
    max: float | None = field(
        default=None, metadata={"ge": 0, "description": "highest allowed value of an error: abs_rel, rmse_m (metres)"}
    )


@dataclass(frozen=True)
class LatencyBudget:
    """Limits in milliseconds at batch 1, picture to decoded result."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    p50_ms: float | None = field(default=None, metadata={"gt": 0, "description": "median"})
    p95_ms: float | None = field(default=None, metadata={"gt": 0, "description": "95th percentile"})
    p99_ms: float | None = field(default=None, metadata={"gt": 0, "description": "99th percentile"})


@dataclass(frozen=True)
class Budgets:
    """What the artifacts are held against; a missing one is not checked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    accuracy: AccuracyBudget | None = field(default=None, metadata={"description": "task metric"})
    latency: LatencyBudget | None = field(default=None, metadata={"description": "milliseconds at batch 1"})
    size_mb: float | None = field(default=None, metadata={"gt": 0, "description": "model file, in 10^6 bytes"})
    size_ratio: float | None = field(
        default=None, metadata={"gt": 0, "le": 2, "description": "model file / the same backend's float file"}
    )


@dataclass(frozen=True)
class Override:
    """Other values for the targets whose name matches the glob ``select``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    select: str = field(metadata={"description": "target name glob, such as raspberry-pi-*"})
    set: dict[str, Any] = field(
        metadata={"description": "dotted recipe paths and their values, such as budgets.latency.p95_ms: 40"}
    )


@dataclass(frozen=True)
class Measure:
    """How latency is measured; ``fps`` is the camera rate of the paced run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    protocol: Literal["full", "quick", "smoke"] = field(
        default="full",
        metadata={"description": "full: 1024 runs and 60 s; quick: 128 and 10 s; smoke: 32 and 1 s, to try a recipe"},
    )
    fps: float = field(default=30.0, metadata={"gt": 0, "le": 1000, "description": "camera rate of the paced run"})


@dataclass(frozen=True)
class Recipe:
    """The whole of what `edgecv optimize` is asked to do."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    recipe: Literal[1] = field(metadata={"description": "version of the recipe format"})
    name: str = field(metadata={"pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$", "description": "names the output folder"})
    model: ModelSpec = field(metadata={"description": "network, weights and input"})
    family: FamilySpec = field(metadata={"description": "what the outputs mean"})
    data: Data = field(metadata={"description": "data sets"})
    targets: tuple[str, ...] = field(metadata={"min_length": 1, "description": "names or paths of target files"})
    steps: tuple[Step, ...] = field(default=(), metadata={"description": "changes of the model, in order"})
    budgets: Budgets = field(default_factory=Budgets, metadata={"description": "what CI gates on"})
    measure: Measure = field(default_factory=Measure, metadata={"description": "latency protocol"})
    overrides: tuple[Override, ...] = field(default=(), metadata={"description": "values for some targets"})
    seed: int = field(default=0, metadata={"ge": 0, "description": "seed of everything random"})
